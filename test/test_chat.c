/* test_chat.c - chat templates against renderings of Hugging Face and Jinja2, and what hostile
 * templates must not do. Skips what needs Jinja2 or the shared data when these are absent. */
#include "base/json.h"
#include "text/chat.h"
#include "text/chat_builtin.h"
#include "text/chat_helper.h"
#include "text/chat_jail.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/wait.h>
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
static int render(struct chat *c, const json_t *variables, char **text, struct err *e)
{
    json_t *o = json_copy((json_t *)variables);
    json_object_set_new(o, "tandem_now", json_string(NOW));
    char *request = json_dumps(o, JSON_COMPACT);
    int rc = chat_render(c, request, text, e);
    free(request);
    json_decref(o);
    return rc;
}

/* Ask the helper itself: a start of Python for every template would take most of the test's time.
 */
static int ask(struct helper *h, const char *template_text, const json_t *variables, char **text,
               struct err *e)
{
    json_t *answer, *request = json_pack("{s:s, s:O, s:s}", "template", template_text, "variables",
                                         variables, "now", NOW);
    assert_non_null(request);
    int rc = helper_ask(h, request, &answer, e);
    json_decref(request);
    if (rc)
        fail_msg("%s", e->text);
    const char *got = json_string_value(json_object_get(answer, "text"));
    const char *why = json_string_value(json_object_get(answer, "error"));
    *text = got ? strdup(got) : NULL;
    if (!got)
        err_set(e, -EINVAL, "%s", why);
    json_decref(answer);
    return got ? 0 : -EINVAL;
}

/* MadeAgents/Hammer2.1 prints a dict with Python's repr, and the reference is JavaScript's: there
 * the reference is inconsistent with transformers itself. */
static void every_case_of_hugging_face_is_met(void **state)
{
    struct err e;
    size_t i;
    json_t *one;
    int wrong = 0, tried = 0;
    struct helper h = {0};
    (void)state;
    need_jinja();
    assert_int_equal(helper_start(&h, &e), 0);
    json_t *all = json_file(data("hf_cases.json"), 1 << 26, NULL, &e);
    json_array_foreach(json_object_get(all, "cases"), i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *want = json_string_value(json_object_get(one, "target"));
        char *got = NULL;
        if (strstr(name, "Hammer2.1"))
            continue;
        tried++;
        const char *text = json_string_value(json_object_get(one, "chat_template"));
        if (ask(&h, text, json_object_get(one, "data"), &got, &e) || strcmp(got, want)) {
            print_message("%s: %s\n", name, got ? "differs" : e.text);
            wrong++;
        }
        free(got);
    }
    helper_stop(&h);
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
    struct chat *c;
    chat_new(text, "<BOS>", "<EOS>", &c, &e);
    json_object_foreach((json_t *)renderings, context, want)
    {
        const char *golden = json_string_value(json_object_get(want, "text"));
        char *got = NULL;
        int rc = render(c, json_object_get(contexts, context), &got, &e);
        bool same = golden ? !rc && !strcmp(got, golden) : rc != 0;
        if (!same)
            print_message("%s, %s: %s\n", name, context, rc ? e.text : "differs");
        wrong += !same;
        ++*tried;
        free(got);
    }
    chat_free(c);
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
    struct chat *c;
    chat_new(template_text, "", "", &c, &e);
    int rc = render(c, o, &text, &e);
    chat_free(c);
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
    expect_error("{% if %}", "Expected");
}

static void a_template_that_takes_too_long_is_ended_and_its_renderer_replaced(void **state)
{
    struct chat *c;
    struct err e;
    char *text;
    (void)state;
    need_jinja();
    chat_new("{% if boom %}{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}"
             "{% endfor %}{% endif %}fine",
             "", "", &c, &e);
    assert_int_equal(chat_render(c, "{\"boom\": true}", &text, &e), -EINVAL);
    assert_non_null(strstr(e.text, "longer than"));
    assert_int_equal(chat_render(c, "{\"boom\": false}", &text, &e), 0);
    assert_string_equal(text, "fine");
    free(text);
    chat_free(c);
}

/* A number in /proc/PID/status, -1 when absent. */
static int status_of(int pid, const char *key)
{
    char path[64], line[256];
    int n = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, key, strlen(key)))
            sscanf(line + strlen(key), " %d", &n);
    if (f)
        fclose(f);
    return n;
}

static int only_child(void)
{
    char path[64];
    int pid = -1;
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f, "%d", &pid) != 1) {
        print_message("skipped: this kernel does not list children\n");
        skip();
    }
    fclose(f);
    return pid;
}

