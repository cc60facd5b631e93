/* test_chat.c - chat templates against renderings of Hugging Face and Jinja2, and what hostile
 * templates must not do. Skips what needs Jinja2 or the shared data when these are absent. */
#include "base/json.h"
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW "2025-07-10T12:00:00"

static const char *data(const char *name)
{
    static char path[4][512];
    static int turn;
    char *to = path[turn++ % 4];
    const char *shared = getenv("TANDEM_SHARED");
    snprintf(to, sizeof(path[0]), "%s/data/chat_templates/%s", shared ? shared : "../shared", name);
    if (access(to, R_OK)) {
        print_message("skipped: no shared test data at %s\n", to);
        skip();
    }
    return to;
}

static void need_jinja(void)
{
    struct chat *c;
    struct err e;
    chat_new("x", "", "", &c, &e);
    const char *name = chat_renderer(c, &e);
    bool jinja = name && !strcmp(name, "jinja2");
    chat_free(c);
    if (!jinja) {
        print_message("skipped: %s\n", e.text);
        skip();
    }
}

/* Render variables with the clock of the golden files. */
static int render(const char *template_text, const json_t *variables, const char *bos,
                  const char *eos, char **text, struct err *e)
{
    struct chat *c;
    json_t *o = json_copy((json_t *)variables);
    json_object_set_new(o, "tandem_now", json_string(NOW));
    char *request = json_dumps(o, JSON_COMPACT);
    chat_new(template_text, bos, eos, &c, e);
    int rc = chat_render(c, request, text, e);
    free(request);
    json_decref(o);
    chat_free(c);
    return rc;
}

/* MadeAgents/Hammer2.1 prints a dict with Python's repr, and the reference is JavaScript's: there
 * the reference is inconsistent with transformers itself. */
static void every_case_of_hugging_face_is_met(void **state)
{
    struct err e;
    size_t i;
    json_t *one;
    int wrong = 0, tried = 0;
    (void)state;
    need_jinja();
    json_t *all = json_file(data("hf_cases.json"), 1 << 26, NULL, &e);
    json_array_foreach(json_object_get(all, "cases"), i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *want = json_string_value(json_object_get(one, "target"));
        char *got = NULL;
        if (strstr(name, "Hammer2.1"))
            continue;
        tried++;
        if (render(json_string_value(json_object_get(one, "chat_template")),
                   json_object_get(one, "data"), "", "", &got, &e) ||
            strcmp(got, want)) {
            print_message("%s: %s\n", name, got ? "differs" : e.text);
            wrong++;
        }
        free(got);
    }
    print_message("%d of %d cases equal\n", tried - wrong, tried);
    assert_true(tried > 50);
    assert_int_equal(wrong, 0);
    json_decref(all);
}

static int compare_template(const char *name, const json_t *renderings, const json_t *contexts,
                            int *tried)
{
    const char *context;
    json_t *want;
    struct err e;
    char *text, path[300];
    size_t n;
    int wrong = 0;
    snprintf(path, sizeof(path), "templates/%s", name);
    assert_int_equal(file_read(data(path), 1 << 24, &text, &n, &e), 0);
    json_object_foreach((json_t *)renderings, context, want)
    {
        const char *golden = json_string_value(json_object_get(want, "text"));
        char *got = NULL;
        int rc = render(text, json_object_get(contexts, context), "<BOS>", "<EOS>", &got, &e);
        bool same = golden ? !rc && !strcmp(got, golden) : rc != 0;
        if (!same)
            print_message("%s, %s: %s\n", name, context, rc ? e.text : "differs");
        wrong += !same;
        ++*tried;
        free(got);
    }
    free(text);
    return wrong;
}

static void every_golden_rendering_is_met(void **state)
{
    struct err e;
    const char *name;
    json_t *renderings;
    int wrong = 0, tried = 0;
    (void)state;
    need_jinja();
    json_t *all = json_file(data("golden_jinja2.json"), 1 << 26, NULL, &e);
    json_object_foreach(json_object_get(all, "renderings"), name, renderings) wrong +=
        compare_template(name, renderings, json_object_get(all, "contexts"), &tried);
    print_message("%d of %d renderings equal\n", tried - wrong, tried);
    assert_true(tried > 400);
    assert_int_equal(wrong, 0);
    json_decref(all);
}

static void expect_error(const char *template_text, const char *word)
{
    struct err e;
    char *text = NULL;
    json_t *o = json_object();
    int rc = render(template_text, o, "", "", &text, &e);
    json_decref(o);
    assert_true(rc < 0);
    if (!strstr(e.text, word))
        fail_msg("\"%s\" does not say \"%s\"", e.text, word);
}

static void hostile_templates_are_one_clear_line(void **state)
{
    (void)state;
    need_jinja();
    expect_error("{{ raise_exception('no tools here') }}", "no tools here");
    expect_error("{{ ''.__class__.__mro__ }}", "unsafe");
    expect_error("{{ ('a' * 10**9) ~ 'b' }}", "memory");
    expect_error("{% for i in range(10**9) %}{% endfor %}", "range");
    expect_error("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
                 "longer than");
    expect_error("{% if %}", "Expected");
}

static void a_renderer_that_was_ended_is_replaced(void **state)
{
    struct chat *c;
    struct err e;
    char *text;
    (void)state;
    need_jinja();
    chat_new("{% if boom %}{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}"
             "{% endfor %}{% endif %}fine",
             "", "", &c, &e);
    assert_true(chat_render(c, "{\"boom\": true}", &text, &e) < 0);
    assert_int_equal(chat_render(c, "{\"boom\": false}", &text, &e), 0);
    assert_string_equal(text, "fine");
    free(text);
    chat_free(c);
}

/* Without Python: the same text for the templates that are known. */
static void known_templates_need_no_python(void **state)
{
    struct err e;
    char *text = NULL, *got;
    const char *chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                         "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
                         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    const char *request = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
                          "\"add_generation_prompt\": true}";
    (void)state;
    for (int python = 0; python < 2; python++) {
        struct chat *c;
        if (!python)
            setenv("TANDEM_PYTHON", "/nonexistent", 1);
        chat_new(chatml, "", "", &c, &e);
        assert_string_equal(chat_renderer(c, &e), python ? "jinja2" : "chatml");
        assert_int_equal(chat_render(c, request, &got, &e), 0);
        if (!python)
            text = got;
        else
            assert_string_equal(got, text);
        chat_free(c);
        if (!python) {
            unsetenv("TANDEM_PYTHON");
            need_jinja();
        } else {
            free(got);
            free(text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_of_hugging_face_is_met),
        cmocka_unit_test(every_golden_rendering_is_met),
        cmocka_unit_test(hostile_templates_are_one_clear_line),
        cmocka_unit_test(a_renderer_that_was_ended_is_replaced),
        cmocka_unit_test(known_templates_need_no_python),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
