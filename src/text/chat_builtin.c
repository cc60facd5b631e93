/* chat_builtin.c - see chat_builtin.h. A style is a row of a table: how its template is known, and
 * what stands around each message. What a row cannot say is one of a few named peculiarities. */
#include "text/chat_builtin.h"

#include <time.h>

/* In the texts of a style: the tokens that begin and end a sequence. */
#define BOS "\1"
#define EOS "\2"

struct around {
    const char *before, *after; /* before NULL: the template refuses this role */
};

struct style {
    const char *name;
    const char *sign[3], *never[2]; /* texts that are all in the template; that are not */
    const char *begin;
    struct around system, user, assistant;
    const char *prompt; /* the beginning of the answer */
    bool trim, alternate;
    const char *no_system; /* the system message when there is none */
    enum {
        PLAIN,
        DATE_FIXED,      /* Llama 3.1: the system message begins with dates */
        DATE_TODAY,      /* Llama 3.2 */
        SYSTEM_IN_FIRST, /* Llama 2: inside the first message of the user */
        SYSTEM_IN_LAST,  /* Mistral Nemo: before the last message, when that is the user's */
        THINK,           /* Qwen 3: old reasoning is left out */
    } peculiar;
};

#define CHATML(role)                                                                               \
    {                                                                                              \
        "<|im_start|>" role "\n", "<|im_end|>\n"                                                   \
    }
#define CHATML_ALL                                                                                 \
    .system = CHATML("system"), .user = CHATML("user"), .assistant = CHATML("assistant"),          \
    .prompt = "<|im_start|>assistant\n"
#define HEADER(role)                                                                               \
    {                                                                                              \
        "<|start_header_id|>" role "<|end_header_id|>\n\n", "<|eot_id|>"                           \
    }
#define HEADER_ALL                                                                                 \
    .begin = BOS, .system = HEADER("system"), .user = HEADER("user"),                              \
    .assistant = HEADER("assistant"), .trim = true,                                                \
    .prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n"

