/* product_plain.cu - products by f32 and f16: see product_plain.h. */
#include "dev/cuda/product_plain.h"

template <int BYTES, int ROWS>
__global__ void __launch_bounds__(PLAIN_THREADS, 2)
    plain_kernel(const __grid_constant__ struct product p)
{
    after_previous();
    const struct duty duty = duty_of(p, (int)blockIdx.x);
    const struct some_rows at = {(int)blockIdx.y * 8 * ROWS, p.n, NULL};
    struct put_shares<ROWS> put(p);
    plain_rows<BYTES, ROWS>(p, duty, at, put);
}

template <int BYTES, int ROWS> static int launch(void *stream, const struct product *p)
{
    struct product placed = *p;
    const int blocks = place_blocks(&placed, PAIR);
    return LAUNCH_CHAINED(plain_kernel<BYTES, ROWS>,
                          dim3((unsigned)blocks, (unsigned)parts_of(p->n, 8 * ROWS)),
                          dim3(PLAIN_THREADS), (plain_bytes<BYTES, ROWS>()), stream, placed);
}

int product_plain(void *stream, enum num type, const struct product *p)
{
    if (type == NUM_F32)
        return p->n <= 8 ? launch<4, 1>(stream, p) : launch<4, 4>(stream, p);
    return p->n <= 8 ? launch<2, 1>(stream, p) : launch<2, 4>(stream, p);
}
