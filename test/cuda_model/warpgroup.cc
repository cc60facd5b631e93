/* warpgroup.cc - see warpgroup_model.h. */
#include "dev/cuda/warpgroup.h"
#include "block.h"

#include <map>
#include <vector>

/* ------------------------------------------------------------------------------- barriers */

struct bulk {
    char *to;
    const char *from;
    int bytes;
};

struct barrier {
    int arrivals, missing, bytes; /* bytes: expected and not there */
    unsigned phase;               /* those that have ended */
    std::vector<bulk> copies;
};

static thread_local std::map<const void *, barrier> barriers;

static barrier *find(const void *at)
{
    const auto found = barriers.find(at);
    if (found == barriers.end())
        model_fail("a barrier at %p that nobody began", at);
    return &found->second;
}

/* Copies arrive as late as they may: when all else is there and somebody waits. */
static void look(const void *at, barrier *b, bool waited_for)
{
    if (b->missing)
        return;
    if (waited_for) {
        for (const bulk &one : b->copies) {
            memcpy(one.to, one.from, (size_t)one.bytes);
            b->bytes -= one.bytes;
        }
        b->copies.clear();
    }
    if (b->bytes)
        return;
    b->missing = b->arrivals;
    b->phase++;
    model_wake(at);
}

void barrier_begin(uint64_t *at, int arrivals)
{
    if ((uintptr_t)at % 8 || !model_is_shared(at, 8))
        model_fail("barrier_begin: %p is not 8 aligned bytes of shared memory", (void *)at);
    barriers[at] = {arrivals, arrivals, 0, 0, {}};
}

static void arrive(const void *at, int bytes)
{
    barrier *b = find(at);
    if (!b->missing)
        model_fail("more arrive at a barrier than it was begun for");
    b->missing--;
    b->bytes += bytes;
    look(at, b, false);
    if (!b->missing)
        model_wake(at); /* who waits fetches what is still on its way */
}

void barrier_arrive(uint64_t *at) { arrive(at, 0); }
void barrier_expect(uint64_t *at, int bytes) { arrive(at, bytes); }

static void *in_block(const void *at, int block)
{
    if (block < 0 || block >= MODEL_CLUSTER_MOST)
        model_fail("block %d of a cluster", block);
    return model_shared_of(block) + ((const char *)at - model_shared_of(model_block()));
}

void barrier_arrive_in(uint64_t *at, int block) { arrive(in_block(at, block), 0); }

void barrier_wait(uint64_t *at, int parity)
{
    barrier *b = find(at);
    while ((b->phase & 1) == (unsigned)parity) {
        look(at, b, true);
        if ((b->phase & 1) == (unsigned)parity)
            model_sleep(at);
    }
}

void copy_bulk(void *shared, const void *global, int bytes, uint64_t *at)
{
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16 || bytes % 16 || bytes <= 0)
        model_fail("copy_bulk: %d bytes from %p to %p, not all multiples of 16", bytes, global,
                   shared);
    if (!model_is_shared(shared, (size_t)bytes))
        model_fail("copy_bulk: %d bytes to %p leave shared memory", bytes, shared);
    memset(shared, 0xff, (size_t)bytes);
    find(at)->copies.push_back({(char *)shared, (const char *)global, bytes});
    model_wake(at);
}

void copy_bulk_to(void *shared, const void *global, int bytes, uint64_t *at, unsigned blocks)
{
    copy_bulk(shared, global, bytes, at);
    find(at)->copies.pop_back();
    for (int i = 0; blocks >> i; i++)
        if (blocks >> i & 1) {
            char *to = (char *)in_block(shared, i);
            memset(to, 0xff, (size_t)bytes);
            find(in_block(at, i))->copies.push_back({to, (const char *)global, bytes});
            model_wake(in_block(at, i));
        }
}

/* ------------------------------------------------------------------------------- clusters */

int block_in_cluster(void) { return model_block(); }
void cluster_meet(void) { model_meet_cluster(); }

float load_from_block(const float *at, int block)
{
    float value;
    if (!model_is_shared(at, sizeof(value)))
        model_fail("load_from_block: %p is not shared memory", (const void *)at);
    memcpy(&value, in_block(at, block), sizeof(value));
    return value;
}

/* As on a GPU, whose first KiB of a block is CUDA's, and where addresses tell the block of the
 * cluster. */
enum { SHARED_FROM = 1024, BLOCK_AT = 24 };

uint32_t gpu_shared_address(const void *at)
{
    return ((uint32_t)((const char *)at - model_shared_of(model_block())) + SHARED_FROM) |
           (uint32_t)model_block() << BLOCK_AT;
}

/* ------------------------------------------------------------------------------- products */

struct product {
    int n;
    bool by_row;
    uint64_t b;
    bool add;
    float *d[MODEL_GROUP];
    const uint32_t *a[MODEL_GROUP];
    uint32_t kept[MODEL_GROUP][4]; /* what a is, and must stay */
    int group;
};

/* Of a warpgroup: what is not done, and what d will be. */
struct group_state {
    bool begun;
    int committed;
    std::vector<product> products;
    std::map<float *, std::vector<float>> sums; /* by d */
};

static thread_local std::map<int, group_state> groups;

static group_state *my_group(void) { return &groups[model_thread() / 32 - threadIdx.x / 32 % 4]; }

