/* test_packed.c - packed weights give the bits of loaded ones, in every layout, and damage is seen.
 */
#include "run/load.h"
#include "run/packed.h"
#include "tiny.h"

#include <unistd.h>

enum { TOKENS = 20 };

static struct model model(void)
{
    struct model m = {.arch = "LlamaForCausalLM",
                      .n_layer = 2,
                      .n_embd = 96,
                      .n_head = 6,
                      .n_kv = 2,
                      .head_dim = 16,
                      .n_ff = 300,
                      .n_vocab = 200,
                      .n_ctx = 64,
                      .eps = 1e-5f,
                      .kind = {{.rope = {.theta = 10000}}}};
    return m;
}

static struct plan plan_of(const struct model *m, int tp, int pp, enum num type)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .pp = pp,
                           .shares = 8,
                           .ctx = 64,
                           .max_tok = TOKENS,
                           .weight = type,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    p.max_out = TOKENS;
    return p;
}

/* Pack the tiny model into the folder. */
static void pack(const char *folder, const struct plan *p, const struct tiny *t)
{
    struct weights whole;
    struct arena tables = {0}, data = {0};
    struct pool pool = {0};
    struct load *list;
    struct err e;
    _Atomic uint64_t done = 0;
    weights_lay_out(&whole, p, PLAN_WHOLE, &tables, &data);
    tables = (struct arena){.base = aligned_alloc(64, tables.used), .size = tables.used};
    data = (struct arena){.base = aligned_alloc(64, data.used), .size = data.used};
    weights_lay_out(&whole, p, PLAN_WHOLE, &tables, &data);
    assert_int_equal(load_list(&list, p, &whole, t->store, &pool, &e), 0);
    assert_int_equal(load_all(list, 2, &done, &e), 0);
    if (packed_write(folder, p, data.base, data.size, &e))
        fail_msg("%s", e.text);
    pool_free(&pool);
    free(tables.base);
    free(data.base);
}

static float *logits(const struct plan *p, const struct store *s, const struct packed *f)
{
    static const int ids[TOKENS] = {1,   2, 3, 150, 17, 8, 9, 10, 11, 12,
                                    199, 0, 5, 5,   5,  6, 7, 8,  9,  1};
    struct team_opts opts = {.isa = ISA_REF, .packed = f, .keep_logits = true};
    struct team *team;
    struct err e;
    float *to = malloc((size_t)TOKENS * (size_t)p->model.n_vocab * sizeof(*to));
    if (team_start(&team, p, s, &opts, &e))
        fail_msg("%s", e.text);
    struct session *session = session_new(team, p);
    assert_int_equal(session_logits(session, ids, TOKENS, to, &e), 0);
    session_free(session);
    team_stop(team);
    return to;
}

static char *new_folder(void)
{
    static char path[64];
    snprintf(path, sizeof(path), "/tmp/tandem-pack-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static void remove_folder(const char *folder)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/" PACKED_FILE, folder);
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
}

static void packed_weights_give_the_bits_of_loaded_ones(void **state)
{
    static const enum num type[] = {NUM_F32, NUM_BF16, NUM_INT8, NUM_INT4};
    static const int layout[][2] = {{1, 1}, {3, 1}, {2, 2}};
    struct model m = model();
    (void)state;
    struct tiny t = tiny_make(&m, NUM_F32, 3);
    char *folder = new_folder();
    for (size_t i = 0; i < COUNT(type); i++) {
        struct plan one = plan_of(&m, 1, 1, type[i]);
        struct packed *f;
        struct err e;
        pack(folder, &one, &t);
        if (packed_open(folder, &f, &e))
            fail_msg("%s", e.text);
        assert_int_equal(f->weight, type[i]);
        float *want = logits(&one, t.store, NULL);
        for (size_t k = 0; k < COUNT(layout); k++) {
            struct plan p = plan_of(&m, layout[k][0], layout[k][1], type[i]);
            float *got = logits(&p, NULL, f);
            assert_memory_equal(got, want, sizeof(float) * TOKENS * (size_t)m.n_vocab);
            free(got);
        }
        free(want);
        packed_close(f);
    }
    remove_folder(folder);
    tiny_free(&t);
}

static void expect_refusal(const struct packed *f, const struct plan *p, const char *words)
{
    struct err e = {""};
    assert_true(packed_check(f, p, &e) < 0);
    if (!strstr(e.text, words))
        fail_msg("\"%s\" does not say \"%s\"", e.text, words);
}

