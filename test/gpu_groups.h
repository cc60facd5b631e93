/* gpu_groups.h - claims about groups of ranks on GPUs, of whatever kind: every call, against what
 * one rank would compute. Ranks are threads with a stream each, on the model of a GPU or on a real
 * one.
 *
 * Who includes it says first what a rank of the kind is: struct group, with what it keeps, and
 * struct cards, what ranks share; and then has open_group(), which opens d->c over d->peer,
 * close_group(), wait_group(), which waits for the stream as the device does, two_shots(), and
 * brings_all(): do rows go to all ranks, whoever needs them?
 */
#ifndef TANDEM_GPU_GROUPS_H
#define TANDEM_GPU_GROUPS_H

#include "base/whole.h"
#include "comm/sum.h"
#include "comm_help.h"
#include "dev/cuda/runtime.h"

enum { SPINS = 50, LAYERS = 40 };

/* ------------------------------------------------------------------------------- ranks */

struct desk;

struct task {
    int (*run)(struct desk *); /* how many things were wrong: ranks must not use cmocka */
    int size, cut[SHARES_MAX + 1];
    size_t peer_bytes, outbox_bytes;
    int arg;
};

/* One rank. */
struct desk {
    const struct task *task;
    struct cards *cards;
    _Atomic uint32_t *stop;
    int rank, wrong;
    void *stream;
    char *memory;
    bool replays;
    struct comm c;
    struct group group;
    struct sum_program sum;
    struct arena peer; /* in the GPU's memory */
    struct pool here;
    uint64_t random;
};

static int open_group(struct desk *d);
static void close_group(struct desk *d);
static int wait_group(struct desk *d);
static bool two_shots(int size, size_t bytes);
static bool brings_all(void);

static int open_desk(struct desk *d)
{
    d->random = (uint64_t)d->rank + 1;
    if (d->task->cut[d->task->size])
        sum_compile(&d->sum, d->task->size, d->task->cut);
    return gpu_stream(&d->stream) || open_group(d);
}

static void *desk_main(void *arg)
{
    struct desk *d = arg;
    d->wrong = open_desk(d);
    if (!d->wrong)
        d->wrong = d->task->run(d);
    else
        atomic_store(d->stop, 1);
    return NULL;
}

static void close_desk(struct desk *d)
{
    close_group(d);
    gpu_free(d->memory);
    pool_free(&d->here);
}

static void run_task(const struct task *t, const char *what)
{
    struct cards *cards = shared_get(sizeof(*cards));
    struct desk *desk = shared_get((size_t)t->size * sizeof(*desk));
    _Atomic uint32_t stop = 0;
    pthread_t thread[SHARES_MAX];
    int wrong = 0;
    for (int r = 0; r < t->size; r++) {
        desk[r] = (struct desk){.task = t, .cards = cards, .stop = &stop, .rank = r};
        assert_int_equal(pthread_create(&thread[r], NULL, desk_main, &desk[r]), 0);
    }
    for (int r = 0; r < t->size; r++) {
        pthread_join(thread[r], NULL);
        wrong += desk[r].wrong;
    }
    for (int r = 0; r < t->size; r++)
        close_desk(&desk[r]);
    munmap(cards, sizeof(*cards));
    munmap(desk, (size_t)t->size * sizeof(*desk));
    if (wrong)
        fail_msg("%s: %d wrong, %d ranks", what, wrong, t->size);
}

/* Ways to cut: even, steep, all at the last rank. */
static void cut_task(struct task *t, int shares, int way)
{
    int n = t->size;
    for (int r = 0; r <= n; r++)
        t->cut[r] = way == 0   ? r * shares / n
                    : way == 1 ? r * r * shares / (n * n)
                               : (r == n) * shares;
}

/* ------------------------------------------------------------------------------- mats */

static struct mat get(struct desk *d, enum num type, int n, int dim)
{
    struct mat m = {n, dim, type, NULL};
    m.at = arena_get(&d->peer, mat_bytes(&m));
    return m;
}

static struct planes get_planes(struct desk *d, int n, int dim)
{
    struct planes p = {.n = d->sum.planes_of[d->rank]};
    int most = 0;
    for (int r = 0; r < d->task->size; r++)
        most = max_int(most, d->sum.planes_of[r]);
    for (int i = 0; i < most; i++)
        p.at[i] = get(d, NUM_F32, n, dim);
    return p;
}

/* Numbers of the host for m, until the end. */
static void *host(struct desk *d, const struct mat *m)
{
    return pool_get(&d->here, mat_bytes(m) + 1);
}

