/* fuzz_config.c - any bytes as config.json and generation_config.json. */
#include "model/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct model m;
    struct generation g;
    struct notes notes;
    struct err e;
    const char *text = (const char *)bytes;
    model_parse(text, n, NULL, 0, &m, &g, &notes, &e);
    model_parse(text, n / 2, text + n / 2, n - n / 2, &m, &g, &notes, &e);
    return 0;
}
