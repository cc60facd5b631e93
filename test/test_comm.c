/* test_comm.c - groups over shared memory: every call, as threads and as processes. Sums are
 * compared bit for bit with those of one rank that holds all shares. */
#include "comm_help.h"

enum { SPINS = 50 };

/* ------------------------------------------------------------------------------- sums */

/* Ways to cut: 0 even, 1 steep, 2 all at the last rank, 3 ranks without shares at both ends. */
static void cut_up(struct job *j, int shares, int way)
{
    int n = j->size;
    for (int r = 0; r <= n; r++)
        j->cut[r] = way == 0   ? r * shares / n
                    : way == 1 ? r * r * shares / (n * n)
                    : way == 2 ? (r == n) * shares
                               : (r > 1) * (r >= n - 1 ? shares : shares / 2 - 1);
    j->cut[n] = shares;
}

struct lengths {
    int n, of[5];
};

static int sum_each_length(struct seat *s)
{
    const struct lengths *l = s->job->arg;
    int wrong = 0;
    struct mat to = seat_mat(s, 1, l->of[l->n - 1]);
    struct planes y[2] = {seat_planes(s, 1, to.dim), seat_planes(s, 1, to.dim)};
    for (int k = 0; k < l->n; k++) {
        struct planes *from = &y[k & 1];
        to.dim = l->of[k];
        for (int p = 0; p < PLANES; p++)
            from->at[p].dim = to.dim;
        fill_planes(s, from, k);
        if (k + 1 < l->n) /* the number after the last is not touched */
            memset((float *)to.at + to.dim, 0x55, sizeof(float));
        comm_sum(&s->c, &to, from);
        wrong += wrong_in(s, &to, (struct span){0, 1}, k);
        wrong += k + 1 < l->n && ((char *)to.at)[(size_t)to.dim * sizeof(float)] != 0x55;
    }
    return wrong + (s->c.err != 0) + (s->c.calls != (uint64_t)l->n);
}

static size_t room_for(const struct lengths *l)
{
    return (2 * PLANES + 1) * round_up((size_t)l->of[l->n - 1] * sizeof(float), 4096);
}

static void sweep_cuts(enum as as)
{
    const struct lengths l = {5, {1, 5, 17, 1023, 5003}};
    for (int shares = 8; shares <= SHARES_MAX; shares *= 2)
        for (int size = 2; size <= 8; size++)
            for (int way = 0; way < 4; way++) {
                struct job j = {.run = sum_each_length,
                                .size = size,
                                .peer_bytes = room_for(&l),
                                .spins = SPINS,
                                .arg = &l};
                cut_up(&j, shares, way);
                run_job(&j, as, "sum");
            }
}

static void threads_sum_to_the_bits_of_one_rank(void **state)
{
    (void)state;
    sweep_cuts(THREADS);
}

static void processes_sum_to_the_bits_of_one_rank(void **state)
{
    (void)state;
    sweep_cuts(PROCESSES);
}

static void one_and_two_shots_give_the_same_bits(void **state)
{
    const struct lengths l = {4, {4093, 40009, 100003, 140001}};
    (void)state;
    for (int size = 2; size <= 8; size += size == 3 ? 2 : size == 5 ? 3 : 1) {
        assert_false(comm_shm_two_shot(size, sizeof(float) * 4093 / 2));
        assert_true(comm_shm_two_shot(size, sizeof(float) * 140001));
        for (int way = 0; way < 4; way++) {
            struct job j = {.run = sum_each_length,
                            .size = size,
                            .peer_bytes = room_for(&l),
                            .spins = SPINS,
                            .arg = &l};
            cut_up(&j, 8, way);
            run_job(&j, way % 2 ? THREADS : PROCESSES, "large sum");
        }
    }
}