static int put(struct desk *d, const struct mat *m, const void *from)
{
    return gpu_copy_in(m->at, from, mat_bytes(m), d->stream) != 0;
}

static void *fetch(struct desk *d, const struct mat *m)
{
    void *to = host(d, m);
    return gpu_copy_out(to, m->at, mat_bytes(m), d->stream) ? NULL : to;
}

/* The partial sums of this rank, on their way. */
static int put_planes(struct desk *d, const struct planes *p, int call)
{
    const int *cut = d->task->cut;
    struct span tree[PLANES];
    int wrong = 0;
    tree_split((struct span){cut[d->rank], cut[d->rank + 1]}, tree);
    for (int k = 0; k < p->n; k++) {
        float *from = host(d, &p->at[k]);
        for (size_t i = 0; i < numbers(&p->at[k]); i++)
            from[i] = tree_sum(call, tree[k], i);
        wrong += put(d, &p->at[k], from);
    }
    return wrong;
}

/* Numbers lo .. hi of `got` that are not the sum of one rank alone, bit for bit. */
static int wrong_sums(const struct desk *d, const float *got, size_t lo, size_t hi, int call)
{
    int wrong = !got;
    for (size_t i = lo; i < hi && got; i++) {
        float want = tree_sum(call, (struct span){0, d->task->cut[d->task->size]}, i);
        wrong += memcmp(&got[i], &want, sizeof(want)) != 0;
    }
    return wrong;
}

/* All that was enqueued is done, and well. */
static int done(struct desk *d)
{
    int wrong = wait_group(d) != 0;
    comm_end(&d->c);
    return wrong + (d->c.err != 0);
}

/* ------------------------------------------------------------------------------- sums */

static int sum_lengths(struct desk *d)
{
    static const int small[] = {1, 5, 16, 1023, 5003}, large[] = {4093, 140001, 140000};
    const int *of = d->task->arg ? large : small, n = d->task->arg ? 3 : 5,
              last = d->task->arg ? 1 : 4;
    int wrong = 0;
    struct mat to = get(d, NUM_F32, 1, of[last]);
    struct planes y[2] = {get_planes(d, 1, to.dim), get_planes(d, 1, to.dim)};
    for (int k = 0; k < n; k++) {
        struct planes *from = &y[k & 1];
        to.dim = of[k];
        for (int p = 0; p < PLANES; p++)
            from->at[p].dim = to.dim;
        wrong += put_planes(d, from, k);
        comm_sum(&d->c, &to, from);
        float *got = fetch(d, &to);
        wrong += done(d) + wrong_sums(d, got, 0, numbers(&to), k);
    }
    return wrong + (d->c.calls != (uint64_t)n);
}

static void sums_have_the_bits_of_one_rank(void **state)
{
    (void)state;
    for (int shares = 8; shares <= SHARES_MAX; shares *= 4)
        for (int size = 2; size <= 8; size += size == 4 ? 4 : 1)
            for (int way = 0; way < 3; way++) {
                struct task t = {.run = sum_lengths, .size = size, .peer_bytes = 1 << 20};
                cut_task(&t, shares, way);
                run_task(&t, "sum");
            }
}

static void one_and_two_shots_give_the_same_bits(void **state)
{
    (void)state;
    assert_false(two_shots(3, sizeof(float) * 4093));
    assert_true(two_shots(3, sizeof(float) * 140000));
    for (int size = 2; size <= 4; size++)
        for (int way = 0; way < 2; way++) {
            struct task t = {.run = sum_lengths, .size = size, .peer_bytes = 16 << 20, .arg = 1};
            cut_task(&t, 8, way);
            run_task(&t, "large sum");
        }
}

static int64_t whole_term(int rank, size_t i)
{
    return i % 97 == 13 && rank == 1 ? WHOLE_NONE
                                     : (int64_t)((i + 1) * 0x9e3779b97f4a7c15u) / (rank + 2) >> 16;
}

static int sum_whole(struct desk *d)
{
    int wrong = 0;
    static const int shape[][2] = {{1, 7}, {3, 100}, {64, 1100}};
    for (size_t k = 0; k < COUNT(shape); k++) {
        struct mat to = get(d, NUM_I64, shape[k][0], shape[k][1]);
        struct planes from = {.n = 1, .at = {get(d, NUM_I64, to.n, to.dim)}};
        int64_t *mine = host(d, &to);
        for (size_t i = 0; i < numbers(&to); i++)
            mine[i] = whole_term(d->rank, i);
        wrong += put(d, &from.at[0], mine);
        comm_sum(&d->c, &to, &from);
        const int64_t *got = fetch(d, &to);
        wrong += done(d);
        for (size_t i = 0; i < numbers(&to); i++) {
            int64_t want = whole_term(0, i);
            for (int r = 1; r < d->c.size; r++)
                want = whole_add(want, whole_term(r, i));
            wrong += got[i] != want;
        }
    }
    return wrong;
}

