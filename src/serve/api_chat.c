/* api_chat.c - messages and tools, checked and put as chat templates want them. */
#include "serve/api_read.h"

/* Where in the request something is wrong: "messages[2].content[1]". */
struct place {
    char text[96];
};

PRINTF(1, 2) static struct place place(const char *fmt, ...)
{
    struct place p;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p.text, sizeof(p.text), fmt, ap);
    va_end(ap);
    return p;
}

/* ------------------------------------------------------------------------------- content */

/* A part's text, or NULL with the error filled. */
static const json_t *part_text(const struct reading *g, const json_t *part, struct place at)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    bool refusal = type && !strcmp(type, "refusal");
    const json_t *text = json_object_get(part, refusal ? "refusal" : "text");
    if (!type)
        api_refuse(g->e, at.text, "%s must be an object with a type.", at.text);
    else if (strcmp(type, "text") && !refusal)
        api_refuse(g->e, at.text,
                   "%s is of type \"%.40s\"; the model reads parts of type \"text\" "
                   "only.",
                   at.text, type);
    else if (!json_is_string(text))
        api_refuse(g->e, at.text, "%s.text must be a text.", at.text);
    else
        return text;
    return NULL;
}

/* Parts are joined by line ends. */
static int join_parts(const struct reading *g, const json_t *parts, size_t message, json_t **to)
{
    size_t i, n = 0;
    const json_t *part, *text;
    json_array_foreach((json_t *)parts, i, part)
    {
        text = part_text(g, part, place("messages[%zu].content[%zu]", message, i));
        if (!text)
            return -EINVAL;
        n += json_string_length(text) + 1;
    }
    char *all = pool_get(&g->r->pool, n + 1);
    n = 0;
    json_array_foreach((json_t *)parts, i, part)
    {
        text = part_text(g, part, place("messages[%zu].content[%zu]", message, i));
        if (i)
            all[n++] = '\n';
        memcpy(all + n, json_string_value(text), json_string_length(text));
        n += json_string_length(text);
    }
    *to = json_stringn(all, n);
    return 0;
}

/* Content becomes text; none is "". */
static int take_content(const struct reading *g, json_t *message, size_t i)
{
    const json_t *content = json_object_get(message, "content");
    json_t *text = NULL;
    int rc = 0;
    if (json_is_string(content))
        return 0;
    if (json_is_array(content))
        rc = join_parts(g, content, i, &text);
    else if (!content || json_is_null(content))
        text = json_string("");
    else
        rc = api_refuse(g->e, place("messages[%zu].content", i).text,
                        "messages[%zu].content must be a text or a list of parts.", i);
    if (!rc)
        json_object_set_new(message, "content", text);
    return rc;
}

/* ------------------------------------------------------------------------------- calls */

/* Arguments come as JSON text; templates want the object. Text that is no JSON stays text. */
static void take_arguments(json_t *function)
{
    const json_t *v = json_object_get(function, "arguments");
    const char *text = json_string_value(v);
    json_t *arguments = NULL;
    if (text && api_depth(text, json_string_length(v)) <= API_DEPTH)
        arguments = json_loadb(text, json_string_length(v), 0, NULL);
    if (arguments)
        json_object_set_new(function, "arguments", arguments);
}

static int take_calls(const struct reading *g, json_t *message, size_t i)
{
    json_t *calls = json_object_get(message, "tool_calls"), *call;
    size_t k;
    if (!calls || json_is_null(calls) || (json_is_array(calls) && !json_array_size(calls))) {
        json_object_del(message, "tool_calls"); /* templates ask whether it is there */
        return 0;
    }
    if (!json_is_array(calls))
        return api_refuse(g->e, place("messages[%zu].tool_calls", i).text,
                          "messages[%zu].tool_calls must be a list.", i);
    calls = json_deep_copy(calls);
    json_object_set_new(message, "tool_calls", calls);
    json_array_foreach(calls, k, call)
    {
        json_t *function = json_object_get(call, "function");
        if (!json_is_string(json_object_get(function, "name")))
            return api_refuse(g->e, place("messages[%zu].tool_calls[%zu]", i, k).text,
                              "messages[%zu].tool_calls[%zu] must have a function with a name.", i,
                              k);
        take_arguments(function);
    }
    return 0;
}

/* ------------------------------------------------------------------------------- messages */

static int take_role(const struct reading *g, json_t *message, size_t i)
{
    static const char *const roles[] = {"system",    "developer", "user",
                                        "assistant", "tool",      "function"};
    const char *role = json_string_value(json_object_get(message, "role"));
    for (size_t k = 0; role && k < COUNT(roles); k++) {
        if (strcmp(role, roles[k]))
            continue;
        if (!strcmp(role, "developer")) /* templates know the older name */
            json_object_set_new(message, "role", json_string("system"));
        return 0;
    }
    return api_refuse(g->e, place("messages[%zu].role", i).text,
                      "messages[%zu].role must be system, developer, user, assistant or tool.", i);
}