static void a_group_of_one_leaves_its_plane_alone(void **state)
{
    float x[3] = {-0.f, 1.5f, 3e38f}, before[3];
    struct comm c = {.ops = &comm_self, .size = 1};
    struct mat to = {1, 3, NUM_F32, x};
    struct planes from = {1, {to}};
    (void)state;
    memcpy(before, x, sizeof(x));
    comm_sum(&c, &to, &from);
    comm_scatter_sum(&c, &to, &from);
    comm_gather(&c, &to);
    comm_merge(&c, &to, &to);
    assert_memory_equal(x, before, sizeof(x));
    assert_int_equal(c.err, 0);
}

/* ------------------------------------------------------------------------------- rows */

static int scatter_then_gather(struct seat *s)
{
    static const int shape[][2] = {{13, 37}, {3, 11}, {1, 5}, {64, 130}};
    int wrong = 0;
    for (size_t k = 0; k < COUNT(shape); k++) {
        int n = shape[k][0], dim = shape[k][1], call = (int)k;
        struct mat to = seat_mat(s, n, dim);
        struct planes from = seat_planes(s, n, dim);
        struct span mine = share(n, s->c.size, s->rank);
        memset(to.at, 0x55, mat_bytes(&to));
        fill_planes(s, &from, call);
        comm_scatter_sum(&s->c, &to, &from);
        wrong += wrong_in(s, &to, mine, call);
        for (size_t i = 0; i < mat_bytes(&to); i++) { /* the rows of others are theirs */
            int row = (int)(i / ((size_t)dim * sizeof(float)));
            wrong += (row < mine.lo || row >= mine.hi) && ((char *)to.at)[i] != 0x55;
        }
        comm_gather(&s->c, &to);
        wrong += wrong_in(s, &to, (struct span){0, n}, call);
    }
    return wrong + (s->c.err != 0) + (s->c.calls != 2 * COUNT(shape));
}

static void scatter_sum_and_gather_make_a_sum(void **state)
{
    (void)state;
    for (int size = 2; size <= 8; size++) {
        struct job j = {
            .run = scatter_then_gather, .size = size, .peer_bytes = 1 << 20, .spins = SPINS};
        cut_up(&j, 16, size % 4);
        run_job(&j, THREADS, "rows");
        run_job(&j, PROCESSES, "rows");
    }
}

/* Who needs row t: none but its owner at times, all at times; the same on every rank. */
static uint32_t need_of(int call, int t, int size)
{
    uint32_t x = (uint32_t)(call * 7919 + t * 104729 + 1) * 2654435761u;
    uint32_t all = ((uint32_t)1 << size) - 1, some = x >> 7 & all;
    return call % 5 == 4 ? all : some ? some : (uint32_t)1 << (x >> 3) % (uint32_t)size;
}

static int64_t term(int call, int rank, int t, int k)
{
    return k == 3 && t % 7 == rank ? INT64_MIN : (int64_t)call * 1000003 + rank * 101 + t * 13 - k;
}

static int64_t sum_of_terms(uint32_t need, int call, int t, int k)
{
    int64_t sum = 0;
    for (int r = 0; need >> r; r++)
        if (need >> r & 1) {
            if (term(call, r, t, k) == INT64_MIN)
                return INT64_MIN;
            sum += term(call, r, t, k);
        }
    return sum;
}

/* Rows go to those that need them and nowhere else, and what these make of them comes back. Mats
 * are written again as soon as they may be. */
