/* test_layouts.c - the same bits in every layout: tp, pp, sp, uneven cuts, chunks, neighbours. */
#include "run/rank.h"
#include "tiny.h"

enum { TOKENS = 40 };

/* What families add to the plain shape: biases, windows shorter than the prompt, norms on heads. */
static struct model llama3_scaled(void)
{
    struct model m = tiny_llama(3);
    m.tied = true;
    m.mlp_bias = m.qkv_bias = m.o_bias = true;
    m.kind[0].rope = (struct rope){.scaling = ROPE_LLAMA3,
                                   .theta = 5e5f,
                                   .factor = 8,
                                   .low_freq = 1,
                                   .high_freq = 4,
                                   .original_ctx = 32};
    return m;
}

static struct model mistral(void)
{
    struct model m = tiny_llama(3);
    snprintf(m.arch, sizeof(m.arch), "MistralForCausalLM");
    m.kind[1].window = 17;
    memset(m.kind_of, 1, sizeof(m.kind_of));
    return m;
}

static struct model qwen2(void)
{
    struct model m = tiny_llama(3);
    snprintf(m.arch, sizeof(m.arch), "Qwen2ForCausalLM");
    m.qkv_bias = m.tied = true;
    m.n_head = 14;
    m.head_dim = 8;
    m.kind[1].window = 9;
    m.kind_of[2] = 1;
    return m;
}

static struct model qwen3(void)
{
    struct model m = tiny_llama(3);
    snprintf(m.arch, sizeof(m.arch), "Qwen3ForCausalLM");
    m.qk_norm = true;
    m.n_head = 10;
    m.n_kv = 5;
    m.head_dim = 20;
    m.kind[0].rope = (struct rope){.scaling = ROPE_YARN,
                                   .theta = 1e6f,
                                   .factor = 4,
                                   .beta_fast = 32,
                                   .beta_slow = 1,
                                   .attention = 1.1386f,
                                   .original_ctx = 32,
                                   .truncate = true};
    return m;
}

/* Awkward too: experts that no power of two divides, and more of them chosen than a row block. */
static struct model mixtral(void)
{
    struct model m = tiny_llama(3);
    snprintf(m.arch, sizeof(m.arch), "MixtralForCausalLM");
    m.experts = (struct experts){.n = 5, .top = 2, .ff = 100, .renorm = true, .numbered = true};
    return m;
}

/* A shared expert wider than the others behind a gate, a dense layer between. */
static struct model qwen2_moe(void)
{
    struct model m = qwen2();
    snprintf(m.arch, sizeof(m.arch), "Qwen2MoeForCausalLM");
    m.experts = (struct experts){.n = 7, .top = 3, .ff = 36, .shared_ff = 90, .shared_gate = true};
    m.kind[3] = m.kind[0];
    m.kind[3].dense = true;
    m.kind_of[1] = 3;
    return m;
}

static struct model qwen3_moe(void)
{
    struct model m = qwen3();
    snprintf(m.arch, sizeof(m.arch), "Qwen3MoeForCausalLM");
    m.experts = (struct experts){.n = 16, .top = 8, .ff = 40, .renorm = true};
    return m;
}

/* Norms over whole rows of q and k; ranks that share a key-value head, and clipped numbers. */
static struct model olmoe(void)
{
    struct model m = tiny_llama(3);
    snprintf(m.arch, sizeof(m.arch), "OlmoeForCausalLM");
    m.qk_norm = m.qk_row = true;
    m.n_head = 10;
    m.n_kv = 5;
    m.clip = 0.7f;
    m.experts = (struct experts){.n = 9, .top = 4, .ff = 33};
    return m;
}

static struct plan plan_of(const struct model *m, int tp, int pp, bool sp, int chunk, enum num type,
                           enum isa isa)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .pp = pp,
                           .sp = sp,
                           .shares = 8,
                           .ctx = 64,
                           .max_tok = chunk,
                           .weight = type,
                           .kv = type == NUM_BF16 ? NUM_BF16 : NUM_F32,
                           .numerics = isa_numerics(isa, type)};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("tp=%d pp=%d: %s", tp, pp, e.text);
    p.max_out = chunk;
    return p;
}

static void fill_ids(int *ids, int n, int n_vocab)
{
    for (int i = 0; i < n; i++)
        ids[i] = (i * 37 + 11) % n_vocab;
}

