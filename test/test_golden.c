/* test_golden.c - a real trained model against golden logits and greedy continuations, and memory
 * as planned. Needs the shared test data; skips without. */
#include "base/json.h"
#include "model/folder.h"
#include "process.h"
#include "tiny.h"

#include <math.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static const char *model_folder(const char *name)
{
    static char path[512];
    char config[600];
    snprintf(path, sizeof(path), "%s/data/models/%s", shared_data(), name);
    snprintf(config, sizeof(config), "%s/config.json", path);
    if (access(config, R_OK)) {
        print_message("skipped: no shared test data at %s\n", path);
        skip();
    }
    return path;
}

static struct plan plan_for(const struct model *m, int tp, int pp, bool sp, int chunk)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .pp = pp,
                           .sp = sp,
                           .ctx = 256,
                           .max_tok = chunk,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    return p;
}

static void load(const char *folder, struct model *m, struct store **s)
{
    struct generation g;
    struct notes notes;
    struct err e;
    if (model_load(folder, m, &g, &notes, &e) || store_open(folder, s, &e))
        fail_msg("%s", e.text);
}

/* The golden file's own tensors are read with the same store: one more real file. */
static void check_logits(const char *name, const char *golden_of)
{
    struct model m;
    struct store *s, *golden;
    struct tensor want;
    struct err e;
    char path[600];
    load(model_folder(name), &m, &s);
    snprintf(path, sizeof(path), "%s/golden.safetensors", model_folder(golden_of));
    char *bytes;
    size_t n;
    if (file_read(path, 1 << 24, &bytes, &n, &e) || store_open_bytes(bytes, n, path, &golden, &e) ||
        store_find(golden, "logits", 64, m.n_vocab, &want, &e))
        fail_msg("%s", e.text);
    int ids[64];
    for (int i = 0; i < store_count(golden); i++)
        if (!strcmp(store_at(golden, i)->name, "tokens")) {
            const struct tensor *t = store_at(golden, i);
            for (int k = 0; k < 64; k++)
                if (t->bytes == 64 * sizeof(int64_t))
                    ids[k] = (int)((const int64_t *)t->data)[k];
                else
                    ids[k] = ((const int32_t *)t->data)[k];
        }
    struct plan p = plan_for(&m, 2, 2, false, 16);
    p.max_out = 16;
    float *got = tiny_logits(&p, s, isa_best(), ids, 64);
    double worst = 0;
    for (size_t i = 0; i < 64 * (size_t)m.n_vocab; i++) {
        float w;
        memcpy(&w, (const char *)want.data + i * sizeof(w), sizeof(w));
        worst = fmax(worst, fabs((double)(got[i] - w)));
    }
    print_message("%s: largest difference of 64 x %d logits: %.2g\n", name, m.n_vocab, worst);
    assert_true(worst <= 1e-3);
    free(got);
    store_close(golden);
    free(bytes);
    store_close(s);
}

static void logits_of_a_trained_model_are_golden(void **state)
{
    (void)state;
    check_logits("stories260K-hf", "stories260K-hf");
    check_logits("stories260K-sharded-hf", "stories260K-hf");
    check_logits("stories260K-bf16-hf", "stories260K-bf16-hf");
    check_logits("stories260K-moe8-hf", "stories260K-moe8-hf");
}

/* The golden choices of token t in a layer, best first. */
static void choices_of(const struct store *golden, int layer, int t, int *to)
{
    char name[32];
    snprintf(name, sizeof(name), "experts.%d", layer);
    for (int i = 0; i < store_count(golden); i++)
        if (!strcmp(store_at(golden, i)->name, name))
            memcpy(to, (const char *)store_at(golden, i)->data + (size_t)t * 2 * sizeof(int),
                   2 * sizeof(int));
}

/* Rows are counted by expert: what t + 1 tokens count beyond t tokens is token t's choice. */
static void chosen_experts_of_a_trained_mixture_are_golden(void **state)
{
    enum { TOKENS = 64, LAYERS = 5, EXPERTS = 8 };
    static const char mixture[] = "stories260K-moe8-hf";
    static float logits[TOKENS * 512];
    struct model m;
    struct store *s, *golden;
    struct team *team;
    struct err e;
    struct team_opts opts = {.isa = isa_best(), .keep_logits = true};
    uint64_t last[LAYERS][EXPERTS] = {{0}}, before[LAYERS][EXPERTS] = {{0}};
    char path[600], *bytes;
    size_t n;
    int ids[TOKENS];
    (void)state;
    load(model_folder(mixture), &m, &s);
    snprintf(path, sizeof(path), "%s/golden.safetensors", model_folder(mixture));
    if (file_read(path, 1 << 24, &bytes, &n, &e) || store_open_bytes(bytes, n, path, &golden, &e))
        fail_msg("%s", e.text);
    assert_true(m.n_layer == LAYERS && m.experts.n == EXPERTS && m.n_vocab == 512);
    for (int i = 0; i < store_count(golden); i++)
        if (!strcmp(store_at(golden, i)->name, "tokens"))
            memcpy(ids, store_at(golden, i)->data, sizeof(ids));
    struct plan p = plan_for(&m, 2, 2, false, TOKENS);
    p.max_out = TOKENS;
    if (team_start(&team, &p, s, &opts, &e))
        fail_msg("%s", e.text);
    for (int t = 0; t < TOKENS; t++) {
        uint64_t rows[LAYERS][EXPERTS];
        struct turn_load turns[LAYERS];
        struct session *session = session_new(team, &p);
        if (session_logits(session, ids, t + 1, logits, &e))
            fail_msg("%s", e.text);
        session_free(session);
        team_loads(team, &rows[0][0], turns);
        for (int l = 0; l < LAYERS; l++) {
            int want[2] = {-1, -1};
            choices_of(golden, l, t, want);
            for (int x = 0; x < EXPERTS; x++) {
                uint64_t count = rows[l][x] - last[l][x], chosen = x == want[0] || x == want[1];
                if (count - before[l][x] != chosen)
                    fail_msg("token %d, layer %d: expert %d", t, l, x);
                before[l][x] = count;
                last[l][x] = rows[l][x];
            }
        }
    }
    team_stop(team);
    store_close(golden);
    free(bytes);
    store_close(s);
}