void model_groups_forget(void)
{
    groups.clear();
    barriers.clear();
}

static void begin_all(void **) { my_group()->begun = true; }
static void commit_all(void **) { my_group()->committed++; }
void wgmma_begin(void) { model_meet_group("wgmma_begin", begin_all, NULL); }
void wgmma_commit(void) { model_meet_group("wgmma_commit", commit_all, NULL); }

struct asked {
    int n;
    bool by_row;
    float *d;
    const uint32_t *a;
    uint64_t b;
    bool add;
};

static bool is_poison(float f) { return __float_as_uint(f) == 0xffffffffu; }

static void enqueue_all(void **mine)
{
    group_state *g = my_group();
    product p = {};
    const asked *first = (const asked *)mine[0];
    if (!g->begun)
        model_fail("wgmma without wgmma_begin() since wgmma_wait()");
    p.n = first->n, p.by_row = first->by_row, p.b = first->b, p.add = first->add,
    p.group = g->committed;
    for (int i = 0; i < MODEL_GROUP; i++) {
        const asked *one = (const asked *)mine[i];
        if (one->b != p.b || one->add != p.add || one->n != p.n || one->by_row != p.by_row)
            model_fail("wgmma: threads of a warpgroup differ in matrix or addition");
        p.d[i] = one->d;
        p.a[i] = one->a;
        memcpy(p.kept[i], one->a, sizeof(p.kept[i]));
        if (!g->sums.count(one->d)) {
            g->sums[one->d].assign(one->d, one->d + p.n / 2);
            memset(one->d, 0xff, (size_t)(p.n / 2) * sizeof(float));
        }
    }
    g->products.push_back(p);
}

void model_wgmma(int n, bool by_row, float *d, const uint32_t *a, uint64_t b, bool add)
{
    asked mine = {n, by_row, d, a, b, add};
    model_meet_group("wgmma", enqueue_all, &mine);
}

static float half_of(uint32_t word, int i)
{
    return __uint_as_float(i ? word & 0xffff0000u : word << 16);
}

/* Row k of column `column` of b where its descriptor says, unswizzled: bits 16-29 from 8 rows to
 * the next, 32-45 from 8 columns to the next; a brick is 8 times 16 bytes, columns, or rows when
 * `by_row`. */
static float number_of_b(const product &p, int column, int k)
{
    const uint64_t b = p.b, low = 0x3fff;
    if (b & ~(low | low << 16 | low << 32))
        model_fail("wgmma: descriptor %#llx has bits of swizzling or none", (unsigned long long)b);
    const int sixteen = p.by_row ? k : column, two = p.by_row ? column : k;
    const size_t at = (size_t)(b & low) * 16 + (size_t)(k / 8) * (b >> 16 & low) * 16 +
                      (size_t)(column / 8) * (b >> 32 & low) * 16 + (size_t)(sixteen % 8) * 16 +
                      (size_t)(two % 8) * 2;
    const char *from = model_shared_of(model_block()) + at - SHARED_FROM;
    uint16_t number;
    if (at < SHARED_FROM || !model_is_shared(from, sizeof(number)))
        model_fail("wgmma: b lies outside shared memory");
    memcpy(&number, from, sizeof(number));
    return half_of(number, 0);
}

/* In the order of mma_bf16: products and sums in f32, ascending. */
static void multiply(group_state *g, const product &p)
{
    std::vector<float> b((size_t)p.n * 16);
    for (int column = 0; column < p.n; column++)
        for (int k = 0; k < 16; k++)
            b[(size_t)(column * 16 + k)] = number_of_b(p, column, k);
    for (int i = 0; i < MODEL_GROUP; i++)
        if (memcmp(p.kept[i], p.a[i], sizeof(p.kept[i])))
            model_fail("wgmma: registers of a were written before it was done");
    for (int i = 0; i < MODEL_GROUP; i++) {
        float *sum = g->sums[p.d[i]].data();
        for (int j = 0; j < p.n / 2; j++) {
            /* sum[4j + 2h + r]: row g + 8h of the warp's, column 8j + 2t + r */
            const int half = j / 2 % 2, column = j / 4 * 8 + i % 4 * 2 + j % 2;
            float c = p.add ? sum[j] : 0;
            for (int k = 0; k < 16; k++) {
                const uint32_t *a = p.kept[i / 4 * 4 + k % 8 / 2];
                c += half_of(a[half + k / 8 * 2], k % 2) * b[(size_t)(column * 16 + k)];
            }
            sum[j] = c;
        }
    }
}

static void wait_all(void **mine)
{
    group_state *g = my_group();
    const int newest = *(const int *)mine[0];
    size_t kept = 0;
    for (const product &p : g->products)
        if (p.group < g->committed - newest)
            multiply(g, p);
        else
            g->products[kept++] = p;
    g->products.resize(kept);
    if (kept)
        return;
    g->begun = false;
    for (auto &one : g->sums) {
        for (size_t i = 0; i < one.second.size(); i++)
            if (!is_poison(one.first[i]))
                model_fail("wgmma: registers of d were written before it was done");
        memcpy(one.first, one.second.data(), one.second.size() * sizeof(float));
    }
    g->sums.clear();
}

void model_wgmma_wait(int newest) { model_meet_group("wgmma_wait", wait_all, &newest); }