static void expect_same(const struct plan *p, const struct tiny *t, enum isa isa, const int *ids,
                        const float *want, const char *what)
{
    float *got = tiny_logits(p, t->store, isa, ids, TOKENS);
    size_t n = (size_t)TOKENS * (size_t)p->model.n_vocab, differ = 0;
    for (size_t i = 0; i < n; i++)
        differ += memcmp(&got[i], &want[i], sizeof(float)) != 0;
    if (differ)
        fail_msg("%s tp=%d pp=%d sp=%d chunk=%d: %zu of %zu logits differ from one rank's", what,
                 p->tp, p->pp, p->sp, p->max_tok, differ, n);
    free(got);
}

/* All layouts of a model against one rank that takes the prompt in one piece. */
static void sweep(const struct model *m, enum num type, enum num kv, enum isa isa,
                  const int (*layout)[4], size_t n, const char *what)
{
    int ids[TOKENS];
    struct tiny t = tiny_make(m, num_is_float(type) ? type : NUM_F32, 7);
    fill_ids(ids, TOKENS, m->n_vocab);
    struct plan one = plan_of(m, 1, 1, false, TOKENS, type, isa);
    one.kv = kv;
    float *want = tiny_logits(&one, t.store, isa, ids, TOKENS);
    for (size_t i = 0; i < n; i++) {
        struct plan p =
            plan_of(m, layout[i][0], layout[i][1], layout[i][2], layout[i][3], type, isa);
        p.kv = kv;
        expect_same(&p, &t, isa, ids, want, what);
    }
    free(want);
    tiny_free(&t);
}

static const int every[][4] = {/* tp, pp, sp, chunk */
                               {2, 1, 0, 40}, {3, 1, 0, 40}, {4, 1, 0, 40}, {5, 1, 0, 40},
                               {8, 1, 0, 40}, {1, 2, 0, 40}, {1, 3, 0, 40}, {2, 2, 0, 7},
                               {3, 2, 0, 16}, {4, 3, 0, 13}, {5, 3, 0, 1},  {8, 2, 0, 5},
                               {2, 1, 1, 40}, {3, 1, 1, 7},  {4, 2, 1, 16}, {5, 1, 1, 3},
                               {8, 1, 1, 40}, {1, 1, 0, 1},  {1, 1, 0, 7},  {7, 1, 0, 40},
                               {6, 1, 1, 11}};

static const int few[][4] = {{2, 1, 0, 40}, {3, 2, 0, 7}, {5, 1, 1, 16}, {8, 3, 0, 40}};

static void every_layout_gives_the_bits_of_one_rank(void **state)
{
    struct model m = tiny_llama(3);
    (void)state;
    sweep(&m, NUM_F32, NUM_F32, isa_best(), every, COUNT(every), "llama f32");
}

static void every_architecture_gives_the_same_bits(void **state)
{
    struct model m[] = {llama3_scaled(), mistral(),   qwen2(),     qwen3(),
                        mixtral(),       qwen2_moe(), qwen3_moe(), olmoe()};
    (void)state;
    for (size_t i = 0; i < COUNT(m); i++)
        sweep(&m[i], NUM_F32, NUM_F32, isa_best(), few, COUNT(few), m[i].arch);
}

static void experts_give_the_bits_of_one_rank_in_every_layout(void **state)
{
    struct model m = qwen2_moe();
    (void)state;
    sweep(&m, NUM_F32, NUM_F32, isa_best(), every, COUNT(every), "qwen2-moe f32");
    m = olmoe();
    sweep(&m, NUM_F32, NUM_F32, isa_best(), every, COUNT(every), "olmoe f32");
}

/* Whole experts on runs of ranks: ep 1 to 8, uneven numbers of them, columns cut inside a run, rows
 * that stay with their ranks (sp) and go only where they are needed, stages, single rows. */
static const int runs[][5] = {/* tp, ep, pp, sp, chunk */
                              {2, 2, 1, 0, 40}, {4, 4, 1, 0, 40}, {8, 8, 1, 0, 7},
                              {8, 2, 2, 0, 16}, {3, 3, 1, 0, 11}, {6, 3, 2, 0, 40},
                              {2, 2, 1, 1, 40}, {4, 2, 1, 1, 7},  {3, 3, 1, 1, 1},
                              {8, 4, 1, 1, 40}, {8, 8, 2, 1, 5},  {6, 3, 1, 1, 13},
                              {5, 5, 3, 1, 40}, {6, 2, 3, 0, 1}};

