/* plain.cu - numbers row by row, as cuBLASLt wants them: weights in bf16 out of their packing, and
 * rows of x. */
#include "dev/cuda/gpu.h"
#include "dev/cuda/kernels.h"

namespace
{

enum { THREADS = 256 };

/* A thread unpacks two columns of a row: a word of a block of 16 rows. */
__global__ void unpack_kernel(uint16_t *to, const int stride, const uint32_t *from, const int rows,
                              const int cols)
{
    const size_t words = (size_t)(cols + 1) / 2;
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const size_t row = i / words, word = i % words;
    if (row >= (size_t)rows)
        return;
    const uint32_t both = from[(row / 16 * words + word) * 16 + row % 16];
    to[row * (size_t)stride + 2 * word] = (uint16_t)both;
    if (2 * word + 1 < (size_t)cols)
        to[row * (size_t)stride + 2 * word + 1] = (uint16_t)(both >> 16);
}

__global__ void round_kernel(uint32_t *to, const int words, const float *x, const int n,
                             const int dim)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const size_t row = i / words;
    const int column = 2 * (int)(i % words);
    if (row >= (size_t)n)
        return;
    const float *at = x + row * (size_t)dim;
    to[i] = to_bf16x2(column < dim ? at[column] : 0, column + 1 < dim ? at[column + 1] : 0);
}

unsigned blocks_for(size_t n) { return (unsigned)((n + THREADS - 1) / THREADS); }

} // namespace

int gpu_plain(void *stream, void *to, int stride, const struct gpu_weight *w, bool columns)
{
    uint16_t *at = (uint16_t *)to;
    int error = 0;
    for (int i = 0; i < w->n_part && !error; i++) {
        const struct gpu_part &part = w->part[i];
        const size_t threads = (size_t)part.rows * ((part.cols + 1) / 2);
        error = LAUNCH(unpack_kernel, blocks_for(threads), THREADS, 0, stream, at, stride,
                       (const uint32_t *)part.at, part.rows, part.cols);
        at += columns ? (size_t)part.cols : (size_t)part.rows * (size_t)stride;
    }
    return error;
}

int gpu_round_rows(void *stream, void *to, int stride, const float *x, int n, int dim)
{
    return LAUNCH(round_kernel, blocks_for((size_t)n * (stride / 2)), THREADS, 0, stream,
                  (uint32_t *)to, stride / 2, x, n, dim);
}
