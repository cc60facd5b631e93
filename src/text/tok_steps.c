/* tok_steps.c - reading the steps of a tokenizer.json (untrusted): normalizer, pre_tokenizer,
 * decoder, post_processor. What is not known is refused by name. */
#include "text/vocab.h"

#include <ctype.h>

#define BYTE_LEVEL_PATTERN                                                                         \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

#define JOINED WORD_CLASS "\\x{200C}\\x{200D}"

static struct text text_of(struct tok *t, const json_t *v)
{
    size_t n = json_string_length(v);
    return (struct text){pool_text(&t->pool, n ? json_string_value(v) : "", n), n};
}

static const char *type_of(const json_t *o)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    return type ? type : "(none)";
}

static bool is(const json_t *o, const char *type) { return !strcmp(type_of(o), type); }

static bool flag(const json_t *o, const char *key, bool fallback)
{
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

static int new_step(struct steps *to, int kind, struct step **step, struct err *e)
{
    if (to->n == STEPS_MAX)
        return err_set(e, -EINVAL, "more than %d steps", STEPS_MAX);
    *step = &to->at[to->n++];
    (*step)->kind = kind;
    return 0;
}

/* A pattern that matches this text and no other. */
static struct text quoted(struct tok *t, struct text s)
{
    struct text to = {pool_get(&t->pool, 2 * s.n + 1), 0};
    char *at = (char *)to.s;
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] > 0 && ispunct(s.s[i]))
            at[to.n++] = '\\';
        at[to.n++] = s.s[i];
    }
    return to;
}

/* {"String": "..."} or {"Regex": "..."} */
static int pattern_of(struct tok *t, const json_t *o, struct step *step, bool always_regex,
                      struct err *e)
{
    const json_t *p = json_object_get(o, "pattern"), *s = json_object_get(p, "String"),
                 *re = json_object_get(p, "Regex");
    if (json_is_string(s))
        step->from = text_of(t, s);
    if (json_is_string(s) && !always_regex)
        return 0;
    if (!json_is_string(s) && !json_is_string(re))
        return err_set(e, -EINVAL, "%s: the pattern is neither String nor Regex", type_of(o));
    struct text pattern = s ? quoted(t, step->from) : text_of(t, re);
    step->regex = regex_new(pattern.s, pattern.n, e);
    return step->regex ? 0 : -EINVAL;
}

static int regex_step(struct steps *to, const char *pattern, int behaviour, bool invert,
                      struct err *e)
{
    struct step *s = NULL;
    int rc = new_step(to, STEP_SPLIT, &s, e);
    if (rc)
        return rc;
    s->behaviour = behaviour;
    s->invert = invert;
    s->regex = regex_new(pattern, strlen(pattern), e);
    return s->regex ? 0 : -EINVAL;
}

static void metaspace(struct tok *t, const json_t *o, struct step *s)
{
    const json_t *mark = json_object_get(o, "replacement");
    const char *scheme = json_string_value(json_object_get(o, "prepend_scheme"));
    s->from = json_is_string(mark) ? text_of(t, mark) : (struct text){"\xE2\x96\x81", 3};
    s->always = scheme ? !strcmp(scheme, "always") : flag(o, "add_prefix_space", true);
    s->first_only = scheme && !strcmp(scheme, "first");
    s->split_each = flag(o, "split", true);
}

/* ------------------------------------------------------------------------------- normalisers */

typedef int step_reader(struct tok *t, const json_t *o, struct err *e);

