/* fuzz_schema.c - any bytes as a schema, pattern, EBNF grammar or tag (by the first byte), then an
 * answer by its masks: what a mask allows is taken, and there is always a way on. */
#include "text/grammar.h"
#include "text/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* A tokenizer of all bytes, a few words and a special token. */
static struct tok *small_tok(void)
{
    static const char *const word[] = {"\\\"}", "\\\":", "true", "12", "ab", "}]", "{\\\"", "<c>"};
    char text[16384], letter[8];
    struct tok *t;
    struct err e;
    size_t at = (size_t)snprintf(text, sizeof(text),
                                 "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (int b = 0; b < 256; b++) {
        int k = byte_letter((unsigned char)b, letter);
        letter[k] = 0;
        at += (size_t)snprintf(text + at, sizeof(text) - at, "\"%s%s\":%d,",
                               b == '"' || b == '\\' ? "\\" : "", letter, b);
    }
    for (int i = 0; i < (int)COUNT(word); i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "\"%s\":%d%s", word[i], 256 + i,
                               i + 1 < (int)COUNT(word) ? "," : "");
    at += (size_t)snprintf(text + at, sizeof(text) - at,
                           "}},\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":"
                           "\"ByteLevel\"},\"added_tokens\":[{\"id\":264,\"content\":\"<end>\","
                           "\"special\":true},{\"id\":265,\"content\":\"<t>\",\"special\":true}]}");
    int rc = tok_load_json(text, at, "small", &t, &e);
    if (rc)
        fprintf(stderr, "%s\n", e.text);
    must(!rc);
    return t;
}

static void answer(struct grammar *g, const uint8_t *bytes, size_t n)
{
    struct matcher *m = matcher_new(g);
    uint64_t allow[5];
    for (size_t step = 0; step < 48 && !matcher_mask(m, allow); step++) {
        int from = bytes[step % n] * 7 % 266, pick = -1;
        for (int i = 0; i < 266 && pick < 0; i++) {
            int id = (from + i) % 266;
            if (allow[id >> 6] >> (id & 63) & 1)
                pick = id;
        }
        if (pick < 0) {
            must(matcher_stopped(m)); /* an end, or no dead end */
            break;
        }
        must(matcher_take(m, &pick, 1) == 1);
        if (step % 5 == 4) {
            matcher_rollback(m, 1);
            must(matcher_take(m, &pick, 1) == 1);
        }
    }
    matcher_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const enum grammar_kind kind[] = {GRAMMAR_SCHEMA, GRAMMAR_REGEX, GRAMMAR_EBNF,
                                             GRAMMAR_TAGS};
    static struct grammar_vocab *vocab; /* made once: the target is called a million times */
    static const int end = 264;
    struct grammar *g;
    struct err e;
    if (n < 2)
        return 0;
    if (!vocab)
        vocab = grammar_vocab_new(small_tok(), 266, &end, 1);
    char *text = malloc(n);
    must(text);
    memcpy(text, bytes + 1, n - 1);
    text[n - 1] = 0;
    struct grammar_tag tag = {text, NULL, "<t>"};
    char trigger[3] = {text[0], text[0] ? text[1] : 0, 0};
    struct grammar_spec spec = {.kind = kind[bytes[0] & 3],
                                .text = text,
                                .n_text = n - 1,
                                .trigger = trigger,
                                .tag = &tag,
                                .n_tags = 1,
                                .at_once = bytes[0] & 4,
                                .once = bytes[0] & 8,
                                .blanks = bytes[0] >> 4 & 3};
    if (!grammar_new(&spec, vocab, &g, &e)) {
        answer(g, bytes, n);
        grammar_free(g);
    }
    free(text);
    return 0;
}
