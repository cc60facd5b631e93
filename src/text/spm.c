/* spm.c - reading tokenizer.model, a SentencePiece protobuf (untrusted), into the tables of
 * vocab.h. BPE models only. Pieces become tokens; two tokens merge when their joined text is one,
 * better scores first, which is what SentencePiece does. As Llama's own code, blanks are not
 * collapsed. */
#include "text/vocab.h"

#include <math.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, BYTE = 6, TYPE_BPE = 2 };

struct wire { /* what is left of a message */
    const unsigned char *at, *end;
};

struct field {
    unsigned number, kind;
    uint64_t value;      /* varint and fixed */
    struct wire message; /* length-delimited */
};

static bool varint(struct wire *w, uint64_t *to)
{
    *to = 0;
    for (int shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        unsigned char b = *w->at++;
        *to |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return true;
    }
    return false;
}

static bool fixed(struct wire *w, size_t n, uint64_t *to)
{
    if ((size_t)(w->end - w->at) < n)
        return false;
    *to = 0;
    memcpy(to, w->at, n);
    w->at += n;
    return true;
}

/* The next field; false at the end or where the bytes make no sense (then at != end). */
static bool next_field(struct wire *w, struct field *f)
{
    uint64_t key, n;
    if (w->at == w->end || !varint(w, &key) || key >> 3 > 1 << 29)
        return false;
    f->number = (unsigned)(key >> 3);
    f->kind = key & 7;
    if (f->kind == 0)
        return varint(w, &f->value);
    if (f->kind == 1 || f->kind == 5)
        return fixed(w, f->kind == 1 ? 8 : 4, &f->value);
    if (f->kind != 2 || !varint(w, &n) || n > (size_t)(w->end - w->at))
        return false;
    f->message = (struct wire){w->at, w->at + n};
    w->at += n;
    return true;
}

struct piece {
    struct text text;
    float score;
    int type;
};

struct spm {
    struct piece *piece;
    int n, room;
    int type, unk, bos, eos; /* of the trainer */
    bool dummy_prefix;
};

static int read_piece(struct wire w, struct piece *p)
{
    struct field f;
    *p = (struct piece){.type = NORMAL};
    while (next_field(&w, &f)) {
        if (f.number == 1 && f.kind == 2)
            p->text =
                (struct text){(const char *)f.message.at, (size_t)(f.message.end - f.message.at)};
        if (f.number == 2 && f.kind == 5)
            memcpy(&p->score, &f.value, sizeof(p->score));
        if (f.number == 3 && f.kind == 0)
            p->type = (int)(f.value & 15);
    }
    return w.at == w.end && p->text.s && !isnan(p->score) ? 0 : -EINVAL;
}

static void read_trainer(struct wire w, struct spm *s)
{
    struct field f;
    while (next_field(&w, &f)) {
        if (f.number == 3 && f.kind == 0)
            s->type = (int)(f.value & 15);
        if (f.number == 40 && f.kind == 0)
            s->unk = (int)(int32_t)f.value;
        if (f.number == 41 && f.kind == 0)
            s->bos = (int)(int32_t)f.value;
        if (f.number == 42 && f.kind == 0)
            s->eos = (int)(int32_t)f.value;
    }
}

static void read_normalizer(struct wire w, struct spm *s)
{
    struct field f;
    while (next_field(&w, &f))
        if (f.number == 3 && f.kind == 0)
            s->dummy_prefix = f.value != 0;
}

static int read_model(struct wire w, struct pool *pool, struct spm *s, struct err *e)
{
    struct field f;
    size_t bytes = (size_t)(w.end - w.at);
    s->room = (int)(bytes / 4 + 1); /* a piece takes four bytes at least */
    s->piece = pool_get(pool, (size_t)s->room * sizeof(*s->piece));
    while (next_field(&w, &f)) {
        if (f.number == 1 && f.kind == 2) {
            if (s->n == s->room || s->n == VOCAB_MAX || read_piece(f.message, &s->piece[s->n]))
                return err_set(e, -EINVAL, "piece %d makes no sense", s->n);
            s->n++;
        }
        if (f.number == 2 && f.kind == 2)
            read_trainer(f.message, s);
        if (f.number == 3 && f.kind == 2)
            read_normalizer(f.message, s);
    }
    if (w.at != w.end || !s->n)
        return err_set(e, -EINVAL, "not a SentencePiece model, or cut short");
    if (s->type != TYPE_BPE)
        return err_set(e, -ENOTSUP,
                       "a SentencePiece model of type %d; BPE (2) is supported: use "
                       "the model's tokenizer.json",
                       s->type);
    return 0;
}

