/* check_attend.c - as check.c, for attention: gpu_check_attention() of kernels.h. One sequence
 * longer than a segment, of which the last tokens ask; heads of both widths that warpgroups do.
 */
#include "dev/cuda/check.h"
#include "dev/cuda/kernels.h"
#include "dev/cuda/page.h"
#include "dev/cuda/runtime.h"

#include <stdlib.h>
#include <string.h>

enum { KEYS = 600, ASK = 40, HEADS = 4, WIDEST = 128, PAGES = (KEYS + KV_PAGE - 1) / KV_PAGE };
enum { NO_MEMORY = 2, Y = ASK * HEADS * WIDEST };

/* What the host draws, and what both ways give it. */
struct host {
    uint16_t cache[PAGES * KV_PAGE * WIDEST * 2];
    float q[Y], y[2][Y];
    int pos[ASK], seq[ASK], page[PAGES];
};

/* Scores must not be so far apart that one key takes all. */
static void draw(struct host *h, uint64_t *seed)
{
    for (size_t i = 0; i < sizeof(h->cache) / sizeof(h->cache[0]); i++)
        h->cache[i] = check_bf16(seed, 1 + (int)i % 3);
    for (int i = 0; i < Y; i++) {
        const uint32_t bits = (uint32_t)check_bf16(seed, 2) << 16;
        memcpy(&h->q[i], &bits, sizeof(bits));
    }
    for (int i = 0; i < ASK; i++)
        h->pos[i] = KEYS - ASK + i, h->seq[i] = 0;
    for (int i = 0; i < PAGES; i++)
        h->page[i] = PAGES - 1 - i;
}

/* The same on the GPU, and the room. */
struct there {
    struct host *at;
    struct gpu_room room;
    void *stream;
};

static int attend(const struct there *t, int dim, bool warpgroups, float *to)
{
    const size_t page = gpu_values_at(NUM_BF16, dim) + (size_t)(KV_PAGE * gpu_wide(dim)) * 2;
    const struct gpu_kv kv = {NUM_BF16, 1, dim, page, page, (char *)t->at->cache};
    const struct gpu_heads heads = {.head_dim = dim, .group = HEADS, .scale = 0.05f};
    const struct gpu_batch batch = {.n_tok = ASK,
                                    .n_seq = 1,
                                    .stride = PAGES,
                                    .most_keys = KEYS,
                                    .pos = t->at->pos,
                                    .seq = t->at->seq,
                                    .page = t->at->page};
    struct gpu_room room = t->room;
    room.warpgroups = warpgroups ? WARPGROUP_ATTENTION : 0;
    int error = gpu_clear(t->at->y, sizeof(t->at->y), t->stream);
    if (!error)
        error =
            gpu_attend(t->stream, t->at->y[0], t->at->q, HEADS * dim, &kv, &heads, &batch, &room);
    if (!error)
        error = gpu_copy_out(to, t->at->y[0], Y * sizeof(float), t->stream);
    return error ? error : gpu_wait(t->stream);
}

static int compare(const struct there *t, struct host *h, bool *same)
{
    static const int dims[] = {64, 128};
    int error = 0;
    *same = true;
    for (int i = 0; !error && i < 2; i++) {
        for (int way = 0; !error && way < 2; way++)
            error = attend(t, dims[i], way, h->y[way]);
        *same = *same && !error && !memcmp(h->y[0], h->y[1], sizeof(h->y[0]));
    }
    return error;
}

int gpu_check_attention(bool *same)
{
    const struct gpu_sizes sizes = {.max_tok = ASK,
                                    .max_dim = WIDEST,
                                    .heads = HEADS,
                                    .head_dim = WIDEST,
                                    .ctx = 1024,
                                    .sm = 8};
    struct there t = {.room = {.bytes = gpu_room_bytes(&sizes), .sm = 8}};
    struct host *h = malloc(sizeof(*h));
    uint64_t seed = 1;
    int error = h ? gpu_stream(&t.stream) : NO_MEMORY;
    *same = false;
    if (!error) {
        draw(h, &seed);
        error = gpu_alloc((void **)&t.at, sizeof(*h));
    }
    error = error ? error : gpu_alloc(&t.room.at, t.room.bytes);
    error = error ? error : gpu_copy_in(t.at, h, sizeof(*h), t.stream);
    error = error ? error : compare(&t, h, same);
    gpu_free(t.at), gpu_free(t.room.at);
    free(h);
    return error;
}
