/* fuzz_tokenizer.c - any bytes as a tokenizer.json or a tokenizer.model of either kind; what loads
 * must encode and decode. */
#include "text/tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void use(struct tok *t)
{
    static const char text[] = "ab <s> caf\xC3\xA9  12\xE2\x96\x81\xE2\x96\x81"
                               "a.\xC2\xA0 B";
    int *ids;
    size_t n;
    struct err e;
    if (!tok_encode(t, text, sizeof(text) - 1, TOK_PARSE | TOK_SPECIAL, &ids, &n, &e)) {
        free(tok_decode(t, ids, n, true));
        free(ids);
    }
    tok_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tok *t;
    struct err e;
    if (!tok_load_json((const char *)bytes, n, "input", &t, &e))
        use(t);
    if (!tok_load_spm(bytes, n, "input", &t, &e))
        use(t);
    if (!tok_load_tiktoken((const char *)bytes, n, "input", &t, &e))
        use(t);
    return 0;
}
