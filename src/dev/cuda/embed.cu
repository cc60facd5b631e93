/* embed.cu - words of packed weights as rows of numbers: the bits of part_row() and quant_row()
 * (dev/pack.c, dev/quant.c).
 */
#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"
#include "dev/cuda/product.h"

enum { THREADS = 256, PACK_ROWS = 16 };

template <enum num TYPE>
GPU_INLINE float whole_number(const char *block, int lane, int col, int cols)
{
    const bool four = format_bits(TYPE) == 4;
    const int word = four ? col / 8 : col / 4, shift = four && col % 8 >= 4 ? 4 : 0;
    const uint8_t *number = (const uint8_t *)block + head_bytes(TYPE, cols);
    const int byte = number[(word * PACK_ROWS + lane) * 4 + col % 4] >> shift;
    const int q = four ? byte & 15 : byte, at = col / format_group(TYPE) * PACK_ROWS + lane;
    const float scale = from_f16(((const uint16_t *)block)[at]);
    if (!format_least(TYPE))
        return __fmul_rn((float)(q - format_zero(TYPE)), scale);
    const uint16_t *least = (const uint16_t *)(block + scale_bytes(TYPE, cols));
    return __fmaf_rn((float)q, scale, from_f16(least[at]));
}

GPU_INLINE float fp8_number(const char *block, int lane, int col, int cols)
{
    const int place = col % 4 == 1 ? 2 : col % 4 == 2 ? 1 : col % 4;
    const uint8_t *number = (const uint8_t *)block + head_bytes(NUM_FP8, cols);
    const uint32_t b = number[(col / 4 * PACK_ROWS + lane) * 4 + place];
    const float q = __uint_as_float((b & 0x80) << 24 | (b & 0x7f) << 20);
    const float scale = ((const float *)block)[col / format_group(NUM_FP8) * PACK_ROWS + lane];
    return __fmul_rn(__fmul_rn(q, 0x1p120f), scale);
}

/* Number `col` of row `lane` of a block of 16. */
template <enum num TYPE> GPU_INLINE float number(const char *block, int lane, int col, int cols)
{
    const size_t at = (size_t)col * PACK_ROWS + lane;
    if (TYPE == NUM_FP8)
        return fp8_number(block, lane, col, cols);
    if (format_whole(TYPE))
        return whole_number<TYPE>(block, lane, col, cols);
    if (TYPE == NUM_F32)
        return ((const float *)block)[at];
    if (TYPE == NUM_F16)
        return from_f16(((const uint16_t *)block)[at]);
    return num_from_bf16(((const uint16_t *)block)[(col / 2 * PACK_ROWS + lane) * 2 + col % 2]);
}

template <enum num TYPE>
__global__ static void embed_rows(float *y, const __grid_constant__ struct gpu_weight w, int first,
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
    const char *at = (const char *)w.part[part].at;
    *to = number<TYPE>(at + row / PACK_ROWS * block_bytes(TYPE, w.cols), row % PACK_ROWS, col,
                       w.cols);
}

template <enum num TYPE>
static int launch(void *stream, float *y, int n, const struct gpu_weight *w, int first,
                  const int *tok)
{
    return LAUNCH(embed_rows<TYPE>, dim3(n, parts_of(w->cols, THREADS)), THREADS, 0, stream, y, *w,
                  first, tok);
}

extern "C" int gpu_embed(void *stream, float *y, int n, const struct gpu_weight *w, int first,
                         const int *tok)
{
    switch (w->type) {
    case NUM_F32: return launch<NUM_F32>(stream, y, n, w, first, tok);
    case NUM_F16: return launch<NUM_F16>(stream, y, n, w, first, tok);
    case NUM_BF16: return launch<NUM_BF16>(stream, y, n, w, first, tok);
    case NUM_FP8: return launch<NUM_FP8>(stream, y, n, w, first, tok);
    case NUM_INT8: return launch<NUM_INT8>(stream, y, n, w, first, tok);
    case NUM_INT4: return launch<NUM_INT4>(stream, y, n, w, first, tok);
    case NUM_INT8_G32: return launch<NUM_INT8_G32>(stream, y, n, w, first, tok);
    case NUM_INT4_G32: return launch<NUM_INT4_G32>(stream, y, n, w, first, tok);
    case NUM_INT4_G32Z: return launch<NUM_INT4_G32Z>(stream, y, n, w, first, tok);
    default: return launch<NUM_INT4_G128>(stream, y, n, w, first, tok);
    }
}
