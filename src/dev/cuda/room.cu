/* room.cu - what all kernels need of the room between the calls of a stream: the most of what each
 * needs, which is computed beside it.
 */
#include "dev/cuda/product.h"

size_t gpu_room_bytes(const struct gpu_sizes *s)
{
    return product_room_bytes(s->max_tok, s->max_dim, s->sm);
}