/* A Sequence is its members, one after the other. */
static int each(struct tok *t, const json_t *o, const char *key, step_reader *read, struct err *e)
{
    size_t i;
    json_t *v;
    if (!o || json_is_null(o))
        return 0;
    if (!is(o, "Sequence"))
        return read(t, o, e);
    json_array_foreach(json_object_get(o, key), i, v)
    {
        int rc =
            is(v, "Sequence") ? err_set(e, -EINVAL, "a Sequence inside a Sequence") : read(t, v, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_normaliser(struct tok *t, const json_t *o, struct err *e)
{
    static const struct {
        const char *type;
        int kind;
    } row[] = {
        {"NFC", STEP_NFC},         {"NFD", STEP_NFD},         {"NFKC", STEP_NFKC},
        {"NFKD", STEP_NFKD},       {"Lowercase", STEP_LOWER}, {"Prepend", STEP_PREPEND},
        {"Replace", STEP_REPLACE}, {"Strip", STEP_STRIP},     {"StripAccents", STEP_STRIP_ACCENTS}};
    struct step *s = NULL;
    for (size_t i = 0; i < COUNT(row); i++) {
        if (!is(o, row[i].type))
            continue;
        int rc = new_step(&t->normal, row[i].kind, &s, e);
        if (rc)
            return rc;
        s->start = flag(o, "strip_left", true);
        s->stop = flag(o, "strip_right", true);
        s->to = text_of(t, json_object_get(o, s->kind == STEP_PREPEND ? "prepend" : "content"));
        return s->kind == STEP_REPLACE ? pattern_of(t, o, s, false, e) : 0;
    }
    return err_set(e, -ENOTSUP, "normalizer \"%.40s\" is not supported", type_of(o));
}

/* ------------------------------------------------------------------------------- splitters */

static int behaviour_of(const json_t *o, int *to, struct err *e)
{
    static const char *const name[] = {"Isolated", "Removed", "MergedWithPrevious",
                                       "MergedWithNext", "Contiguous"};
    const char *behaviour = json_string_value(json_object_get(o, "behavior"));
    for (size_t i = 0; i < COUNT(name); i++)
        if (!strcmp(behaviour ? behaviour : "Isolated", name[i])) {
            *to = (int)i;
            return 0;
        }
    return err_set(e, -ENOTSUP, "%s behavior \"%.40s\" is not supported", type_of(o), behaviour);
}

static int read_split(struct tok *t, const json_t *o, struct err *e)
{
    struct step *s = NULL;
    int rc = new_step(&t->split, STEP_SPLIT, &s, e), behaviour = ISOLATED;
    if (!rc)
        rc = behaviour_of(o, &behaviour, e);
    if (rc)
        return rc;
    s->behaviour = behaviour;
    s->invert = flag(o, "invert", false);
    return pattern_of(t, o, s, true, e);
}

/* Cuts out one character. */
static int read_delimiter(struct tok *t, const json_t *o, struct err *e)
{
    const json_t *delimiter = json_object_get(o, "delimiter");
    if (!json_string_length(delimiter))
        return err_set(e, -EINVAL, "CharDelimiterSplit without a delimiter");
    return regex_step(&t->split, quoted(t, text_of(t, delimiter)).s, REMOVED, false, e);
}

static int read_splitter(struct tok *t, const json_t *o, struct err *e)
{
    struct step *s = NULL;
    if (is(o, "Split"))
        return read_split(t, o, e);
    if (is(o, "Digits"))
        return regex_step(&t->split, flag(o, "individual_digits", false) ? "\\p{N}" : "\\p{N}+",
                          ISOLATED, false, e);
    if (is(o, "Whitespace"))
        return regex_step(&t->split, "[" JOINED "]+|[^" JOINED "\\s]+", REMOVED, true, e);
    if (is(o, "WhitespaceSplit"))
        return regex_step(&t->split, "\\s+", REMOVED, false, e);
    if (is(o, "CharDelimiterSplit"))
        return read_delimiter(t, o, e);
    if (is(o, "Punctuation")) {
        int behaviour = ISOLATED, rc = behaviour_of(o, &behaviour, e);
        return rc ? rc : regex_step(&t->split, "[\\p{P}$+<=>^`|~]", behaviour, false, e);
    }
    if (!is(o, "ByteLevel") && !is(o, "Metaspace"))
        return err_set(e, -ENOTSUP, "pre_tokenizer \"%.40s\" is not supported", type_of(o));
    int rc = new_step(&t->split, is(o, "Metaspace") ? STEP_METASPACE : STEP_BYTE_LEVEL, &s, e);
    if (rc)
        return rc;
    if (s->kind == STEP_METASPACE) {
        metaspace(t, o, s);
        return s->from.n ? 0 : err_set(e, -EINVAL, "Metaspace without a mark");
    }
    t->byte_level = true;
    s->prefix_space = flag(o, "add_prefix_space", true);
    if (flag(o, "use_regex", true)) {
        s->regex = regex_new(BYTE_LEVEL_PATTERN, strlen(BYTE_LEVEL_PATTERN), e);
        return s->regex ? 0 : -EINVAL;
    }
    return 0;
}

/* ------------------------------------------------------------------------------- decoders */

/* detok.c goes from token to token: what it would do differently is refused. */
static int check_decoder(const struct tok *t, const json_t *o, struct err *e)
{
    bool fused = false, replaced = false;
    for (int i = 0; i + 1 < t->decode.n; i++) {
        fused |= t->decode.at[i].kind == STEP_FUSE;
        replaced |= t->decode.at[i].kind == STEP_REPLACE;
    }
    if (is(o, "Strip") && (!fused || json_integer_value(json_object_get(o, "stop"))))
        return err_set(e, -ENOTSUP,
                       "decoder Strip at the end of a text, or before Fuse, is not "
                       "supported");
    if (is(o, "Replace") &&
        (replaced || !json_is_string(json_object_get(json_object_get(o, "pattern"), "String"))))
        return err_set(e, -ENOTSUP,
                       "decoder Replace of a Regex, or a second one, is not "
                       "supported");
    return 0;
}

static int read_decoder(struct tok *t, const json_t *o, struct err *e)
{
    static const struct {
        const char *type;
        int kind;
    } row[] = {{"ByteLevel", STEP_BYTE_LEVEL},
               {"ByteFallback", STEP_BYTE_FALLBACK},
               {"Fuse", STEP_FUSE},
               {"Strip", STEP_STRIP},
               {"Replace", STEP_REPLACE},
               {"Metaspace", STEP_METASPACE}};
    struct step *s = NULL;
    for (size_t i = 0; i < COUNT(row); i++) {
        if (!is(o, row[i].type))
            continue;
        int rc = new_step(&t->decode, row[i].kind, &s, e);
        if (!rc)
            rc = json_get_int(o, "start", 0, 1000, &s->start, e);
        if (!rc)
            rc = check_decoder(t, o, e);
        if (rc)
            return rc;
        const json_t *content = json_object_get(o, "content");
        if (s->kind == STEP_STRIP)
            s->from = text_of(t, content);
        if (s->kind == STEP_METASPACE)
            metaspace(t, o, s);
        if (s->kind != STEP_REPLACE)
            return 0;
        s->to = text_of(t, content);
        return pattern_of(t, o, s, false, e);
    }
    return err_set(e, -ENOTSUP, "decoder \"%.40s\" is not supported", type_of(o));
}

/* ------------------------------------------------------------------------------- post-processors
 */

static int around(struct tok *t, bool after, const json_t *id, struct err *e)
{
    json_int_t n = json_integer_value(id);
    int *count = after ? &t->n_suffix : &t->n_prefix;
    if (!json_is_integer(id) || n < 0 || n >= t->n_vocab || !t->token[n].text.s)
        return err_set(e, -EINVAL, "the post_processor adds an id that names no token");
    if (*count == TEMPLATE_MAX)
        return err_set(e, -EINVAL, "the post_processor adds more than %d tokens", TEMPLATE_MAX);
    (after ? t->suffix : t->prefix)[(*count)++] = (int)n;
    return 0;
}

/* What stands before and after a single sequence; the parts are {"SpecialToken": {"id": name}},
 * name a key of special_tokens with its ids, and {"Sequence": ...}. */
static int read_template(struct tok *t, const json_t *o, struct err *e)
{
    size_t i, k;
    json_t *v, *id;
    bool after = false;
    json_array_foreach(json_object_get(o, "single"), i, v)
    {
        const json_t *part = json_object_get(v, "SpecialToken");
        const char *name = json_string_value(json_object_get(part, "id"));
        after |= !part;
        if (!part)
            continue;
        const json_t *special =
            name ? json_object_get(json_object_get(o, "special_tokens"), name) : NULL;
        const json_t *ids = json_object_get(special, "ids");
        if (!json_is_array(ids))
            return err_set(e, -EINVAL, "the template's token \"%.40s\" has no ids",
                           name ? name : "(none)");
        json_array_foreach((json_t *)ids, k, id)
        {
            int rc = around(t, after, id, e);
            if (rc)
                return rc;
        }
    }
    return 0;
}

static int read_post(struct tok *t, const json_t *o, struct err *e)
{
    if (is(o, "ByteLevel")) /* concerns offsets */
        return 0;
    if (!is(o, "TemplateProcessing") && !is(o, "RobertaProcessing") && !is(o, "BertProcessing"))
        return err_set(e, -ENOTSUP, "post_processor \"%.40s\" is not supported", type_of(o));
    if (t->n_prefix || t->n_suffix)
        return err_set(e, -ENOTSUP, "two post-processors that add tokens are not supported");
    if (is(o, "TemplateProcessing"))
        return read_template(t, o, e);
    int rc = around(t, false, json_array_get(json_object_get(o, "cls"), 1), e);
    return rc ? rc : around(t, true, json_array_get(json_object_get(o, "sep"), 1), e);
}

/* ------------------------------------------------------------------------------- all */

int read_steps(struct tok *t, const json_t *file, struct err *e)
{
    int rc = each(t, json_object_get(file, "normalizer"), "normalizers", read_normaliser, e);
    if (!rc)
        rc = each(t, json_object_get(file, "pre_tokenizer"), "pretokenizers", read_splitter, e);
    if (!rc)
        rc = each(t, json_object_get(file, "decoder"), "decoders", read_decoder, e);
    if (!rc)
        rc = each(t, json_object_get(file, "post_processor"), "processors", read_post, e);
    return rc;
}
