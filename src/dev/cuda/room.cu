/* room.cu - what all kernels need of the room between the calls of a stream: the most of what each
 * needs, which is computed beside it.
 */
#include "dev/cuda/attend_kernels.h"
#include "dev/cuda/experts.h"
#include "dev/cuda/product.h"

size_t gpu_room_bytes(const struct gpu_sizes *s)
{
    const size_t need[] = {product_room_bytes(s->max_tok, s->max_dim, s->sm), attend_room_bytes(s),
                           experts_room_bytes(s)};
    size_t most = 0;
    for (size_t bytes : need)
        most = bytes > most ? bytes : most;
    return most;
}