static void templates_run_behind_a_filter_of_system_calls(void **state)
{
    struct chat *c;
    struct err e;
    char *text;
    (void)state;
    need_jinja();
    chat_new("{{ strftime_now('%Y') | length }}", "", "", &c, &e);
    assert_int_equal(chat_render(c, "{}", &text, &e), 0);
    assert_string_equal(text, "4");
    int pid = only_child();
    assert_int_equal(status_of(pid, "NoNewPrivs:"), 1);
    assert_int_equal(status_of(pid, "Seccomp:"), 2);
    free(text);
    chat_free(c);
}

/* Exit status of a process that installs the filter and then tries: 0 when all is as it should. */
static int behind_filter(const char *hex)
{
    static struct sock_filter f[256];
    struct sock_fprog program = {(unsigned short)(strlen(hex) / 2 / sizeof(f[0])), f};
    for (size_t i = 0; hex[2 * i]; i++)
        sscanf(hex + 2 * i, "%2hhx", (unsigned char *)f + i);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0))
        return 77;
    int end[2];
    if (open("/dev/null", O_RDONLY) >= 0 || errno != EPERM)
        return 1;
    if (pipe(end) != -1 || fork() != -1 || kill(getppid(), 0) != -1)
        return 2;
    execl("/bin/true", "true", NULL);
    return write(2, "", 0) ? 3 : 0;
}

static void the_filter_keeps_writing_and_refuses_files_processes_and_signals(void **state)
{
    char hex[JAIL_TEXT];
    int status;
    (void)state;
    jail_filter(hex);
    if (!hex[0]) {
        print_message("skipped: no filter for this processor\n");
        skip();
    }
    pid_t pid = fork();
    if (pid == 0)
        _exit(behind_filter(hex));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: a kernel without seccomp\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
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

/* Compare a built-in rendering with what Jinja2 made; whether it was in the built-in's scope. */
static bool expect_builtin(const char *name, const char *template_text, const json_t *variables,
                           const char *golden, int *wrong)
{
    struct err e;
    char *got;
    json_t *request = json_copy((json_t *)variables);
    json_object_set_new(request, "tandem_now", json_string(NOW));
    int rc = builtin_render(template_text, request, "<BOS>", "<EOS>", &got, &e);
    json_decref(request);
    if (rc == -ENOTSUP)
        return false;
    if (golden ? rc || strcmp(got, golden) : !rc) {
        print_message("%s by %s: %s\n", name, builtin_name(template_text), rc ? e.text : got);
        ++*wrong;
    }
    free(got);
    return true;
}

static void what_a_builtin_recognises_it_renders_as_jinja2_does(void **state)
{
    struct err e;
    const char *name, *context;
    json_t *renderings, *want, *one;
    int wrong = 0, equal = 0, known = 0;
    size_t i, n;
    (void)state;
    json_t *golden = json_file(data("golden_jinja2.json"), 1 << 26, NULL, &e);
    json_object_foreach(json_object_get(golden, "renderings"), name, renderings)
    {
        char *text, path[300];
        snprintf(path, sizeof(path), "templates/%s", name);
        assert_int_equal(file_read(data(path), 1 << 24, &text, &n, &e), 0);
        known += builtin_name(text) != NULL;
        if (builtin_name(text))
            json_object_foreach(renderings, context, want) equal += expect_builtin(
                name, text, json_object_get(json_object_get(golden, "contexts"), context),
                json_string_value(json_object_get(want, "text")), &wrong);
        free(text);
    }
    json_t *cases = json_file(data("hf_cases.json"), 1 << 26, NULL, &e);
    json_array_foreach(json_object_get(cases, "cases"), i, one)
    {
        const char *text = json_string_value(json_object_get(one, "chat_template"));
        known += builtin_name(text) != NULL;
        if (builtin_name(text))
            equal += expect_builtin(json_string_value(json_object_get(one, "name")), text,
                                    json_object_get(one, "data"),
                                    json_string_value(json_object_get(one, "target")), &wrong);
    }
    print_message("%d templates recognised, %d of their renderings in scope, %d wrong\n", known,
                  equal, wrong);
    assert_int_equal(wrong, 0);
    assert_true(known >= 15 && equal >= 50);
    json_decref(golden);
    json_decref(cases);
}

/* ------------------------------------------------------------------- built-in against Jinja2 */

static unsigned pick(uint64_t *seed, unsigned n)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*seed >> 33) % n;
}

/* A request of one to five messages, mostly in turns, whose texts try what renderers stumble over.
 */