static const struct style styles[] = {
    {.name = "qwen3",
     .sign = {"{{- messages[0].content + '\\n\\n' }}", "ns.last_query_index",
              "enable_thinking is false"},
     .never = {"image", "macro"},
     CHATML_ALL,
     .peculiar = THINK},
    {.name = "qwen2.5",
     .sign = {"<|im_start|>", "You are Qwen, created by Alibaba Cloud."},
     .never = {"image", "<think>"},
     CHATML_ALL,
     .no_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {.name = "chatml-qwen2",
     .sign = {"<|im_start|>", "You are a helpful assistant.<|im_end|>"},
     .never = {"image", "tool"},
     CHATML_ALL,
     .no_system = "You are a helpful assistant."},
    {.name = "chatml",
     .sign = {"{% for message in messages %}{{'<|im_start|>' + message['role'] + ",
              "message['content'] + '<|im_end|>' + ", "'<|im_start|>assistant"},
     .never = {"system", "bos_token"},
     CHATML_ALL},
    {.name = "llama3.2",
     .sign = {"<|start_header_id|>", "Cutting Knowledge Date: December 2023", "strftime_now"},
     .never = {"image"},
     HEADER_ALL,
     .peculiar = DATE_TODAY},
    {.name = "llama3.1",
     .sign = {"<|start_header_id|>", "Cutting Knowledge Date: December 2023", "26 Jul 2024"},
     .never = {"image", "strftime_now"},
     HEADER_ALL,
     .peculiar = DATE_FIXED},
    {.name = "llama3",
     .sign = {"<|start_header_id|>", "<|eot_id|>", "set content = bos_token + content"},
     .never = {"tool", "Cutting"},
     HEADER_ALL},
    {.name = "llama2",
     .sign = {"'<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n'",
              "bos_token + '[INST] ' + content.strip() + ' [/INST]'"},
     .never = {"tool", "DEFAULT_SYSTEM_MESSAGE"},
     .user = {BOS "[INST] ", " [/INST]"},
     .assistant = {" ", " " EOS},
     .system = {"", ""},
     .prompt = "",
     .trim = true,
     .alternate = true,
     .peculiar = SYSTEM_IN_FIRST},
    {.name = "mistral",
     .sign = {"{{ '[INST] ' + message['content'] + ' [/INST]' }}",
              "{{ message['content'] + eos_token}}"},
     .never = {"system", "tool"},
     .begin = BOS,
     .user = {"[INST] ", " [/INST]"},
     .assistant = {"", EOS},
     .prompt = "",
     .alternate = true},
    {.name = "mistral-v0.1",
     .sign = {"{{ '[INST] ' + message['content'] + ' [/INST]' }}",
              "{{ message['content'] + eos_token + ' ' }}"},
     .never = {"system", "tool"},
     .begin = BOS,
     .user = {"[INST] ", " [/INST]"},
     .assistant = {"", EOS " "},
     .prompt = "",
     .alternate = true},
    {.name = "mistral-nemo",
     .sign = {"{{- \"[INST]\" + message[\"content\"] + \"[/INST]\" }}",
              "\"[INST]\" + system_message + \"\\n\\n\" + message[\"content\"]",
              "{{- message[\"content\"] + eos_token}}"},
     .begin = BOS,
     .system = {"", ""},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", EOS},
     .prompt = "",
     .alternate = true,
     .peculiar = SYSTEM_IN_LAST},
    {.name = "gemma",
     .sign = {"{{ '<start_of_turn>' + role + '", "message['content'] | trim + '<end_of_turn>",
              "System role not supported"},
     .begin = BOS,
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .prompt = "<start_of_turn>model\n",
     .trim = true,
     .alternate = true},
    {.name = "zephyr",
     .sign = {"{{ '<|user|>\n' + message['content'] + eos_token }}",
              "{{ '<|system|>\n' + message['content'] + eos_token }}"},
     .never = {"raise_exception"},
     .system = {"<|system|>\n", EOS "\n"},
     .user = {"<|user|>\n", EOS "\n"},
     .assistant = {"<|assistant|>\n", EOS "\n"},
     .prompt = "<|assistant|>\n"},
};

static bool recognised(const struct style *s, const char *t)
{
    for (size_t i = 0; i < COUNT(s->sign) && s->sign[i]; i++)
        if (!strstr(t, s->sign[i]))
            return false;
    for (size_t i = 0; i < COUNT(s->never) && s->never[i]; i++)
        if (strstr(t, s->never[i]))
            return false;
    return true;
}

static const struct style *find(const char *t)
{
    for (size_t i = 0; t && i < COUNT(styles); i++)
        if (recognised(&styles[i], t))
            return &styles[i];
    return NULL;
}

const char *builtin_name(const char *template_text)
{
    const struct style *s = find(template_text);
    return s ? s->name : NULL;
}

/* ------------------------------------------------------------------------------- writing */

struct text {
    const char *s;
    size_t n;
};

struct writing {
    const struct style *style;
    const char *bos, *eos;
    FILE *to;
};

static void put(const struct writing *w, const char *s)
{
    for (; s && *s; s++)
        if (*s == *BOS)
            fputs(w->bos, w->to);
        else if (*s == *EOS)
            fputs(w->eos, w->to);
        else
            putc(*s, w->to);
}

static void put_text(const struct writing *w, struct text t) { fwrite(t.s, 1, t.n, w->to); }

/* The blanks of Python's str.strip() beyond ASCII. */
static const char *const wide_blanks[] = {
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80",
};

/* Bytes of the blank that t begins or ends with; 0 when it is none. */
static size_t blank(struct text t, bool at_end)
{
    char c = t.n ? t.s[at_end ? t.n - 1 : 0] : 0;
    if (c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F))
        return 1;
    for (size_t i = 0; i < COUNT(wide_blanks); i++) {
        size_t n = strlen(wide_blanks[i]);
        if (t.n >= n && !memcmp(at_end ? t.s + t.n - n : t.s, wide_blanks[i], n))
            return n;
    }
    return 0;
}

static struct text strip_end(struct text t)
{
    for (size_t n; (n = blank(t, true));)
        t.n -= n;
    return t;
}

static struct text strip(struct text t)
{
    for (size_t n; (n = blank(t, false));)
        t.s += n, t.n -= n;
    return strip_end(t);
}

static struct text skip_lines(struct text t)
{
    while (t.n && *t.s == '\n')
        t.s++, t.n--;
    return t;
}

static struct text strip_lines(struct text t)
{
    t = skip_lines(t);
    while (t.n && t.s[t.n - 1] == '\n')
        t.n--;
    return t;
}

