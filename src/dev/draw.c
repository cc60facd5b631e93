/* draw.c - see draw.h. */
#include "dev/draw.h"

/* One block of Philox4x32-10. */
static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * c[0], b = (uint64_t)0xCD9E8D57 * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b,
                            (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
        memcpy(c, next, sizeof(c));
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    memcpy(out, c, sizeof(c));
}

double sample_draw(uint64_t seed, uint64_t position)
{
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0}, out[4];
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    philox(counter, key, out);
    uint64_t bits = (uint64_t)out[0] << 21 ^ out[1] >> 11; /* 53 bits */
    return (double)(bits & ((1ull << 53) - 1)) * 0x1p-53;
}

bool draw_on_host(const struct draw_rows *d, int i)
{
    const struct draw_row *r = &d->row[i];
    return d->keep_logits || r->given >= 0 || r->n_top >= 0 || r->seen + r->n_seen > DRAW_SEEN;
}

bool draw_any_on_host(const struct draw_rows *d)
{
    for (int i = 0; i < d->n; i++)
        if (draw_on_host(d, i))
            return true;
    return false;
}
