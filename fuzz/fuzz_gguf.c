/* fuzz_gguf.c - any bytes as a GGUF file: its tables, the texts made of them, and its numbers. */
#include "model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct pool pool = {0};
    struct gguf g;
    struct gguf_files f = {0};
    struct err e;
    if (!gguf_parse(bytes, n, &pool, &g, &e)) {
        gguf_files_of(&g, &pool, &f, &e);
        gguf_tokenizer_of(&g, &pool, &f, &e);
        for (int i = 0; i < g.n; i++)
            if (g.t[i].bytes)
                (void)((const volatile char *)g.t[i].data)[g.t[i].bytes - 1];
    }
    pool_free(&pool);
    return 0;
}