static struct text text_of(const struct style *s, const json_t *message)
{
    const json_t *c = json_object_get(message, "content");
    struct text t = {json_string_value(c), json_string_length(c)};
    return s->trim && s->peculiar != SYSTEM_IN_FIRST ? strip(t) : t;
}

static bool has_role(const json_t *message, const char *role)
{
    const char *is = json_string_value(json_object_get(message, "role"));
    return is && !strcmp(is, role);
}

/* ------------------------------------------------------------------------------- what fits */

static const struct around *around(const struct style *s, const json_t *message)
{
    return has_role(message, "system")      ? &s->system
           : has_role(message, "user")      ? &s->user
           : has_role(message, "assistant") ? &s->assistant
                                            : NULL;
}

/* Only what every one of these templates renders in the same plain way. */
static int check_message(const struct style *s, const json_t *m, size_t i, struct err *e)
{
    const struct around *a = around(s, m);
    bool late_system = a == &s->system && i > 0 && s->alternate;
    if (!a || late_system || !json_is_string(json_object_get(m, "content")) ||
        json_object_get(m, "tool_calls") || json_object_get(m, "reasoning_content"))
        return err_set(
            e, -ENOTSUP,
            "message %zu is not a plain text of system (first), user or assistant: it needs "
            "the model's own chat template, apt-get install python3-jinja2",
            i);
    if (!a->before)
        return err_set(e, -EINVAL, "this model's chat template takes no system message");
    return 0;
}

static int check(const struct style *s, const char *template_text, const json_t *request,
                 struct err *e)
{
    static const char *const known[] = {
        "messages", "add_generation_prompt", "bos_token", "eos_token", "tandem_now", NULL};
    const json_t *messages = json_object_get(request, "messages"), *m;
    const char *key;
    json_t *value;
    size_t i;
    json_object_foreach((json_t *)request, key, value)
    {
        const char *const *k = known;
        while (*k && strcmp(*k, key))
            k++;
        bool thinking = s->peculiar == THINK && !strcmp(key, "enable_thinking");
        bool empty = json_is_null(value) || (json_is_array(value) && !json_array_size(value));
        if (!*k && !thinking && !empty && strstr(template_text, key))
            return err_set(e, -ENOTSUP,
                           "\"%.40s\" needs the model's own chat template: apt-get install "
                           "python3-jinja2",
                           key);
    }
    size_t first = has_role(json_array_get(messages, 0), "system");
    json_array_foreach(messages, i, m)
    {
        int rc = check_message(s, m, i, e);
        if (rc)
            return rc;
        if (s->alternate && i >= first && has_role(m, "user") != ((i - first) % 2 == 0))
            return err_set(e, -EINVAL,
                           "message %zu: this model's chat template wants user and assistant in "
                           "turns",
                           i);
    }
    if (!json_array_size(messages))
        return err_set(e, -EINVAL, "there are no messages");
    return 0;
}

/* ------------------------------------------------------------------------------- messages */

/* Qwen 3: what stands after </think>; *thought is what was before. */
static struct text after_thought(struct text t, struct text *thought)
{
    static const char open[] = "<think>", close[] = "</think>";
    char *first = memmem(t.s, t.n, close, strlen(close)), *last = first, *at;
    *thought = (struct text){t.s, 0};
    if (!first)
        return t;
    const char *end = t.s + t.n;
    while ((at = memmem(last + 1, (size_t)(end - last - 1), close, strlen(close))))
        last = at;
    struct text before = {t.s, (size_t)(first - t.s)};
    while ((at = memmem(before.s, before.n, open, strlen(open)))) {
        before.n -= (size_t)(at + strlen(open) - before.s);
        before.s = at + strlen(open);
    }
    *thought = strip_lines(before);
    t.s = last + strlen(close), t.n = (size_t)(end - t.s);
    return skip_lines(t);
}

/* An answer after the last question keeps its reasoning, and the last message shows an empty one.
 */
static void put_thinking(const struct writing *w, struct text t, bool after_question, bool last)
{
    struct text thought;
    t = after_thought(t, &thought);
    if (after_question && (last || thought.n)) {
        put(w, "<think>\n");
        put_text(w, thought);
        put(w, "\n</think>\n\n");
        t = skip_lines(t);
    }
    put_text(w, t);
}

