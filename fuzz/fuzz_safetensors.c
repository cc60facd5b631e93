/* fuzz_safetensors.c - any bytes as a safetensors file: an error or a store whose tensors lie
 * inside the bytes. */
#include "model/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct store *s;
    struct err e;
    volatile char sum = 0;
    if (store_open_bytes(bytes, n, "input", &s, &e))
        return 0;
    for (int i = 0; i < store_count(s); i++)
        for (size_t k = 0; k < store_at(s, i)->bytes; k++)
            sum = (char)(sum + ((const char *)store_at(s, i)->data)[k]);
    store_close(s);
    return 0;
}