static int exchange_many(struct seat *s)
{
    enum { N = 37, DIM = 19 };
    const int size = s->c.size;
    struct mat x = seat_mat(s, N, DIM), y = {N, DIM, NUM_I64, NULL}, to = y;
    uint32_t need[N];
    uint64_t bytes = 0;
    int wrong = 0;
    y.at = arena_get(&s->peer, mat_bytes(&y));
    to.at = arena_get(&s->peer, mat_bytes(&to));
    for (int call = 0; call < 60; call++) {
        int n = x.n = y.n = to.n = call % 3 ? N : 1 + call % size;
        struct span mine = share(n, size, s->rank);
        memset(x.at, 0x55, mat_bytes(&x));
        memset(to.at, 0x55, mat_bytes(&to));
        for (int t = 0; t < n; t++) {
            bool own = t >= mine.lo && t < mine.hi;
            need[t] = need_of(call, t, size);
            bytes += own ? (uint64_t)__builtin_popcount(need[t] & ~(1u << s->rank)) * DIM * 8
                         : (uint64_t)(need[t] >> s->rank & 1) * DIM * 4;
            for (int k = 0; k < DIM && own; k++)
                mat_row(&x, t)[k] = leaf(call, t % 8, (size_t)k);
        }
        seat_dawdle(s);
        comm_dispatch(&s->c, &x, need);
        for (int t = 0; t < n; t++)
            for (int k = 0; k < DIM; k++) {
                bool here = (t >= mine.lo && t < mine.hi) || need[t] >> s->rank & 1;
                float want = leaf(call, t % 8, (size_t)k);
                if (!here)
                    memset(&want, 0x55, sizeof(want));
                wrong += memcmp(&mat_row(&x, t)[k], &want, sizeof(want)) != 0;
                ((int64_t *)y.at)[t * DIM + k] =
                    need[t] >> s->rank & 1 ? term(call, s->rank, t, k) : INT64_MIN;
            }
        seat_dawdle(s);
        comm_combine(&s->c, &to, &y, need);
        for (int t = 0; t < n; t++)
            for (int k = 0; k < DIM; k++) {
                bool own = t >= mine.lo && t < mine.hi;
                int64_t want = sum_of_terms(need[t], call, t, k);
                if (!own)
                    memset(&want, 0x55, sizeof(want));
                wrong += ((int64_t *)to.at)[t * DIM + k] != want;
            }
    }
    return wrong + (s->c.err != 0) + (s->c.calls != 120) + (s->c.bytes != bytes);
}

static void rows_go_to_those_that_need_them_and_back(void **state)
{
    (void)state;
    for (int size = 2; size <= 8; size++) {
        struct job j = {.run = exchange_many, .size = size, .peer_bytes = 1 << 20, .spins = SPINS};
        run_job(&j, THREADS, "exchange");
        run_job(&j, PROCESSES, "exchange");
    }
}

/* ------------------------------------------------------------------------------- merge, join */

/* Awkward bits: -0, quiet and signalling NaNs with payloads, subnormals, infinities. */
static uint32_t odd_bits(int call, size_t i)
{
    static const uint32_t odd[] = {0x80000000, 0x7fc12345, 0xffa00001, 1, 0x7f800000, 0};
    return (i + (size_t)call) % 3 ? (uint32_t)(i * 2654435761u) : odd[i / 3 % COUNT(odd)];
}

static int merge_many(struct seat *s)
{
    enum { N = 1003 };
    struct mat to = seat_mat(s, 17, 59), from = seat_mat(s, 17, 59);
    uint32_t *got = to.at, *mine = from.at;
    int wrong = 0;
    for (int call = 0; call < 20; call++) {
        for (size_t i = 0; i < N; i++) /* the last owner of all is nobody */
            mine[i] = i % (size_t)(s->c.size + 1) == (size_t)s->rank ? odd_bits(call, i) : 0;
        seat_dawdle(s);
        comm_merge(&s->c, &to, &from);
        memset(from.at, 0xff, mat_bytes(&from)); /* free on return */
        for (size_t i = 0; i < N; i++) {
            bool nobody = i % (size_t)(s->c.size + 1) == (size_t)s->c.size;
            wrong += got[i] != (nobody ? 0 : odd_bits(call, i));
        }
    }
    return wrong + (s->c.err != 0);
}

static void merge_keeps_every_bit_of_the_only_owner(void **state)
{
    (void)state;
    for (int size = 2; size <= 8; size += 3) {
        struct job j = {.run = merge_many, .size = size, .peer_bytes = 1 << 16, .spins = SPINS};
        cut_up(&j, 8, 0);
        run_job(&j, THREADS, "merge");
        run_job(&j, PROCESSES, "merge");
    }
}