/* ------------------------------------------------------------------------------- tables */

static int fill(struct tok *t, const struct spm *s, struct err *e)
{
    vocab_reserve(t, s->n);
    t->added = pool_get(&t->pool, ((size_t)s->n + 1) * sizeof(*t->added));
    for (int i = 0; i < s->n; i++) {
        const struct piece *p = &s->piece[i];
        int rc = vocab_add(t, i, p->text.s, p->text.n, e);
        if (rc)
            return rc;
        bool special = p->type == CONTROL || p->type == UNKNOWN;
        t->token[i].special = special;
        t->token[i].added = special || p->type == USER_DEFINED;
        if (t->token[i].added && p->text.n)
            t->added[t->n_added++] =
                (struct added){.text = t->token[i].text, .id = i, .special = special};
        t->byte_fallback |= p->type == BYTE;
    }
    vocab_sort_added(t);
    return 0;
}

struct ranked {
    float score;
    int id;
};

static int by_score(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The pieces that merging may make, best first. */
static int add_merges(struct tok *t, const struct spm *s, struct err *e)
{
    struct ranked *by = pool_get(&t->pool, (size_t)s->n * sizeof(*by));
    int *order = pool_get(&t->pool, (size_t)s->n * sizeof(*order)), n = 0;
    for (int i = 0; i < s->n; i++)
        if (s->piece[i].type == NORMAL)
            by[n++] = (struct ranked){s->piece[i].score, i};
    qsort(by, (size_t)n, sizeof(*by), by_score);
    for (int i = 0; i < n; i++)
        order[i] = by[i].id;
    return vocab_merge_parts(t, order, n, e);
}

static void set_steps(struct tok *t, const struct spm *s)
{
    const struct text mark = {"\xE2\x96\x81", 3}, blank = {" ", 1};
    struct steps *normal = &t->normal, *decode = &t->decode;
    if (s->dummy_prefix)
        normal->at[normal->n++] = (struct step){.kind = STEP_PREPEND, .to = mark};
    normal->at[normal->n++] = (struct step){.kind = STEP_REPLACE, .from = blank, .to = mark};
    decode->at[decode->n++] = (struct step){.kind = STEP_REPLACE, .from = mark, .to = blank};
    decode->at[decode->n++] = (struct step){.kind = STEP_BYTE_FALLBACK};
    if (s->dummy_prefix)
        decode->at[decode->n++] = (struct step){.kind = STEP_STRIP, .from = blank, .start = 1};
}

static int build(struct tok *t, const void *bytes, size_t n, struct err *e)
{
    const unsigned char *at = bytes;
    struct spm s = {.type = 1, .unk = 0, .bos = 1, .eos = 2, .dummy_prefix = true};
    int rc = read_model((struct wire){at, at + n}, &t->pool, &s, e);
    if (!rc)
        rc = fill(t, &s, e);
    if (!rc)
        rc = add_merges(t, &s, e);
    if (rc)
        return rc;
    set_steps(t, &s);
    t->fuse_unk = true;
    t->unk = s.unk < s.n ? s.unk : -1;
    t->bos = s.bos < s.n ? s.bos : -1;
    t->eos = s.eos < s.n ? s.eos : -1;
    if (t->bos >= 0)
        t->prefix[t->n_prefix++] = t->bos;
    vocab_find_bytes(t);
    bpe_prepare(t);
    detok_prepare(t);
    return 0;
}

int tok_load_spm(const void *bytes, size_t n, const char *what, struct tok **out, struct err *e)
{
    struct tok *t = calloc(1, sizeof(*t));
    must(t);
    t->bos = t->eos = t->unk = -1;
    int rc = build(t, bytes, n, e);
    *out = rc ? NULL : t;
    if (rc)
        tok_free(t);
    return rc ? err_add(e, rc, "%s", what) : 0;
}
