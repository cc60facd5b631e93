/* embed.cu - words of packed weights as rows of numbers: the bits of part_row() and quant_row()
 * (dev/pack.c, dev/quant.c).
 */
#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"

enum { THREADS = 256, PACK_ROWS = 16 };

/* Where what stands in a packed block of 16 rows: dev/weight.h. */
struct format {
    int bits, group, zero, least_at, numbers_at; /* bits 0: not whole numbers; least_at 0: none */
    size_t block_bytes;
};

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static struct format format_of(enum num type, size_t cols)
{
    struct format f = {0, 0, 0, 0, 0, 0};
    switch (type) {
    case NUM_INT8: f.bits = 8, f.group = 128, f.zero = 128; break;
    case NUM_INT8_G32: f.bits = 8, f.group = 32, f.zero = 128; break;
    case NUM_INT4: f.bits = 4, f.group = 64, f.zero = 8; break;
    case NUM_INT4_G32: f.bits = 4, f.group = 32, f.zero = 8; break;
    case NUM_INT4_G32Z: f.bits = 4, f.group = 32; break;
    case NUM_INT4_G128: f.bits = 4, f.group = 128, f.zero = 8; break;
    case NUM_F32: f.block_bytes = cols * PACK_ROWS * 4; return f;
    case NUM_BF16: f.block_bytes = round_up(cols, 2) * PACK_ROWS * 2; return f;
    default: f.block_bytes = cols * PACK_ROWS * 2; return f;
    }
    const size_t scales = round_up((cols + f.group - 1) / f.group * PACK_ROWS * 2, 64);
    f.least_at = type == NUM_INT4_G32Z ? (int)scales : 0;
    f.numbers_at = (int)scales * (f.least_at ? 2 : 1);
    f.block_bytes = f.numbers_at + round_up(cols, 8) * PACK_ROWS * f.bits / 8;
    return f;
}

GPU_INLINE float whole_number(const char *block, const struct format *f, int lane, int col)
{
    const int word = f->bits == 4 ? col / 8 : col / 4, shift = f->bits == 4 && col % 8 >= 4 ? 4 : 0;
    const uint8_t byte =
        ((const uint8_t *)block)[f->numbers_at + (word * PACK_ROWS + lane) * 4 + col % 4];
    const int q = byte >> shift & ((1 << f->bits) - 1), at = col / f->group * PACK_ROWS + lane;
    const float scale = from_f16(((const uint16_t *)block)[at]);
    if (f->least_at)
        return __fmaf_rn((float)q, scale, from_f16(((const uint16_t *)(block + f->least_at))[at]));
    return __fmul_rn((float)(q - f->zero), scale);
}

GPU_INLINE float number(const char *block, enum num type, const struct format *f, int lane, int col)
{
    const size_t at = (size_t)col * PACK_ROWS + lane;
    if (f->bits)
        return whole_number(block, f, lane, col);
    if (type == NUM_F32)
        return ((const float *)block)[at];
    if (type == NUM_F16)
        return from_f16(((const uint16_t *)block)[at]);
    return num_from_bf16(((const uint16_t *)block)[(col / 2 * PACK_ROWS + lane) * 2 + col % 2]);
}

__global__ static void embed_rows(float *y, struct gpu_weight w, struct format f, int first,
                                  const int *tok)
{
    const int col = blockIdx.y * THREADS + threadIdx.x;
    int row = tok[blockIdx.x] - first, part = 0;
    float *to = y + (size_t)blockIdx.x * w.cols + col;
    if (col >= w.cols)
        return;
    if (row < 0 || row >= w.rows) {
        *to = 0;
        return;
    }
    while (row >= w.part[part].rows)
        row -= w.part[part++].rows;
    const char *block = (const char *)w.part[part].at + row / PACK_ROWS * f.block_bytes;
    *to = number(block, w.type, &f, row % PACK_ROWS, col);
}

extern "C" int gpu_embed(void *stream, float *y, int n, const struct gpu_weight *w, int first,
                         const int *tok)
{
    return LAUNCH(embed_rows, dim3(n, (w->cols + THREADS - 1) / THREADS), THREADS, 0, stream, y, *w,
                  format_of(w->type, w->cols), first, tok);
}