static float cell(int call, int row, int col) { return (float)(call * 10007 + row * 101 + col); }

static int join_many(struct seat *s)
{
    int rows = 5, size = s->c.size, wrong = 0, col[SHARES_MAX + 1];
    for (int r = 0; r <= size; r++)
        col[r] = 7 * r * (r - 1) / 2; /* 0, 0, 7, 21: rank 0 has no column */
    struct mat to = seat_mat(s, rows, col[size]);
    struct mat from = {rows, col[s->rank + 1] - col[s->rank], NUM_F32, NULL};
    from.at = calloc(mat_bytes(&from) + 1, 1); /* need not lie in the arena */
    must(from.at);
    memset(to.at, 0x55, mat_bytes(&to));
    for (int call = 0; call < 50; call++) {
        for (int t = 0; t < rows; t++)
            for (int k = 0; k < from.dim; k++)
                mat_row(&from, t)[k] = cell(call, t, col[s->rank] + k);
        comm_join(&s->c, &to, &from, col);
        seat_dawdle(s); /* rank 0 reads late, the others come again at once */
        for (int t = 0; s->rank == 0 && t < rows; t++)
            for (int k = 0; k < to.dim; k++)
                wrong += mat_row(&to, t)[k] != cell(call, t, k);
    }
    for (size_t i = 0; s->rank && i < mat_bytes(&to); i++)
        wrong += ((char *)to.at)[i] != 0x55;
    free(from.at);
    return wrong + (s->c.err != 0);
}

static void join_puts_columns_side_by_side_at_rank_0_only(void **state)
{
    (void)state;
    for (int size = 2; size <= 8; size += 3) {
        struct job j = {.run = join_many, .size = size, .peer_bytes = 1 << 16, .spins = SPINS};
        run_job(&j, THREADS, "join");
        run_job(&j, PROCESSES, "join");
    }
}

/* ------------------------------------------------------------------------------- reuse */

/* As forward() does: two sets of planes in turn, one mat for the sums, rows gathered in between
 * when sp. What the rules allow to be overwritten is, at once. */
static int many_layers(struct seat *s)
{
    bool sp = s->job->arg;
    int n = 6, dim = 23, wrong = 0, calls = sp ? 5000 : 10000;
    struct mat sum = seat_mat(s, n, dim), h = seat_mat(s, n, dim);
    struct planes y[2] = {seat_planes(s, n, dim), seat_planes(s, n, dim)};
    struct span all = {0, n}, mine = share(n, s->c.size, s->rank);
    for (int call = 0; call < calls && !wrong; call++) {
        struct planes *from = &y[call & 1];
        fill_planes(s, from, call);
        seat_dawdle(s);
        if (!sp) {
            comm_sum(&s->c, &sum, from);
            wrong += wrong_in(s, &sum, all, call);
            continue;
        }
        comm_scatter_sum(&s->c, &sum, from);
        struct mat my_sum = mat_rows(&sum, mine), my_h = mat_rows(&h, mine);
        memcpy(my_h.at, my_sum.at, mat_bytes(&my_h));
        seat_dawdle(s);
        comm_gather(&s->c, &h);
        wrong += wrong_in(s, &h, all, call);
    }
    return wrong + (s->c.err != 0);
}

static void nobody_reads_what_was_already_overwritten(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct job j = {.run = many_layers,
                        .size = k < 2 ? 2 : 3,
                        .peer_bytes = 1 << 18,
                        .spins = SPINS,
                        .arg = k & 1 ? "sp" : NULL};
        cut_up(&j, 8, 0);
        run_job(&j, THREADS, "layers");
        run_job(&j, PROCESSES, "layers");
    }
}