static void sweep_runs(const struct model *m, enum num type, const char *what)
{
    int ids[TOKENS], n = 0;
    struct tiny t = tiny_make(m, NUM_F32, 23);
    fill_ids(ids, TOKENS, m->n_vocab);
    struct plan one = plan_of(m, 1, 1, false, TOKENS, type, isa_best());
    float *want = tiny_logits(&one, t.store, isa_best(), ids, TOKENS);
    for (size_t i = 0; i < COUNT(runs); i++) {
        const int *l = runs[i];
        struct err e;
        struct plan p = plan_of(m, l[0], l[2], l[3], l[4], type, isa_best());
        p.ep = l[1];
        if (p.ep > m->experts.n)
            continue;
        if (plan_check(&p, &e))
            fail_msg("%s", e.text);
        expect_same(&p, &t, isa_best(), ids, want, what);
        n++;
    }
    assert_true(n >= 12);
    free(want);
    tiny_free(&t);
}

static void whole_experts_give_the_bits_of_one_rank(void **state)
{
    struct model five = mixtral(), shared = qwen2_moe(), many = qwen3_moe(), eight = mixtral();
    eight.experts.n = 8; /* three runs of 3, 3 and 2 */
    (void)state;
    sweep_runs(&five, NUM_F32, "mixtral ep");
    five = olmoe();
    sweep_runs(&five, NUM_F32, "olmoe ep");
    sweep_runs(&shared, NUM_F32, "shared expert ep");
    sweep_runs(&many, NUM_INT8, "qwen3-moe int8 ep");
    sweep_runs(&eight, NUM_INT4, "8 experts int4 ep");
}

static void every_format_gives_the_same_bits(void **state)
{
    struct model m = qwen2(), moe = qwen2_moe();
    (void)state;
    sweep(&moe, NUM_BF16, NUM_BF16, isa_best(), few, COUNT(few), "experts bf16");
    sweep(&moe, NUM_INT8, NUM_F32, isa_best(), few, COUNT(few), "experts int8");
    sweep(&moe, NUM_INT4, NUM_F32, isa_best(), few, COUNT(few), "experts int4");
    sweep(&m, NUM_BF16, NUM_BF16, isa_best(), few, COUNT(few), "bf16");
    sweep(&m, NUM_F16, NUM_F32, isa_best(), few, COUNT(few), "f16");
    for (int type = NUM_INT8; type < NUM_COUNT; type++)
        sweep(&m, (enum num)type, NUM_F32, isa_best(), few, COUNT(few), num_name((enum num)type));
}

static void an_int8_cache_gives_the_same_bits_in_every_layout(void **state)
{
    struct model m = tiny_llama(3), other[] = {mistral(), qwen2(), qwen3()};
    (void)state;
    sweep(&m, NUM_F32, NUM_INT8, isa_best(), every, COUNT(every), "int8 cache");
    for (size_t i = 0; i < COUNT(other); i++) {
        sweep(&other[i], NUM_BF16, NUM_INT8, isa_best(), few, COUNT(few), other[i].arch);
        sweep(&other[i], NUM_INT4, NUM_INT8, isa_best(), few, COUNT(few), other[i].arch);
    }
}

static void expect_same_on_every_instruction_set(const struct model *m)
{
    static const enum num type[] = {NUM_F32, NUM_INT8, NUM_INT4, NUM_INT4_G32Z, NUM_F32, NUM_INT4};
    static const enum num kv[] = {NUM_F32, NUM_F32, NUM_F32, NUM_F32, NUM_INT8, NUM_INT8};
    int ids[TOKENS];
    fill_ids(ids, TOKENS, m->n_vocab);
    struct tiny t = tiny_make(m, NUM_F32, 3);
    for (size_t i = 0; i < COUNT(type); i++) {
        struct plan p = plan_of(m, 2, 1, false, TOKENS, type[i], ISA_REF);
        p.kv = kv[i];
        float *want = tiny_logits(&p, t.store, ISA_REF, ids, TOKENS);
        for (int isa = ISA_AVX2; isa < ISA_COUNT; isa++)
            if (isa_here((enum isa)isa))
                expect_same(&p, &t, (enum isa)isa, ids, want, isa_name((enum isa)isa));
        free(want);
    }
    tiny_free(&t);
}

static void every_instruction_set_gives_the_same_bits(void **state)
{
    struct model m[] = {qwen3(), qwen2_moe(), olmoe()};
    (void)state;
    for (size_t i = 0; i < COUNT(m); i++)
        expect_same_on_every_instruction_set(&m[i]);
}

