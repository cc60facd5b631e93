/* detok.c - ids to text, one by one, never half a character. See tok.h.
 *
 * Bytes that may still become a character are held back. With byte fallback a whole run of byte
 * tokens is held, because one wrong byte makes every byte of the run U+FFFD. */
#include "base/buffer.h"
#include "text/vocab.h"

struct detok {
    const struct tok *tok;
    bool skip_special, began;
    struct buffer run; /* bytes not yet decided */
    struct buffer out;
    int strip; /* leading characters still to be left out, see begin() */
};

static const struct step *decoder(const struct tok *t, int kind)
{
    for (int i = 0; i < t->decode.n; i++)
        if ((int)t->decode.at[i].kind == kind)
            return &t->decode.at[i];
    return NULL;
}

static void begin(struct detok *d)
{
    const struct step *strip = decoder(d->tok, STEP_STRIP);
    d->strip = strip ? strip->start : 0;
    d->began = false;
    d->run.n = 0;
}

struct detok *detok_new(const struct tok *t, bool skip_special)
{
    struct detok *d = calloc(1, sizeof(*d));
    must(d);
    d->tok = t;
    d->skip_special = skip_special;
    begin(d);
    return d;
}

void detok_free(struct detok *d)
{
    if (!d)
        return;
    buffer_free(&d->run);
    buffer_free(&d->out);
    free(d);
}

/* Certain text goes out, but for what the Strip decoder takes from the front of it all. */
static void emit(struct detok *d, const char *s, size_t n)
{
    const struct step *strip = decoder(d->tok, STEP_STRIP);
    while (d->strip && n && n >= strip->from.n && !memcmp(s, strip->from.s, strip->from.n)) {
        s += strip->from.n, n -= strip->from.n;
        d->strip--;
    }
    if (!n)
        return;
    d->strip = 0;
    buffer_add(&d->out, s, n);
}

/* Byte level: every complete character goes out, every impossible sequence as one U+FFFD; the
 * beginning of a character stays, unless this is the end. */
static void settle_bytes(struct detok *d, bool end)
{
    size_t at = 0;
    while (at < d->run.n) {
        size_t bad;
        int k = utf8_length(d->run.at + at, d->run.n - at, &bad);
        if (k < 0 && !end)
            break;
        emit(d, k > 0 ? d->run.at + at : "\xEF\xBF\xBD", k > 0 ? (size_t)k : 3);
        at += k > 0 ? (size_t)k : bad;
    }
    buffer_drop(&d->run, at);
}

/* Byte fallback: the run is text when all of it is, otherwise U+FFFD for each byte. */
static void settle_run(struct detok *d)
{
    bool valid = true;
    for (size_t at = 0, bad; valid && at < d->run.n;) {
        int k = utf8_length(d->run.at + at, d->run.n - at, &bad);
        valid = k > 0;
        at += valid ? (size_t)k : 0;
    }
    if (valid)
        emit(d, d->run.at, d->run.n);
    for (size_t i = 0; !valid && i < d->run.n; i++)
        emit(d, "\xEF\xBF\xBD", 3);
    d->run.n = 0;
}

/* The bytes that a token spelt in the byte alphabet stands for; false: it is not. */
static bool from_letters(struct text s, char *to, size_t *n)
{
    *n = 0;
    for (size_t i = 0, bad; i < s.n;) {
        const unsigned char *c = (const unsigned char *)s.s + i;
        int k = utf8_length(s.s + i, s.n - i, &bad);
        int b = k == 1   ? letter_byte(c[0])
                : k == 2 ? letter_byte((c[0] & 31u) << 6 | (c[1] & 63u))
                         : -1;
        if (b < 0)
            return false;
        to[(*n)++] = (char)b;
        i += (size_t)k;
    }
    return true;
}

/* "<0x41>" is the byte 0x41. */
static int byte_token(struct text s)
{
    unsigned b;
    char end;
    if (s.n != 6 || memcmp(s.s, "<0x", 3) || sscanf(s.s, "<0x%2x%c", &b, &end) != 2 || end != '>')
        return -1;
    return (int)b;
}