static json_t *odd_request(uint64_t *seed)
{
    static const char *const texts[] = {
        "Hi",
        "",
        " two  words\n",
        "\n\n",
        "\t\v\f\r x \x1c\x1d\x1e\x1f",
        "\xC2\xA0nbsp\xE3\x80\x80",
        "\xC2\x85\xE2\x80\xA8",
        "\xE2\x80\x8B",
        "<think>\nwhy\n</think>\n\nso",
        "<think>a</think>b</think>\n\nc",
        "</think>",
        "x<think>y",
        "<tool_response>\n1\n</tool_response>",
        "<tool_response> ",
        "<|im_end|>[INST] <<SYS>> {{ 1 }} <end_of_turn>",
        "'\"\\ \x01\x02 caf\xC3\xA9",
        "before<think>\n\n</think>\n\n\n after \n",
    };
    static const char *const roles[] = {"user", "assistant", "system"};
    json_t *messages = json_array(), *o = json_object();
    unsigned n = pick(seed, 5) + 1, system = !pick(seed, 3);
    for (unsigned i = 0; i < n; i++) {
        unsigned role = pick(seed, 12) == 0 ? pick(seed, 3) : (i + system) % 2;
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", roles[i == 0 && system ? 2 : role],
                                        "content", texts[pick(seed, COUNT(texts))]));
    }
    json_object_set_new(o, "messages", messages);
    json_object_set_new(o, "bos_token", json_string("<BOS>"));
    json_object_set_new(o, "eos_token", json_string("<EOS>"));
    if (pick(seed, 4))
        json_object_set_new(o, "add_generation_prompt", json_boolean(pick(seed, 3)));
    if (!pick(seed, 3))
        json_object_set_new(o, "enable_thinking", json_boolean(pick(seed, 2)));
    return o;
}

static int differ(struct helper *h, const char *template_text, uint64_t *seed, int *compared)
{
    struct err e;
    char *want, *got;
    json_t *o = odd_request(seed);
    int jinja = ask(h, template_text, o, &want, &e);
    json_object_set_new(o, "tandem_now", json_string(NOW));
    int rc = builtin_render(template_text, o, "", "", &got, &e);
    bool same = rc == -ENOTSUP || (rc ? jinja != 0 : !jinja && !strcmp(got, want));
    if (!same) {
        char *text = json_dumps(o, JSON_COMPACT);
        print_message("%s: %s\n  jinja2 %s\n  built-in %s\n", builtin_name(template_text), text,
                      want ? want : "(raises)", got ? got : e.text);
        free(text);
    }
    *compared += rc != -ENOTSUP;
    json_decref(o);
    free(want);
    free(got);
    return !same;
}

static json_t *every_template(void)
{
    struct err e;
    size_t i, n;
    const char *name;
    json_t *one, *all = json_array();
    json_t *golden = json_file(data("golden_jinja2.json"), 1 << 26, NULL, &e);
    json_object_foreach(json_object_get(golden, "renderings"), name, one)
    {
        char *text, path[300];
        snprintf(path, sizeof(path), "templates/%s", name);
        assert_int_equal(file_read(data(path), 1 << 24, &text, &n, &e), 0);
        json_array_append_new(all, json_string(text));
        free(text);
    }
    json_t *cases = json_file(data("hf_cases.json"), 1 << 26, NULL, &e);
    json_array_foreach(json_object_get(cases, "cases"), i, one)
        json_array_append(all, json_object_get(one, "chat_template"));
    json_decref(golden);
    json_decref(cases);
    return all;
}

static void builtins_equal_jinja2_on_odd_messages(void **state)
{
    struct err e;
    size_t i;
    json_t *one;
    uint64_t seed = 1;
    struct helper h = {0};
    int wrong = 0, compared = 0;
    (void)state;
    need_jinja();
    assert_int_equal(helper_start(&h, &e), 0);
    json_t *all = every_template();
    json_array_foreach(all, i, one)
    {
        const char *text = json_string_value(one);
        for (int k = 0; k < 200 && wrong < 10 && builtin_name(text); k++)
            wrong += differ(&h, text, &seed, &compared);
    }
    print_message("%d renderings compared, %d differ\n", compared, wrong);
    helper_stop(&h);
    json_decref(all);
    assert_int_equal(wrong, 0);
    assert_true(compared > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_of_hugging_face_is_met),
        cmocka_unit_test(every_golden_rendering_is_met),
        cmocka_unit_test(hostile_templates_are_one_clear_line),
        cmocka_unit_test(a_template_that_takes_too_long_is_ended_and_its_renderer_replaced),
        cmocka_unit_test(templates_run_behind_a_filter_of_system_calls),
        cmocka_unit_test(the_filter_keeps_writing_and_refuses_files_processes_and_signals),
        cmocka_unit_test(known_templates_need_no_python),
        cmocka_unit_test(what_a_builtin_recognises_it_renders_as_jinja2_does),
        cmocka_unit_test(builtins_equal_jinja2_on_odd_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
