/* test_demo.c - the demo model says, on every layout, exactly what it said when it was made. */
#include "base/json.h"
#include "model/folder.h"
#include "text/tok.h"
#include "tiny.h"

struct said {
    int id[512], n, most;
};

static bool hear(void *arg, int token)
{
    struct said *s = arg;
    s->id[s->n++] = token;
    return s->n < s->most;
}

static void answers_are_as_expected_in_every_layout(void **state)
{
    static const int layout[][3] = {{1, 1, 0}, {2, 1, 0}, {3, 2, 0}, {4, 1, 1}, {1, 4, 0}};
    const char *folder = SOURCE_DIR "/models/demo";
    struct model m;
    struct generation g;
    struct notes notes;
    struct store *store;
    struct tok *tok;
    struct err e;
    (void)state;
    if (model_load(folder, &m, &g, &notes, &e) || store_open(folder, &store, &e) ||
        tok_load(folder, &tok, &e))
        fail_msg("%s", e.text);
    json_t *expect = json_file(SOURCE_DIR "/models/demo/expect.json", 1 << 20, NULL, &e);
    for (size_t k = 0; k < COUNT(layout); k++) {
        struct plan p;
        struct plan_ask ask = {.tp = layout[k][0],
                               .pp = layout[k][1],
                               .sp = layout[k][2],
                               .weight = NUM_F32,
                               .kv = NUM_F32,
                               .numerics = "f32-fma"};
        struct team_opts opts = {.isa = isa_best()};
        struct team *team = NULL;
        size_t i, j;
        json_t *one, *id;
        if (plan_make(&p, &m, &ask, &e) || team_start(&team, &p, store, &opts, &e))
            fail_msg("%s", e.text);
        struct session *session = session_new(team, &p);
        json_array_foreach(json_object_get(expect, "cases"), i, one)
        {
            int prompt[256], n = 0;
            const json_t *want = json_object_get(one, "ids");
            struct said s = {.most = (int)json_array_size(want)};
            struct session_stats stats;
            json_array_foreach(json_object_get(one, "prompt_ids"), j, id) prompt[n++] =
                (int)json_integer_value(id);
            if (session_run(session, prompt, n, s.most, &sampling_greedy, hear, &s, &stats, &e))
                fail_msg("%s", e.text);
            char *text = tok_decode(tok, s.id, (size_t)s.n, true);
            assert_string_equal(text, json_string_value(json_object_get(one, "text")));
            free(text);
        }
        assert_true(i > 0);
        session_free(session);
        team_stop(team);
    }
    json_decref(expect);
    tok_free(tok);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers_are_as_expected_in_every_layout)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