struct heard {
    int id[256], n, most;
};

static bool hear(void *arg, int token)
{
    struct heard *h = arg;
    h->id[h->n++] = token;
    return h->n < h->most;
}

static int ints_of(const json_t *list, int *to, int most)
{
    int n = (int)json_array_size(list);
    assert_true(n <= most);
    for (int i = 0; i < n; i++)
        to[i] = (int)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

static void tell(const char *name, int tp, int pp, bool sp, int chunk)
{
    struct model m;
    struct store *s;
    struct team *team = NULL;
    struct err e;
    char path[600];
    load(model_folder(name), &m, &s);
    snprintf(path, sizeof(path), "%s/golden.json", model_folder(name));
    json_t *golden = json_file(path, 1 << 24, NULL, &e);
    struct plan p = plan_for(&m, tp, pp, sp, chunk);
    struct team_opts opts = {.isa = isa_best()};
    if (team_start(&team, &p, s, &opts, &e))
        fail_msg("%s", e.text);
    struct session *session = session_new(team, &p);
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(golden, "cases"), i, one)
    {
        int prompt[256], want[256];
        struct session_stats stats;
        int n = ints_of(json_object_get(one, "prompt_ids"), prompt, 256);
        struct heard h = {.most = ints_of(json_object_get(one, "greedy_ids"), want, 256)};
        if (session_run(session, prompt, n, h.most, &sampling_greedy, hear, &h, &stats, &e))
            fail_msg("%s", e.text);
        assert_int_equal(h.n, h.most);
        assert_memory_equal(h.id, want, (size_t)h.n * sizeof(int));
    }
    assert_true(i > 0);
    session_free(session);
    team_stop(team);
    json_decref(golden);
    store_close(s);
}

static void the_story_is_the_same_in_every_layout(void **state)
{
    static const int layout[][4] = {{1, 1, 0, 64}, {2, 1, 0, 64}, {3, 1, 0, 5}, {4, 2, 1, 16},
                                    {5, 1, 0, 64}, {8, 3, 0, 3},  {1, 5, 0, 4}};
    (void)state;
    for (size_t i = 0; i < COUNT(layout); i++)
        tell("stories260K-hf", layout[i][0], layout[i][1], layout[i][2], layout[i][3]);
    for (size_t i = 0; i < COUNT(layout); i++)
        tell("stories260K-moe8-hf", layout[i][0], layout[i][1], layout[i][2], layout[i][3]);
    tell("stories260K-bf16-hf", 3, 2, false, 16);
}

static void memory_is_as_planned_to_the_byte(void **state)
{
    struct model m;
    struct store *s;
    (void)state;
    load(model_folder("stories260K-hf"), &m, &s);
    for (int tp = 1; tp <= 8; tp++) {
        struct plan p = plan_for(&m, tp, 1 + tp % 3, tp % 2, 32);
        struct team *team;
        struct err e;
        struct team_memory host;
        struct rank_memory rank[PLAN_RANKS];
        struct team_opts opts = {.isa = isa_best()};
        if (team_start(&team, &p, s, &opts, &e))
            fail_msg("%s", e.text);
        team_memory(team, &host, rank);
        assert_int_equal(host.weights, plan_weight_bytes(&p, PLAN_WHOLE));
        assert_int_equal(host.kv, plan_kv_bytes(&p, PLAN_WHOLE));
        for (int r = 0; r < plan_ranks(&p); r++) {
            assert_int_equal(rank[r].weights, plan_weight_bytes(&p, r));
            assert_true(rank[r].pid > 0);
        }
        team_stop(team);
    }
    store_close(s);
}

static void a_killed_keeper_is_one_clear_error_and_leaves_nothing(void **state)
{
    struct model m;
    struct store *s;
    struct team *team = NULL;
    struct err e;
    struct rank_memory rank[PLAN_RANKS];
    struct team_memory host;
    struct team_opts opts = {.isa = isa_best()};
    struct session_stats stats;
    struct heard h = {.most = 200};
    int prompt[] = {1, 403, 407};
    (void)state;
    load(model_folder("stories260K-hf"), &m, &s);
    struct plan p = plan_for(&m, 2, 1, false, 32);
    assert_int_equal(team_start(&team, &p, s, &opts, &e), 0);
    team_memory(team, &host, rank);
    assert_int_equal(kill(parent_of(rank[1].pid), SIGKILL), 0);
    struct session *session = session_new(team, &p);
    int rc = session_run(session, prompt, 3, 200, &sampling_greedy, hear, &h, &stats, &e);
    assert_int_equal(rc, -EIO);
    assert_non_null(strstr(e.text, "the keeper process has died"));
    session_free(session);
    team_stop(team);
    for (int r = 0; r < 2; r++)
        while (lives(rank[r].pid)) /* the kernel ends them with the keeper */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_a_trained_model_are_golden),
        cmocka_unit_test(chosen_experts_of_a_trained_mixture_are_golden),
        cmocka_unit_test(the_story_is_the_same_in_every_layout),
        cmocka_unit_test(memory_is_as_planned_to_the_byte),
        cmocka_unit_test(a_killed_keeper_is_one_clear_error_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