static void whole_numbers_are_added_and_none_stays_none(void **state)
{
    (void)state;
    for (int size = 2; size <= 4; size++) {
        struct task t = {.run = sum_whole, .size = size, .peer_bytes = 2 << 20};
        cut_task(&t, 8, 0);
        run_task(&t, "whole");
    }
}

/* ------------------------------------------------------------------------------- rows, bits */

static int scatter_then_gather(struct desk *d)
{
    static const int shape[][2] = {{13, 37}, {3, 12}, {1, 5}, {64, 132}};
    int wrong = 0;
    for (size_t k = 0; k < COUNT(shape); k++) {
        struct mat to = get(d, NUM_F32, shape[k][0], shape[k][1]);
        struct planes from = get_planes(d, to.n, to.dim);
        struct span mine = share(to.n, d->c.size, d->rank);
        size_t lo = (size_t)mine.lo * (size_t)to.dim, hi = (size_t)mine.hi * (size_t)to.dim;
        char *before = memset(host(d, &to), 0x55, mat_bytes(&to));
        wrong += put(d, &to, before) + put_planes(d, &from, (int)k);
        comm_scatter_sum(&d->c, &to, &from);
        const char *half = fetch(d, &to);
        comm_gather(&d->c, &to);
        const float *all = fetch(d, &to);
        wrong += done(d) + wrong_sums(d, (const float *)(const void *)half, lo, hi, (int)k);
        for (size_t i = 0; i < mat_bytes(&to); i++) /* the rows of others are theirs */
            wrong += (i < lo * sizeof(float) || i >= hi * sizeof(float)) && half[i] != 0x55;
        wrong += wrong_sums(d, all, 0, numbers(&to), (int)k);
    }
    return wrong;
}

static void scatter_sum_and_gather_make_a_sum(void **state)
{
    (void)state;
    for (int size = 2; size <= 5; size++) {
        struct task t = {.run = scatter_then_gather, .size = size, .peer_bytes = 1 << 20};
        cut_task(&t, 16, size % 3);
        run_task(&t, "rows");
    }
}

/* Awkward bits: -0, NaNs with payloads, subnormals, infinities. */
static uint32_t odd_bits(int call, size_t i)
{
    static const uint32_t odd[] = {0x80000000, 0x7fc12345, 0xffa00001, 1, 0x7f800000, 0};
    return (i + (size_t)call) % 3 ? (uint32_t)(i * 2654435761u) : odd[i / 3 % COUNT(odd)];
}

static int merge_many(struct desk *d)
{
    struct mat to = get(d, NUM_F32, 17, 59 + d->task->arg);
    struct mat from = get(d, NUM_F32, to.n, to.dim);
    const uint32_t *got[LAYERS];
    char *ones = memset(host(d, &to), 0xff, mat_bytes(&to));
    int wrong = 0, owners = d->c.size + 1; /* the last owner of all is nobody */
    for (int call = 0; call < LAYERS; call++) {
        uint32_t *mine = host(d, &from);
        for (size_t i = 0; i < numbers(&from); i++)
            mine[i] = (int)(i % (size_t)owners) == d->rank ? odd_bits(call, i) : 0;
        wrong += put(d, &from, mine);
        comm_merge(&d->c, &to, &from);
        wrong += put(d, &from, ones); /* free on return */
        got[call] = fetch(d, &to);
    }
    wrong += done(d);
    for (int call = 0; call < LAYERS; call++)
        for (size_t i = 0; i < numbers(&to); i++) {
            bool nobody = (int)(i % (size_t)owners) == d->c.size;
            wrong += got[call][i] != (nobody ? 0 : odd_bits(call, i));
        }
    return wrong;
}

static void merge_keeps_every_bit_of_the_only_owner(void **state)
{
    (void)state;
    for (int size = 2; size <= 5; size++) {
        struct task t = {.run = merge_many, .size = size, .peer_bytes = 1 << 16, .arg = size % 2};
        cut_task(&t, 8, 0);
        run_task(&t, "merge");
    }
}

static float cell(int call, int row, int col) { return (float)(call * 10007 + row * 101 + col); }