static void uneven_cuts_by_hand_give_the_same_bits(void **state)
{
    struct model m = tiny_llama(3);
    int ids[TOKENS];
    struct tiny t = tiny_make(&m, NUM_F32, 5);
    struct err e;
    (void)state;
    fill_ids(ids, TOKENS, m.n_vocab);
    struct plan one = plan_of(&m, 1, 1, false, TOKENS, NUM_F32, isa_best());
    float *want = tiny_logits(&one, t.store, isa_best(), ids, TOKENS);
    struct plan p = plan_of(&m, 3, 2, false, 9, NUM_F32, isa_best());
    p.cut[1] = 1, p.cut[2] = 7;
    p.stage[0] = (struct span){0, 2}, p.stage[1] = (struct span){2, 3};
    assert_int_equal(plan_check(&p, &e), 0);
    expect_same(&p, &t, isa_best(), ids, want, "uneven");
    free(want);
    tiny_free(&t);
}

/* Sixteen and thirty-two shares are other sums, each the same on any number of ranks. */
static void more_shares_keep_the_promise(void **state)
{
    struct model m = tiny_llama(3);
    int ids[TOKENS];
    struct tiny t = tiny_make(&m, NUM_F32, 9);
    (void)state;
    m.n_head = 16, m.n_kv = 4, m.head_dim = 4;
    tiny_free(&t);
    t = tiny_make(&m, NUM_F32, 9);
    fill_ids(ids, TOKENS, m.n_vocab);
    for (int shares = 16; shares <= 32; shares *= 2) {
        struct plan_ask ask = {.shares = shares,
                               .ctx = 64,
                               .max_tok = TOKENS,
                               .weight = NUM_F32,
                               .kv = NUM_F32,
                               .numerics = "f32-fma"};
        struct plan p;
        struct err e;
        float *want = NULL;
        for (int tp = 1; tp <= 16; tp = tp == 1 ? 3 : tp * 2 - 1) {
            ask.tp = tp;
            if (plan_make(&p, &m, &ask, &e))
                fail_msg("%s", e.text);
            p.max_out = TOKENS;
            if (!want)
                want = tiny_logits(&p, t.store, isa_best(), ids, TOKENS);
            expect_same(&p, &t, isa_best(), ids, want, "shares");
        }
        free(want);
    }
    tiny_free(&t);
}

/* A sequence gives the same logits alone and among others in one step. */
static void expect_neighbours_change_nothing(struct model m, enum num kv)
{
    enum { A = 21, B = 13, STRIDE = 4 };
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = plan_of(&m, 3, 1, false, 64, NUM_F32, isa_best());
    struct team *team = NULL;
    struct err e;
    struct team_opts opts = {.isa = isa_best(), .keep_logits = true};
    int ids[A + B], pos[A + B], slot[A + B], seq[A + B], out[A + B];
    int page[2 * STRIDE] = {3, 1, 2, 0, 6, 4, 5, 7};
    struct draw draw[A + B];
    struct team_result result;

    p.max_seq = 2, p.pages = 8, p.max_out = 64, p.kv = kv;
    for (int i = 0; i < A + B; i++) {
        seq[i] = i >= A;
        pos[i] = seq[i] ? i - A : i;
        ids[i] = (i * 53 + 5) % m.n_vocab;
        slot[i] = page[seq[i] * STRIDE + pos[i] / KV_PAGE] * KV_PAGE + pos[i] % KV_PAGE;
        out[i] = i;
        draw[i] = (struct draw){.sampling = sampling_greedy};
    }
    struct batch b = {A + B, 2, A + B, ids, pos, slot, seq, page, STRIDE, out, NULL, NULL};
    if (team_start(&team, &p, t.store, &opts, &e))
        fail_msg("%s", e.text);
    int64_t step = team_submit(team, &b, draw, &e);
    assert_true(step > 0);
    if (team_wait(team, step, &result, &e))
        fail_msg("%s", e.text);
    float *alone = tiny_logits(&p, t.store, isa_best(), ids, A);
    assert_memory_equal(result.logits, alone, A * (size_t)m.n_vocab * sizeof(float));
    free(alone);
    alone = tiny_logits(&p, t.store, isa_best(), ids + A, B);
    assert_memory_equal(result.logits + A * (size_t)m.n_vocab, alone,
                        B * (size_t)m.n_vocab * sizeof(float));
    free(alone);
    team_stop(team);
    tiny_free(&t);
}

