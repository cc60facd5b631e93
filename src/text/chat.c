/* chat.c - finding a folder's template and having it rendered. See chat.h. */
#include "text/chat.h"
#include "base/arena.h"
#include "base/json.h"
#include "text/chat_builtin.h"
#include "text/chat_helper.h"

struct chat {
    struct pool pool;
    const char *text, *tool_text; /* tool_text: a template of its own for tools, or NULL */
    const char *bos, *eos;
    struct helper helper;
};

enum { LIMIT = 64 << 20 };

static const char *copy(struct pool *p, const char *s) { return pool_text(p, s, strlen(s)); }

int chat_new(const char *template_text, const char *bos, const char *eos, struct chat **out,
             struct err *e)
{
    (void)e;
    struct chat *c = calloc(1, sizeof(*c));
    must(c);
    c->text = template_text ? copy(&c->pool, template_text) : NULL;
    c->bos = copy(&c->pool, bos ? bos : "");
    c->eos = copy(&c->pool, eos ? eos : "");
    *out = c;
    return 0;
}

void chat_free(struct chat *c)
{
    if (!c)
        return;
    helper_stop(&c->helper);
    pool_free(&c->pool);
    free(c);
}

/* ------------------------------------------------------------------------------- folders */

static const char *token_text(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v))
        v = json_object_get(v, "content");
    return json_string_value(v);
}

/* A string, or a list of {"name", "template"}. */
static void take_templates(struct chat *c, const json_t *v)
{
    size_t i;
    json_t *one;
    if (json_is_string(v))
        c->text = copy(&c->pool, json_string_value(v));
    json_array_foreach((json_t *)v, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *text = json_string_value(json_object_get(one, "template"));
        if (name && text && !strcmp(name, "default"))
            c->text = copy(&c->pool, text);
        if (name && text && !strcmp(name, "tool_use"))
            c->tool_text = copy(&c->pool, text);
    }
}

static int optional_json(const char *folder, const char *name, json_t **to, struct err *e)
{
    char path[4096];
    int rc = 0;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    *to = json_file(path, LIMIT, &rc, e);
    return *to || rc == -ENOENT ? 0 : rc;
}

/* Files of their own win over the field, as in transformers. */
static int find_template(struct chat *c, const char *folder, const json_t *config, struct err *e)
{
    char path[4096], *text;
    size_t n;
    json_t *file;
    take_templates(c, json_object_get(config, "chat_template"));
    int rc = optional_json(folder, "chat_template.json", &file, e);
    if (rc)
        return rc;
    take_templates(c, json_object_get(file, "chat_template"));
    json_decref(file);
    snprintf(path, sizeof(path), "%s/chat_template.jinja", folder);
    rc = file_read(path, LIMIT, &text, &n, e);
    if (!rc) {
        c->text = pool_text(&c->pool, text, n);
        free(text);
    }
    if (rc && rc != -ENOENT)
        return rc;
    if (!c->text)
        return err_set(e, -ENOENT, "%s has no chat template", folder);
    return 0;
}

int chat_load(const char *folder, struct chat **out, struct err *e)
{
    json_t *config, *special;
    *out = NULL;
    int rc = optional_json(folder, "tokenizer_config.json", &config, e);
    if (rc)
        return rc;
    rc = optional_json(folder, "special_tokens_map.json", &special, e);
    if (rc) {
        json_decref(config);
        return rc;
    }
    const char *bos = token_text(config, "bos_token"), *eos = token_text(config, "eos_token");
    struct chat *c;
    chat_new(NULL, bos ? bos : token_text(special, "bos_token"),
             eos ? eos : token_text(special, "eos_token"), &c, e);
    rc = find_template(c, folder, config, e);
    json_decref(config);
    json_decref(special);
    if (rc)
        chat_free(c);
    else
        *out = c;
    return rc;
}

/* ------------------------------------------------------------------------------- rendering */

const char *chat_renderer(struct chat *c, struct err *e)
{
    const char *builtin = builtin_name(c->text);
    if (!helper_start(&c->helper, e))
        return "jinja2";
    return builtin;
}

const char *chat_template(const struct chat *c, bool tools)
{
    return tools && c->tool_text ? c->tool_text : c->text;
}

static int render_jinja(struct chat *c, const json_t *request, char **text, struct err *e)
{
    json_t *variables = json_copy((json_t *)request), *answer = NULL;
    json_t *now =
        json_object_get(variables, "tandem_now"); /* for tests: the clock of the template */
    bool tools = json_array_size(json_object_get(request, "tools")) > 0;
    json_t *ask = json_pack("{s:s, s:o, s:O*}", "template", chat_template(c, tools), "variables",
                            variables, "now", now);
    json_object_del(variables, "tandem_now");
    if (!json_object_get(variables, "bos_token"))
        json_object_set_new(variables, "bos_token", json_string(c->bos));
    if (!json_object_get(variables, "eos_token"))
        json_object_set_new(variables, "eos_token", json_string(c->eos));
    int rc = helper_ask(&c->helper, ask, &answer, e);
    json_decref(ask);
    if (rc)
        return rc;
    const char *got = json_string_value(json_object_get(answer, "text"));
    const char *why = json_string_value(json_object_get(answer, "error"));
    if (got)
        *text = strdup(got);
    else
        rc = err_set(e, -EINVAL, "the chat template says: %.300s", why ? why : "nothing");
    json_decref(answer);
    return rc;
}

int chat_render(struct chat *c, const char *request, char **text, struct err *e)
{
    *text = NULL;
    json_t *o = json_parse(request, strlen(request), "the chat request", e);
    if (!o)
        return -EINVAL;
    int rc = helper_start(&c->helper, e);
    if (!rc)
        rc = render_jinja(c, o, text, e);
    else if (builtin_name(c->text))
        rc = builtin_render(c->text, o, c->bos, c->eos, text, e);
    json_decref(o);
    return rc;
}