static int join_many(struct desk *d)
{
    int rows = 5, size = d->c.size, wrong = 0, col[SHARES_MAX + 1];
    for (int r = 0; r <= size; r++)
        col[r] = 7 * r * (r - 1) / 2; /* 0, 0, 7, 21: rank 0 has no column */
    struct mat to = get(d, NUM_F32, rows, col[size]);
    struct mat from = get(d, NUM_F32, rows, col[d->rank + 1] - col[d->rank]);
    const float *got[LAYERS];
    wrong += put(d, &to, memset(host(d, &to), 0x55, mat_bytes(&to)));
    for (int call = 0; call < LAYERS; call++) {
        float *mine = host(d, &from);
        for (int i = 0; i < rows * from.dim; i++)
            mine[i] = cell(call, i / from.dim, col[d->rank] + i % from.dim);
        wrong += put(d, &from, mine);
        comm_join(&d->c, &to, &from, col);
        got[call] = fetch(d, &to);
    }
    wrong += done(d);
    for (int call = 0; call < LAYERS; call++)
        for (int i = 0; i < rows * to.dim; i++) {
            float none;
            memset(&none, 0x55, sizeof(none));
            float want = d->rank ? none : cell(call, i / to.dim, i % to.dim);
            wrong += memcmp(&got[call][i], &want, sizeof(want)) != 0;
        }
    return wrong;
}

static void join_puts_columns_side_by_side_at_rank_0_only(void **state)
{
    (void)state;
    for (int size = 2; size <= 5; size++) {
        struct task t = {.run = join_many, .size = size, .peer_bytes = 1 << 16};
        run_task(&t, "join");
    }
}

/* ------------------------------------------------------------------------------- messages */

static uint32_t turn_of(uint32_t x) { return x * 1103515245u + 12345u; }

/* Messages of many sizes between ranks that all of them draw alike; nobody waits in between. */
static int many_messages(struct desk *d)
{
    enum { N = 120, MOST = 3000 };
    struct mat out = get(d, NUM_F32, 1, MOST), in[N];
    const float *got[N] = {NULL};
    int from[N], dim[N], to, wrong = 0;
    uint32_t x = 7;
    for (int i = 0; i < N; i++) {
        x = turn_of(x);
        from[i] = (int)(x >> 16) % d->c.size;
        x = turn_of(x);
        to = (from[i] + 1 + (int)(x >> 16) % (d->c.size - 1)) % d->c.size;
        x = turn_of(x);
        dim[i] = 1 + (int)(x >> 16) % MOST;
        out.dim = dim[i];
        if (from[i] == d->rank) {
            float *mine = host(d, &out);
            for (int k = 0; k < dim[i]; k++)
                mine[k] = cell(i, from[i], k);
            wrong += put(d, &out, mine);
            comm_send(&d->c, to, &out);
        } else if (to == d->rank) {
            in[i] = out;
            comm_recv(&d->c, from[i], &in[i]);
            got[i] = fetch(d, &in[i]);
        }
    }
    wrong += done(d);
    for (int i = 0; i < N; i++)
        for (int k = 0; got[i] && k < dim[i]; k++)
            wrong += got[i][k] != cell(i, from[i], k);
    return wrong;
}

static void messages_arrive_in_order_between_any_two(void **state)
{
    (void)state;
    for (int size = 2; size <= 4; size++) {
        struct task t = {.run = many_messages,
                         .size = size,
                         .peer_bytes = 1 << 16,
                         .outbox_bytes = 3000 * sizeof(float)};
        run_task(&t, "messages");
    }
}

/* ------------------------------------------------------------------------------- streams */

/* As forward() does: two sets of planes in turn, one mat for the sums, and rows gathered in between
 * when sp; all of it enqueued before anyone waits. */
static int many_layers(struct desk *d)
{
    bool sp = d->task->arg;
    int n = 6, dim = 24, wrong = 0;
    struct mat sum = get(d, NUM_F32, n, dim), h = get(d, NUM_F32, n, dim);
    struct planes y[2] = {get_planes(d, n, dim), get_planes(d, n, dim)};
    struct span mine = share(n, d->c.size, d->rank);
    struct mat my_sum = mat_rows(&sum, mine), my_h = mat_rows(&h, mine);
    const float *got[LAYERS];
    for (int call = 0; call < LAYERS; call++) {
        wrong += put_planes(d, &y[call & 1], call);
        if (sp) {
            comm_scatter_sum(&d->c, &sum, &y[call & 1]);
            wrong += gpu_copy(my_h.at, my_sum.at, mat_bytes(&my_h), d->stream) != 0;
            comm_gather(&d->c, &h);
        } else {
            comm_sum(&d->c, &sum, &y[call & 1]);
        }
        got[call] = fetch(d, sp ? &h : &sum);
    }
    wrong += done(d);
    for (int call = 0; call < LAYERS; call++)
        wrong += wrong_sums(d, got[call], 0, numbers(&sum), call);
    return wrong;
}