static void what_was_packed_for_something_else_is_refused(void **state)
{
    struct model m = model(), other = model();
    struct packed *f;
    struct err e;
    (void)state;
    struct tiny t = tiny_make(&m, NUM_F32, 3);
    char *folder = new_folder();
    struct plan p = plan_of(&m, 2, 1, NUM_INT8), q = p;
    pack(folder, &p, &t);
    assert_int_equal(packed_open(folder, &f, &e), 0);
    assert_int_equal(packed_check(f, &p, &e), 0);
    q.weight = NUM_INT4;
    expect_refusal(f, &q, "packed as int8, not int4");
    q = p, q.shares = 16;
    expect_refusal(f, &q, "8 shares, not 16");
    other.n_ff = 320;
    q = plan_of(&other, 2, 1, NUM_INT8);
    expect_refusal(f, &q, "another config.json");
    packed_close(f);
    remove_folder(folder);
    assert_int_equal(packed_open("/nonexistent", &f, &e), -ENOENT);
    tiny_free(&t);
}

/* Change one byte, or the length; open and map. Returns the first error. */
static int damaged(const char *folder, long at, bool cut, struct err *e)
{
    char path[128], *data;
    struct packed *f;
    _Atomic uint64_t done = 0;
    snprintf(path, sizeof(path), "%s/" PACKED_FILE, folder);
    FILE *file = fopen(path, "r+");
    fseek(file, at, at < 0 ? SEEK_END : SEEK_SET);
    int byte = fgetc(file);
    fseek(file, at, at < 0 ? SEEK_END : SEEK_SET);
    long size = ftell(file);
    fputc(byte ^ 1, file);
    fclose(file);
    if (cut)
        assert_int_equal(truncate(path, size), 0);
    int rc = packed_open(folder, &f, e);
    if (!rc)
        rc = packed_map(f, 2, &done, &data, e);
    packed_close(rc && !f ? NULL : f);
    return rc;
}

static void damage_is_seen_before_a_word_is_said(void **state)
{
    struct model m = model();
    (void)state;
    struct tiny t = tiny_make(&m, NUM_F32, 3);
    char *folder = new_folder();
    struct plan p = plan_of(&m, 1, 1, NUM_BF16);
    static const struct {
        long at;
        bool cut;
        const char *words;
    } damage[] = {{0, false, "not packed weights"},
                  {9, false, "makes no sense"},
                  {17, false, "header is damaged"},
                  {-1, false, "is damaged"},
                  {(2 << 20) + 5, false, "is damaged"},
                  {-9, true, "cut short"},
                  {30, true, "short"}};
    for (size_t i = 0; i < COUNT(damage); i++) {
        struct err e = {""};
        pack(folder, &p, &t);
        assert_true(damaged(folder, damage[i].at, damage[i].cut, &e) < 0);
        if (!strstr(e.text, damage[i].words))
            fail_msg("%ld: \"%s\" does not say \"%s\"", damage[i].at, e.text, damage[i].words);
    }
    remove_folder(folder);
    tiny_free(&t);
}

static void a_tensor_that_holds_no_numbers_is_named(void **state)
{
    struct model m = model();
    struct err e = {""};
    struct team *team;
    struct team_opts opts = {.isa = ISA_REF};
    (void)state;
    struct tiny t = tiny_make(&m, NUM_F32, 3);
    struct tensor bad;
    struct plan p = plan_of(&m, 1, 1, NUM_INT4);
    assert_int_equal(store_find(t.store, "model.layers.1.mlp.up_proj.weight", 300, 96, &bad, &e),
                     0);
    float nan = __builtin_nanf("");
    memcpy((char *)(uintptr_t)bad.data + 4 * 777, &nan, sizeof(nan));
    assert_true(team_start(&team, &p, t.store, &opts, &e) < 0);
    assert_non_null(strstr(e.text, "model.layers.1.mlp.up_proj.weight"));
    assert_non_null(strstr(e.text, "int4"));
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_weights_give_the_bits_of_loaded_ones),
        cmocka_unit_test(what_was_packed_for_something_else_is_refused),
        cmocka_unit_test(damage_is_seen_before_a_word_is_said),
        cmocka_unit_test(a_tensor_that_holds_no_numbers_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