/* Large steps of cut layers go in two waves (run/rank.h), small ones and one rank's do not. */
static void expect_waves_change_no_bit(struct model m)
{
    enum { LONG = WAVES_FROM + 77 };
    static const int layout[][3] = {/* tp, pp, chunk */
                                    {2, 1, LONG},
                                    {3, 1, WAVES_FROM},
                                    {8, 1, LONG},
                                    {2, 2, LONG}};
    static const enum num type[] = {NUM_F32, NUM_INT8};
    int ids[LONG];
    m.n_ctx = LONG + KV_PAGE;
    fill_ids(ids, LONG, m.n_vocab);
    struct tiny t = tiny_make(&m, NUM_F32, 17);
    for (size_t i = 0; i < COUNT(type); i++) {
        float *want = NULL;
        for (size_t k = 0; k <= COUNT(layout); k++) {
            bool one = k == 0;
            struct plan p = plan_of(&m, one ? 1 : layout[k - 1][0], one ? 1 : layout[k - 1][1],
                                    false, one ? LONG : layout[k - 1][2], type[i], isa_best());
            p.ctx = m.n_ctx, p.pages = m.n_ctx / KV_PAGE + 1;
            assert_int_equal(rank_waves(&p, p.max_tok), one || m.qk_row ? 1 : 2);
            float *got = tiny_logits(&p, t.store, isa_best(), ids, LONG);
            if (!one)
                assert_memory_equal(got, want, LONG * (size_t)m.n_vocab * sizeof(float));
            free(one ? NULL : got);
            want = one ? got : want;
        }
        free(want);
    }
    tiny_free(&t);
}

static void waves_change_no_bit(void **state)
{
    (void)state;
    expect_waves_change_no_bit(mistral());
    expect_waves_change_no_bit(qwen2_moe());
    expect_waves_change_no_bit(olmoe());
}

static void neighbours_in_the_batch_change_nothing(void **state)
{
    (void)state;
    expect_neighbours_change_nothing(mistral(), NUM_F32);
    expect_neighbours_change_nothing(mistral(), NUM_INT8);
    expect_neighbours_change_nothing(qwen2_moe(), NUM_F32);
}

static void expect_threads_change_no_bit(struct model m)
{
    static const enum num type[] = {NUM_F32, NUM_BF16, NUM_INT8, NUM_INT4, NUM_F32, NUM_INT8};
    static const enum num kv[] = {NUM_F32, NUM_BF16, NUM_F32, NUM_F32, NUM_INT8, NUM_INT8};
    static const int layout[][4] = {/* tp, pp, chunk, threads */
                                    {1, 1, TOKENS, 2},
                                    {1, 1, 7, 5},
                                    {3, 1, 16, 2},
                                    {2, 2, 40, 3}};
    int ids[TOKENS];
    fill_ids(ids, TOKENS, m.n_vocab);
    struct tiny t = tiny_make(&m, NUM_F32, 13);
    for (size_t i = 0; i < COUNT(type); i++) {
        struct plan one = plan_of(&m, 1, 1, false, TOKENS, type[i], isa_best());
        one.kv = kv[i];
        float *want = tiny_logits(&one, t.store, isa_best(), ids, TOKENS);
        for (size_t k = 0; k < COUNT(layout); k++) {
            struct plan p =
                plan_of(&m, layout[k][0], layout[k][1], false, layout[k][2], type[i], isa_best());
            p.threads = layout[k][3], p.kv = kv[i];
            expect_same(&p, &t, isa_best(), ids, want, "threads");
        }
        free(want);
    }
    tiny_free(&t);
}

static void threads_of_a_rank_change_no_bit(void **state)
{
    (void)state;
    expect_threads_change_no_bit(qwen2());
    expect_threads_change_no_bit(qwen2_moe());
}

static void teams_side_by_side_stop_in_any_order(void **state)
{
    (void)state;
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = plan_of(&m, 2, 1, false, 16, NUM_F32, ISA_REF);
    for (int first = 0; first < 2; first++) {
        struct team *team[2];
        struct team_opts opts = {.isa = ISA_REF};
        struct err e;
        for (int i = 0; i < 2; i++)
            assert_int_equal(team_start(&team[i], &p, t.store, &opts, &e), 0);
        team_stop(team[first]);
        team_stop(team[!first]);
    }
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_gives_the_bits_of_one_rank),
        cmocka_unit_test(every_architecture_gives_the_same_bits),
        cmocka_unit_test(experts_give_the_bits_of_one_rank_in_every_layout),
        cmocka_unit_test(whole_experts_give_the_bits_of_one_rank),
        cmocka_unit_test(every_format_gives_the_same_bits),
        cmocka_unit_test(an_int8_cache_gives_the_same_bits_in_every_layout),
        cmocka_unit_test(every_instruction_set_gives_the_same_bits),
        cmocka_unit_test(uneven_cuts_by_hand_give_the_same_bits),
        cmocka_unit_test(more_shares_keep_the_promise),
        cmocka_unit_test(waves_change_no_bit),
        cmocka_unit_test(neighbours_in_the_batch_change_nothing),
        cmocka_unit_test(threads_of_a_rank_change_no_bit),
        cmocka_unit_test(teams_side_by_side_stop_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