static void put_dates(const struct writing *w, const json_t *now)
{
    char date[32] = "26 Jul 2024";
    struct tm day;
    time_t seconds = time(NULL);
    if (w->style->peculiar == DATE_TODAY && localtime_r(&seconds, &day)) {
        if (json_is_string(now))
            strptime(json_string_value(now), "%Y-%m-%d", &day);
        strftime(date, sizeof(date), "%d %b %Y", &day);
    }
    fprintf(w->to, "Cutting Knowledge Date: December 2023\nToday Date: %s\n\n", date);
}

static void put_system(const struct writing *w, const json_t *system, const json_t *now)
{
    const struct style *s = w->style;
    bool dated = s->peculiar == DATE_FIXED || s->peculiar == DATE_TODAY;
    if (s->peculiar == SYSTEM_IN_FIRST || s->peculiar == SYSTEM_IN_LAST)
        return;
    if (!system && !s->no_system && !dated)
        return;
    put(w, s->system.before);
    if (dated)
        put_dates(w, now);
    if (system)
        put_text(w, text_of(s, system));
    else
        put(w, s->no_system);
    put(w, s->system.after);
}

/* Llama 2 strips the message together with the system text before it. */
static void put_first(const struct writing *w, struct text t, const json_t *system)
{
    if (system) {
        struct text s = text_of(w->style, system);
        put(w, "<<SYS>>\n");
        put_text(w, s);
        put(w, "\n<</SYS>>\n\n");
    }
    put_text(w, system ? strip_end(t) : strip(t));
}

static void put_message(const struct writing *w, const json_t *messages, size_t i, size_t question,
                        const json_t *system)
{
    const struct style *s = w->style;
    const json_t *m = json_array_get(messages, i);
    bool last = i + 1 == json_array_size(messages), user = has_role(m, "user");
    const struct around *a = around(s, m);
    struct text t = text_of(s, m);
    put(w, a->before);
    if (s->peculiar == SYSTEM_IN_LAST && system && last && user) {
        put_text(w, text_of(s, system));
        put(w, "\n\n");
    }
    if (s->peculiar == SYSTEM_IN_FIRST)
        put_first(w, t, i <= 1 && user ? system : NULL);
    else if (s->peculiar == THINK && has_role(m, "assistant"))
        put_thinking(w, t, i > question, last);
    else
        put_text(w, t);
    put(w, a->after);
}

/* The last message of the user that is not a tool's answer; the last message when there is none. */
static size_t last_question(const json_t *messages)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const json_t *m = json_array_get(messages, i), *c = json_object_get(m, "content");
        const char *s = json_string_value(c);
        size_t n = json_string_length(c);
        bool tool = n >= strlen(close) && !strncmp(s, open, strlen(open)) &&
                    !strcmp(s + n - strlen(close), close);
        if (has_role(m, "user") && !tool)
            return i;
    }
    return json_array_size(messages) - 1;
}

static void write_all(const struct writing *w, const json_t *request)
{
    const json_t *messages = json_object_get(request, "messages");
    const json_t *system = json_array_get(messages, 0);
    system = has_role(system, "system") ? system : NULL;
    put(w, w->style->begin);
    put_system(w, system, json_object_get(request, "tandem_now"));
    size_t question = last_question(messages);
    for (size_t i = system != NULL; i < json_array_size(messages); i++)
        put_message(w, messages, i, question, system);
    if (!json_is_true(json_object_get(request, "add_generation_prompt")))
        return;
    put(w, w->style->prompt);
    if (json_is_false(json_object_get(request, "enable_thinking")) && w->style->peculiar == THINK)
        put(w, "<think>\n\n</think>\n\n");
}

int builtin_render(const char *template_text, const json_t *request, const char *bos,
                   const char *eos, char **text, struct err *e)
{
    const char *own_bos = json_string_value(json_object_get(request, "bos_token"));
    const char *own_eos = json_string_value(json_object_get(request, "eos_token"));
    struct writing w = {find(template_text), own_bos ? own_bos : bos, own_eos ? own_eos : eos,
                        NULL};
    size_t n;
    must(w.style);
    *text = NULL;
    int rc = check(w.style, template_text, request, e);
    if (rc)
        return rc;
    w.to = open_memstream(text, &n);
    must(w.to);
    write_all(&w, request);
    fclose(w.to);
    return 0;
}