static void nobody_reads_what_was_already_overwritten(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct task t = {
            .run = many_layers, .size = k < 2 ? 2 : 3, .peer_bytes = 1 << 18, .arg = k & 1};
        cut_task(&t, 8, 0);
        run_task(&t, "layers");
    }
}

/* What was recorded once is replayed with other numbers; calls made meanwhile enqueue nothing. */
static int replayed(struct desk *d)
{
    int n = 2, dim = 50, wrong = 0;
    struct mat sum = get(d, NUM_F32, n, dim), bits = get(d, NUM_F32, n, dim);
    struct mat mine = get(d, NUM_F32, n, dim);
    struct planes y = get_planes(d, n, dim);
    const float *got[LAYERS], *same[LAYERS];
    void *recorded = NULL;
    wrong += gpu_clear(mine.at, mat_bytes(&mine), d->stream) != 0;
    for (int call = 0; call < LAYERS; call++) {
        wrong += put_planes(d, &y, call);
        if (!call)
            wrong += gpu_record_begin(d->stream) != 0;
        d->replays = call > 0;
        comm_sum(&d->c, &sum, &y);
        wrong += d->rank ? 0 : gpu_copy(mine.at, sum.at, mat_bytes(&sum), d->stream) != 0;
        comm_merge(&d->c, &bits, &mine); /* rank 0 alone has any */
        if (!call)
            wrong += gpu_record_end(d->stream, &recorded) != 0;
        wrong += gpu_replay(recorded, d->stream) != 0;
        got[call] = fetch(d, &sum);
        same[call] = fetch(d, &bits);
    }
    wrong += done(d) + (d->c.calls != 2 * LAYERS);
    for (int call = 0; call < LAYERS; call++)
        wrong += wrong_sums(d, got[call], 0, numbers(&sum), call) +
                 wrong_sums(d, same[call], 0, numbers(&sum), call);
    gpu_record_free(recorded);
    return wrong;
}

static void recorded_calls_can_be_replayed(void **state)
{
    (void)state;
    for (int size = 2; size <= 3; size++) {
        struct task t = {.run = replayed, .size = size, .peer_bytes = 1 << 16};
        cut_task(&t, 8, 0);
        run_task(&t, "replay");
    }
}

/* ------------------------------------------------------------------------------- failures */

/* Rank 1 does not come to the second sum; the others would wait for ever. */
static int one_is_missing(struct desk *d)
{
    struct mat sum = get(d, NUM_F32, 1, 64);
    struct planes y = get_planes(d, 1, 64);
    int wrong = put_planes(d, &y, 0);
    comm_sum(&d->c, &sum, &y);
    wrong += done(d);
    if (d->rank == 1) {
        usleep(20000);
        atomic_store(d->stop, 1);
        return wrong;
    }
    comm_sum(&d->c, &sum, &y);
    wrong += wait_group(d) != 0;
    comm_end(&d->c);
    uint64_t calls = d->c.calls;
    comm_sum(&d->c, &sum, &y); /* does nothing */
    return wrong + (d->c.err != -ECANCELED) + (d->c.calls != calls);
}

static void a_raised_stop_word_ends_the_wait(void **state)
{
    (void)state;
    for (int size = 2; size <= 3; size++) {
        struct task t = {.run = one_is_missing, .size = size, .peer_bytes = 1 << 16};
        cut_task(&t, 8, 0);
        run_task(&t, "stop");
    }
}

#include "gpu_groups_rows.h"

/* All of them. */
#define GPU_GROUP_TESTS                                                                            \
    cmocka_unit_test(sums_have_the_bits_of_one_rank),                                              \
        cmocka_unit_test(one_and_two_shots_give_the_same_bits),                                    \
        cmocka_unit_test(whole_numbers_are_added_and_none_stays_none),                             \
        cmocka_unit_test(scatter_sum_and_gather_make_a_sum),                                       \
        cmocka_unit_test(merge_keeps_every_bit_of_the_only_owner),                                 \
        cmocka_unit_test(join_puts_columns_side_by_side_at_rank_0_only),                           \
        cmocka_unit_test(messages_arrive_in_order_between_any_two),                                \
        cmocka_unit_test(rows_go_to_those_that_need_them_and_back),                                \
        cmocka_unit_test(nobody_reads_what_was_already_overwritten),                               \
        cmocka_unit_test(recorded_calls_can_be_replayed),                                          \
        cmocka_unit_test(a_raised_stop_word_ends_the_wait),

#endif
