/* chat_builtin.c - see chat_builtin.h. A template is recognised by what it writes around roles. */
#include "text/chat_builtin.h"

struct style {
    const char *name;
    const char *sign, *second, *never; /* texts in the template; never: not in it */
    bool bos;
    const char *before, *between, *after, *prompt;
    bool trim;
    const char *system; /* when no message is one; NULL: none */
};

static const struct style styles[] = {
    {.name = "chatml-qwen2",
     .sign = "<|im_start|>",
     .second = "You are a helpful assistant.",
     .never = "tool",
     .before = "<|im_start|>",
     .between = "\n",
     .after = "<|im_end|>\n",
     .prompt = "<|im_start|>assistant\n",
     .system = "You are a helpful assistant."},
    {.name = "chatml",
     .sign = "<|im_start|>",
     .second = "<|im_end|>",
     .never = "system",
     .before = "<|im_start|>",
     .between = "\n",
     .after = "<|im_end|>\n",
     .prompt = "<|im_start|>assistant\n"},
    {.name = "llama3",
     .sign = "<|start_header_id|>",
     .second = "<|eot_id|>",
     .never = "tool",
     .bos = true,
     .before = "<|start_header_id|>",
     .between = "<|end_header_id|>\n\n",
     .after = "<|eot_id|>",
     .prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .trim = true},
};

static const struct style *find(const char *t)
{
    for (size_t i = 0; t && i < COUNT(styles); i++)
        if (strstr(t, styles[i].sign) && strstr(t, styles[i].second) && !strstr(t, styles[i].never))
            return &styles[i];
    return NULL;
}

const char *builtin_name(const char *template_text)
{
    const struct style *s = find(template_text);
    return s ? s->name : NULL;
}

static void message(FILE *f, const struct style *s, const char *role, const char *content)
{
    size_t n = strlen(content);
    while (s->trim && n && strchr(" \n\t\r", content[n - 1]))
        n--;
    while (s->trim && n && strchr(" \n\t\r", *content))
        content++, n--;
    fprintf(f, "%s%s%s", s->before, role, s->between);
    fwrite(content, 1, n, f);
    fputs(s->after, f);
}

int builtin_render(const char *template_text, const json_t *request, const char *bos,
                   const char *eos, char **text, struct err *e)
{
    const struct style *s = find(template_text);
    const json_t *messages = json_object_get(request, "messages"), *one;
    size_t i, n;
    (void)eos;
    must(s);
    if (json_array_size(json_object_get(request, "tools")))
        return err_set(e, -ENOTSUP,
                       "tools need the model's own chat template: apt-get install "
                       "python3-jinja2");
    FILE *f = open_memstream(text, &n);
    must(f);
    int rc = 0;
    const json_t *first = json_object_get(json_array_get(messages, 0), "role");
    if (s->bos)
        fputs(bos, f);
    if (s->system && (!json_is_string(first) || strcmp(json_string_value(first), "system")))
        message(f, s, "system", s->system);
    json_array_foreach(messages, i, one)
    {
        const char *role = json_string_value(json_object_get(one, "role"));
        const char *content = json_string_value(json_object_get(one, "content"));
        if (role && content)
            message(f, s, role, content);
        else
            rc = err_set(e, -EINVAL, "message %zu needs a role and a content that are texts", i);
    }
    if (json_is_true(json_object_get(request, "add_generation_prompt")))
        fputs(s->prompt, f);
    fclose(f);
    if (rc) {
        free(*text);
        *text = NULL;
    }
    return rc;
}