/* Two sums on their way, as of two waves; small ones in one shot, large ones in two. */
static int two_waves(struct seat *s)
{
    int n = 6, dim = s->job->arg ? 4000 : 23, wrong = 0;
    struct mat sum[2] = {seat_mat(s, n, dim), seat_mat(s, n, dim)};
    struct planes attn[2] = {seat_planes(s, n, dim), seat_planes(s, n, dim)};
    struct planes ffn[2] = {seat_planes(s, n, dim), seat_planes(s, n, dim)};
    struct span all = {0, n};
    for (int call = 0; call < (s->job->arg ? 400 : 4000) && !wrong; call++)
        for (int w = 0; w < 2; w++) {
            if (call)
                comm_sum_end(&s->c, &sum[w], call & 1 ? &attn[w] : &ffn[w]);
            if (call)
                wrong += wrong_in(s, &sum[w], all, 2 * (call - 1) + w);
            fill_planes(s, call & 1 ? &ffn[w] : &attn[w], 2 * call + w);
            seat_dawdle(s);
            comm_sum_begin(&s->c);
        }
    return wrong + (s->c.err != 0);
}

static void sums_may_be_on_their_way_two_at_a_time(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct job j = {.run = two_waves,
                        .size = k < 2 ? 2 : 3,
                        .peer_bytes = 4 << 20,
                        .spins = SPINS,
                        .arg = k & 1 ? "two shots with three ranks" : NULL};
        cut_up(&j, 8, 0);
        run_job(&j, THREADS, "waves");
        run_job(&j, PROCESSES, "waves");
    }
}

static void more_ranks_than_cores_get_on(void **state)
{
    const struct lengths l = {5, {3, 64, 1000, 2000, 5000}};
    (void)state;
    struct job j = {.run = sum_each_length,
                    .size = SHARES_MAX,
                    .peer_bytes = room_for(&l),
                    .spins = 20,
                    .arg = &l};
    cut_up(&j, SHARES_MAX, 0);
    run_job(&j, THREADS, "crowd");
    run_job(&j, PROCESSES, "crowd");
}

/* ------------------------------------------------------------------------------- all */

static int sum_outside(struct seat *s)
{
    struct mat to = {1, 16, NUM_F32, NULL};
    struct planes from = seat_planes(s, 1, 16);
    float elsewhere[16];
    from.at[0].at = s->rank ? from.at[0].at : elsewhere;
    to.at = s->peer.base;
    fclose(stderr); /* must() complains there, as it should */
    comm_sum(&s->c, &to, &from);
    return 0;
}

static void a_mat_outside_the_arena_is_a_bug(void **state)
{
    struct job j = {.run = sum_outside, .size = 2, .peer_bytes = 4096, .spins = SPINS};
    pid_t pid;
    int status;
    (void)state;
    cut_up(&j, 8, 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        struct table table = {.stop = 1};
        struct seat s = {.job = &j,
                         .table = &table,
                         .state = shared_get(comm_shm_bytes(2, 0)),
                         .arenas = shared_get(2 * 4096)};
        seat_main(&s);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_sum_to_the_bits_of_one_rank),
        cmocka_unit_test(processes_sum_to_the_bits_of_one_rank),
        cmocka_unit_test(one_and_two_shots_give_the_same_bits),
        cmocka_unit_test(a_group_of_one_leaves_its_plane_alone),
        cmocka_unit_test(scatter_sum_and_gather_make_a_sum),
        cmocka_unit_test(rows_go_to_those_that_need_them_and_back),
        cmocka_unit_test(merge_keeps_every_bit_of_the_only_owner),
        cmocka_unit_test(join_puts_columns_side_by_side_at_rank_0_only),
        cmocka_unit_test(nobody_reads_what_was_already_overwritten),
        cmocka_unit_test(sums_may_be_on_their_way_two_at_a_time),
        cmocka_unit_test(more_ranks_than_cores_get_on),
        cmocka_unit_test(a_mat_outside_the_arena_is_a_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
