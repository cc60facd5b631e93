/* fuzz_safetensors.c - any bytes as a safetensors file: an error or a store whose tensors lie
 * inside the bytes, and so do the scales of e4m3. */
#include "model/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static bool is_matrix(const struct tensor *t)
{
    return t->n_dim == 2 && t->dim[0] > 0 && t->dim[0] < 1 << 26 && t->dim[1] > 0 &&
           t->dim[1] < 1 << 26;
}

static float last_scale(const struct store *s, const struct tensor *t)
{
    struct tensor found;
    struct err e;
    const int rows = (int)t->dim[0], cols = (int)t->dim[1];
    if (store_find(s, t->name, rows, cols, &found, &e) || !found.scales.at)
        return 0;
    return scales_read(&found.scales, rows - 1, cols - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct store *s;
    struct err e;
    volatile char sum = 0;
    volatile float scale = 0;
    if (store_open_bytes(bytes, n, "input", &s, &e))
        return 0;
    for (int i = 0; i < store_count(s); i++)
        for (size_t k = 0; k < store_at(s, i)->bytes; k++)
            sum = (char)(sum + ((const char *)store_at(s, i)->data)[k]);
    for (int i = 0; i < store_count(s); i++)
        if (is_matrix(store_at(s, i)))
            scale = last_scale(s, store_at(s, i));
    (void)scale;
    store_close(s);
    return 0;
}
