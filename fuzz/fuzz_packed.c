/* fuzz_packed.c - any bytes as the header of packed weights. */
#include "run/packed.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct packed f;
    struct err e;
    if (!packed_parse(bytes, n, (size_t)1 << 40, &f, &e))
        free(f.sum);
    return 0;
}
