/* check.c - does this GPU add in wgmma as it does in mma.sync? Nobody says so, so products are
 * computed both ways and compared bit by bit: gpu_check_products() of kernels.h.
 *
 * The numbers are those that tell one order of sums, or one width of a sum, from another: exponents
 * far apart, great numbers that cancel, zeros of both signs, subnormal ones.
 */
#include "dev/cuda/check.h"
#include "dev/cuda/kernels.h"
#include "dev/cuda/runtime.h"

#include <stdlib.h>
#include <string.h>

enum { CHECK_ROWS = 200, CHECK_COLS = 544, CHECK_OUTPUTS = 336, CHECK_SHARES = 8 };
enum { NO_MEMORY = 2, Y = CHECK_ROWS * CHECK_OUTPUTS * (int)sizeof(float) };

/* A product, or a sum of shares, of so many rows; many multiprocessors make it one of a batch. */
static const struct check {
    int rows, cols, outputs, sm;
    bool shares;
} CHECKS[] = {
    {200, 544, 336, 2, false},   {194, 512, 130, 2, true},   {17, 500, 128, 1000, false},
    {64, 544, 200, 1000, false}, {50, 512, 130, 1000, true}, {70, 330, 100, 1000, false},
};
enum { N_CHECK = sizeof(CHECKS) / sizeof(CHECKS[0]) };

static uint32_t draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 32);
}

uint16_t check_bf16(uint64_t *seed, int range)
{
    const uint32_t r = draw(seed);
    if (r % 16 == 0)
        return (uint16_t)(r >> 16 & 0x8000); /* a zero */
    if (r % 64 == 1)
        return (uint16_t)(r >> 16 & 0x807f); /* a subnormal one */
    const int exponent = 127 - range + (int)(r >> 8 & 255) % (2 * range + 1);
    return (uint16_t)((r >> 16 & 0x807f) | (uint32_t)exponent << 7);
}

/* Exponents differ the more the later the row or the block of outputs: little at first, so that
 * all bits count, then so much that most are lost; pairs of columns nearly cancel. */
static void draw_x(float *x, uint64_t *seed)
{
    for (int r = 0; r < CHECK_ROWS; r++)
        for (int c = 0; c < CHECK_COLS; c++) {
            uint32_t bits = (uint32_t)check_bf16(seed, 1 + r % 24) << 16;
            if (r % 3 == 1 && c % 2) /* what stood before, with the other sign, and a bit less */
                memcpy(&bits, &x[r * CHECK_COLS + c - 1], 4), bits = (bits ^ 0x80000000u) - 0x10000;
            memcpy(&x[r * CHECK_COLS + c], &bits, 4);
        }
}

static void draw_weights(uint16_t *w, uint64_t *seed)
{
    for (int i = 0; i < CHECK_OUTPUTS * CHECK_COLS; i++)
        w[i] = check_bf16(seed, 1 + i / (16 * CHECK_COLS) % 20);
}

/* All that is on the GPU. */
struct bench {
    void *stream;
    char *x, *w, *y;
    struct gpu_room room;
};

static struct gpu_weight weight_for(const struct bench *b, const struct check *c)
{
    struct gpu_weight w = {NUM_BF16, c->outputs, c->cols, 0, 0, {{0}}};
    size_t at = 0;
    w.n_part = c->shares ? CHECK_SHARES : 1;
    for (int i = 0; i < w.n_part; i++) {
        const int cols = c->cols / w.n_part;
        w.part[i] = (struct gpu_part){b->w + at, c->outputs, cols};
        at += (size_t)((c->outputs + 15) / 16) * (size_t)((cols + 1) / 2) * 64;
    }
    return w;
}

/* y of all checks, one after the other, both ways. */
static int multiply(struct bench *b, const struct check *c, bool warpgroups, float *to)
{
    struct gpu_room room = b->room;
    struct gpu_term term = {(float *)b->y, weight_for(b, c), NULL};
    float *const plane[GPU_PLANES] = {(float *)b->y};
    const size_t bytes = (size_t)c->rows * (size_t)c->outputs * sizeof(float);
    int error = gpu_clear(b->y, bytes, b->stream);
    room.sm = c->sm;
    room.warpgroups = warpgroups ? WARPGROUP_PRODUCTS : 0;
    if (!error)
        error =
            c->shares
                ? gpu_partial(b->stream, plane, 1, (const float *)b->x, c->rows, &term.w, &room)
                : gpu_products(b->stream, (const float *)b->x, c->rows, c->cols, &term, 1, &room);
    if (!error)
        error = gpu_copy_out(to, b->y, bytes, b->stream);
    return error ? error : gpu_wait(b->stream);
}

static int compare(struct bench *b, float *there[2], bool *same)
{
    int error = 0;
    *same = true;
    for (int i = 0; !error && i < N_CHECK; i++) {
        const size_t bytes = (size_t)CHECKS[i].rows * (size_t)CHECKS[i].outputs * sizeof(float);
        for (int way = 0; !error && way < 2; way++)
            error = multiply(b, &CHECKS[i], way, there[way]);
        *same = *same && !error && !memcmp(there[0], there[1], bytes);
    }
    return error;
}

static int put(char **at, const void *from, size_t bytes, void *stream)
{
    int error = gpu_alloc((void **)at, bytes);
    return error || !from ? error : gpu_copy_in(*at, from, bytes, stream);
}

int gpu_check_products(bool *same)
{
    const size_t x_bytes = (size_t)CHECK_ROWS * CHECK_COLS * sizeof(float);
    const size_t w_bytes = (size_t)CHECK_OUTPUTS * CHECK_COLS * sizeof(uint16_t);
    const struct gpu_sizes sizes = {.max_tok = CHECK_ROWS,
                                    .max_dim = CHECK_COLS,
                                    .heads = 1,
                                    .head_dim = 16,
                                    .ctx = 16,
                                    .sm = 8};
    uint64_t seed = 1;
    struct bench b = {0};
    float *x = malloc(x_bytes), *there[2] = {malloc(Y), malloc(Y)};
    uint16_t *w = malloc(w_bytes);
    int error = x && w && there[0] && there[1] ? gpu_stream(&b.stream) : NO_MEMORY;
    *same = false;
    if (!error) {
        draw_x(x, &seed);
        draw_weights(w, &seed);
        b.room.bytes = gpu_room_bytes(&sizes);
        error = put(&b.x, x, x_bytes, b.stream);
    }
    error = error ? error : put(&b.w, w, w_bytes, b.stream);
    error = error ? error : put(&b.y, NULL, Y, b.stream);
    error = error ? error : put((char **)&b.room.at, NULL, b.room.bytes, b.stream);
    error = error ? error : compare(&b, there, same);
    gpu_free(b.x), gpu_free(b.w), gpu_free(b.y), gpu_free(b.room.at);
    free(x), free(w), free(there[0]), free(there[1]);
    return error;
}