int read_messages(const struct reading *g, const json_t *v)
{
    size_t i, n = json_array_size(v);
    const json_t *given;
    int rc = 0;
    if (!json_is_array(v))
        return api_refuse_kind(g, v, "a list of messages");
    if ((double)n < g->field->lo || (double)n > g->field->hi)
        return api_refuse(g->e, "messages", "messages has %zu entries; %.0f to %.0f are read.", n,
                          g->field->lo, g->field->hi);
    json_t *all = json_array();
    json_array_foreach((json_t *)v, i, given)
    {
        if (!json_is_object(given))
            rc = api_refuse(g->e, place("messages[%zu]", i).text,
                            "messages[%zu] must be an object.", i);
        json_t *message = json_copy((json_t *)given);
        json_array_append_new(all, message);
        rc = rc ? rc : take_role(g, message, i);
        rc = rc ? rc : take_content(g, message, i);
        rc = rc ? rc : take_calls(g, message, i);
        if (rc)
            break;
    }
    json_object_set_new(g->r->body, "messages", all); /* ends v; its parts are shared */
    g->r->messages = all;
    return rc;
}

/* ------------------------------------------------------------------------------- tools */

/* A name stands in JSON that the model writes: nothing in it may need escapes. */
static bool is_name(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < ' ' || s[i] == '"' || s[i] == '\\')
            return false;
    return n >= 1 && n <= 128;
}

int read_tools(const struct reading *g, const json_t *v)
{
    size_t i, n = json_array_size(v);
    const json_t *tool;
    if (!json_is_array(v))
        return api_refuse_kind(g, v, "a list of functions");
    if ((double)n > g->field->hi)
        return api_refuse(g->e, "tools", "tools has %zu entries; up to %.0f are read.", n,
                          g->field->hi);
    json_array_foreach((json_t *)v, i, tool)
    {
        const char *type = json_string_value(json_object_get(tool, "type"));
        const json_t *function = json_object_get(tool, "function");
        const json_t *parameters = json_object_get(function, "parameters");
        if (type && strcmp(type, "function"))
            return api_refuse(g->e, place("tools[%zu].type", i).text,
                              "tools[%zu] is of type \"%.40s\"; only \"function\" is supported.", i,
                              type);
        if (!is_name(json_string_value(json_object_get(function, "name"))))
            return api_refuse(g->e, place("tools[%zu].function.name", i).text,
                              "tools[%zu].function.name must be a text of 1 to 128 bytes without "
                              "quotes.",
                              i);
        if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
            return api_refuse(g->e, place("tools[%zu].function.parameters", i).text,
                              "tools[%zu].function.parameters must be a JSON schema.", i);
    }
    g->r->tools = n ? v : NULL;
    return 0;
}

static bool has_tool(const struct request *r, const char *name)
{
    size_t i;
    const json_t *tool;
    json_array_foreach((json_t *)r->tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function");
        if (!strcmp(json_string_value(json_object_get(function, "name")), name))
            return true;
    }
    return false;
}

int read_tool_choice(const struct reading *g, const json_t *v)
{
    struct request *r = g->r;
    const char *word = json_string_value(v);
    const char *name = json_string_value(json_object_get(json_object_get(v, "function"), "name"));
    if (word && !strcmp(word, "auto"))
        return 0;
    if (word && !strcmp(word, "none")) {
        r->tool_choice = TOOLS_OFF;
        return 0;
    }
    if (!name && !(word && !strcmp(word, "required")))
        return api_refuse(g->e, "tool_choice",
                          "tool_choice must be \"none\", \"auto\", "
                          "\"required\" or {\"type\": \"function\", "
                          "\"function\": {\"name\": ...}}.");
    if (!r->tools)
        return api_refuse(g->e, "tool_choice",
                          "tool_choice asks for a call, but there are no tools.");
    if (name && !has_tool(r, name))
        return api_refuse(g->e, "tool_choice", "tool_choice: there is no tool \"%.128s\".", name);
    r->tool_choice = TOOLS_REQUIRED;
    r->function = name;
    return 0;
}

int read_effort(const struct reading *g, const json_t *v)
{
    static const char *const words[] = {"none", "minimal", "low", "medium", "high", "xhigh"};
    const char *word = json_string_value(v);
    for (size_t i = 0; word && i < COUNT(words); i++)
        if (!strcmp(word, words[i])) {
            g->r->reasoning_effort = word;
            return 0;
        }
    return api_refuse(g->e, "reasoning_effort",
                      "reasoning_effort must be none, minimal, low, "
                      "medium, high or xhigh.");
}
