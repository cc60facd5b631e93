/* amx_model.c - see amx_model.h. Follows the operation sections of LDTILECFG, TILELOADD,
 * TILESTORED, TILEZERO, TILERELEASE and TDPBSUD in Intel's Software Developer's Manual, volume 2;
 * palette 1. */
#include "amx_model.h"

#include "base/base.h"

enum { TILES = 8, ROWS = 16, BYTES = 64 };

struct tile {
    int rows, bytes; /* 0: must not be used */
    uint8_t at[ROWS][BYTES];
};

static _Thread_local struct tile tiles[TILES];
static _Thread_local long dots;

long amx_dots(void) { return dots; }

static struct tile *tile_of(int i)
{
    must(i >= 0 && i < TILES && tiles[i].rows && tiles[i].bytes);
    return &tiles[i];
}

/* Byte 0: palette, 1: row to go on with, 2 .. 15: zero, 16 + 2i: bytes of a row of tile i, 48 + i:
 * its rows. There are places for 16 tiles. */
void amx_configure(const void *at)
{
    const uint8_t *from = at;
    must(from[0] == 1);
    for (int i = 1; i < 16; i++)
        must(from[i] == 0);
    memset(tiles, 0, sizeof(tiles));
    for (int i = 0; i < 16; i++) {
        int bytes = from[16 + 2 * i] | from[17 + 2 * i] << 8, rows = from[48 + i];
        must(bytes <= BYTES && rows <= ROWS && !bytes == !rows && (i < TILES || !rows));
        if (rows)
            tiles[i].rows = rows, tiles[i].bytes = bytes;
    }
}

void amx_release(void) { memset(tiles, 0, sizeof(tiles)); }

void amx_zero(int tile)
{
    struct tile *t = tile_of(tile);
    memset(t->at, 0, sizeof(t->at));
}

void amx_load(int tile, const void *at, size_t stride)
{
    struct tile *t = tile_of(tile);
    memset(t->at, 0, sizeof(t->at));
    for (int r = 0; r < t->rows; r++)
        memcpy(t->at[r], (const char *)at + (size_t)r * stride, (size_t)t->bytes);
}

void amx_store(int tile, void *at, size_t stride)
{
    const struct tile *t = tile_of(tile);
    for (int r = 0; r < t->rows; r++)
        memcpy((char *)at + (size_t)r * stride, t->at[r], (size_t)t->bytes);
}

/* One number of the sum: four bytes of x, with sign, and four of w, without. */
static void dot4(uint8_t sum[4], const uint8_t x[4], const uint8_t w[4])
{
    uint32_t s;
    memcpy(&s, sum, sizeof(s));
    for (int i = 0; i < 4; i++)
        s += (uint32_t)((int8_t)x[i] * w[i]);
    memcpy(sum, &s, sizeof(s));
}

void amx_dot(int sum, int a, int b)
{
    struct tile *s = tile_of(sum);
    const struct tile *x = tile_of(a), *w = tile_of(b);
    must(sum != a && sum != b && a != b);
    must(x->bytes % 4 == 0 && w->bytes % 4 == 0);
    must(s->rows == x->rows && s->bytes == w->bytes && x->bytes / 4 == w->rows);
    for (int m = 0; m < s->rows; m++)
        for (int k = 0; k < w->rows; k++)
            for (int n = 0; n < s->bytes; n += 4)
                dot4(&s->at[m][n], &x->at[m][4 * k], &w->at[k][n]);
    dots++;
}