/* A word's marks as its decoder writes them, wherever it stands. */
static struct text plain_word(const struct tok *t, struct text s, struct pool *pool)
{
    const struct step *meta = decoder(t, STEP_METASPACE);
    const struct step *swap = meta ? meta : decoder(t, STEP_REPLACE);
    struct text to = meta ? (struct text){" ", 1} : swap ? swap->to : s;
    if (!swap || !swap->from.n || !memmem(s.s, s.n, swap->from.s, swap->from.n))
        return s;
    size_t n = 0;
    char *at = pool_get(pool, s.n * (to.n + 1));
    for (size_t i = 0; i < s.n;) {
        bool mark = s.n - i >= swap->from.n && !memcmp(s.s + i, swap->from.s, swap->from.n);
        memcpy(at + n, mark ? to.s : s.s + i, mark ? to.n : 1);
        n += mark ? to.n : 1;
        i += mark ? swap->from.n : 1;
    }
    return (struct text){at, n};
}

static struct text stands_for(struct tok *t, const struct token *token)
{
    struct text s = token->text;
    bool plain = true;
    for (size_t i = 0; i < s.n; i++)
        plain &= s.s[i] > ' ' && s.s[i] < 127;
    int byte = decoder(t, STEP_BYTE_FALLBACK) ? byte_token(s) : -1;
    if (!s.s || token->added || (plain && byte < 0))
        return s;
    if (t->byte_level) {
        size_t n;
        char *at = pool_get(&t->pool, s.n);
        return from_letters(s, at, &n) ? (struct text){at, n} : s;
    }
    if (byte < 0)
        return plain_word(t, s, &t->pool);
    char *at = pool_get(&t->pool, 1);
    *at = (char)byte;
    return (struct text){at, 1};
}

void detok_prepare(struct tok *t)
{
    t->bytes = pool_get(&t->pool, (size_t)t->n_vocab * sizeof(*t->bytes));
    for (int i = 0; i < t->n_vocab; i++)
        t->bytes[i] = stands_for(t, &t->token[i]);
}

static void take_byte_level(struct detok *d, const struct token *token)
{
    char small[256], *bytes = token->text.n <= sizeof(small) ? small : malloc(token->text.n);
    size_t n;
    must(bytes);
    if (!token->added && from_letters(token->text, bytes, &n))
        buffer_add(&d->run, bytes, n);
    else
        buffer_add(&d->run, token->text.s, token->text.n);
    settle_bytes(d, false);
    if (bytes != small)
        free(bytes);
}

/* Marks become blanks: by a Metaspace decoder, which also takes those of
 * the first token away, or Replace. */
static void take_words(struct detok *d, const struct token *token)
{
    const struct step *meta = decoder(d->tok, STEP_METASPACE);
    const struct step *swap = meta ? meta : decoder(d->tok, STEP_REPLACE);
    struct text s = token->text, to = meta ? (struct text){" ", 1} : swap ? swap->to : s;
    bool drop = meta && !d->began && (meta->always || meta->first_only);
    for (size_t i = 0; i < s.n;) {
        bool mark = swap && swap->from.n && s.n - i >= swap->from.n &&
                    !memcmp(s.s + i, swap->from.s, swap->from.n);
        if (!mark) {
            emit(d, s.s + i, 1);
            i++;
            continue;
        }
        if (!drop)
            emit(d, to.s, to.n);
        i += swap->from.n;
    }
}

const char *detok_next(struct detok *d, int id, size_t *n)
{
    const struct tok *t = d->tok;
    const struct token *token = id >= 0 && id < t->n_vocab ? &t->token[id] : NULL;
    d->out.n = 0;
    buffer_add(&d->out, "", 0);
    if (token && token->text.s && !(token->special && d->skip_special)) {
        bool may_be_byte = !token->added && decoder(t, STEP_BYTE_FALLBACK);
        int byte = may_be_byte ? byte_token(token->text) : -1;
        if (t->byte_level) {
            take_byte_level(d, token);
        } else if (byte >= 0) {
            buffer_add(&d->run, &(char){(char)byte}, 1);
        } else {
            settle_run(d);
            if (!t->decode.n && d->began)
                emit(d, " ", 1); /* without decoders, words */
            take_words(d, token);
        }
        d->began = true;
    }
    *n = d->out.n;
    return d->out.at;
}

const char *detok_flush(struct detok *d, size_t *n)
{
    d->out.n = 0;
    buffer_add(&d->out, "", 0);
    if (d->tok->byte_level)
        settle_bytes(d, true);
    else
        settle_run(d);
    begin(d);
    *n = d->out.n;
    return d->out.at;
}

char *tok_decode(const struct tok *t, const int *ids, size_t n, bool skip_special)
{
    struct detok *d = detok_new(t, skip_special);
    struct buffer all = {0};
    size_t k;
    for (size_t i = 0; i <= n; i++) {
        const char *s = i < n ? detok_next(d, ids[i], &k) : detok_flush(d, &k);
        buffer_add(&all, s, k);
    }
    detok_free(d);
    return all.at;
}
