/* api_format.c - what the answer must look like: response_format, structured_outputs, guided_*, and
 * the calls of tools, as one struct constraint. Schemas are not looked into here. */
#include "serve/api_read.h"

const char *api_dump(struct request *r, const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY);
    must(text);
    const char *kept = pool_text(&r->pool, text, strlen(text));
    free(text);
    return kept;
}

const char *api_join(struct request *r, const char *const *words)
{
    size_t n = 0;
    for (int i = 0; words[i]; i++)
        n += strlen(words[i]);
    char *all = pool_get(&r->pool, n + 1), *at = all;
    for (int i = 0; words[i]; i++)
        at = stpcpy(at, words[i]);
    return all;
}

/* The one constraint; a second is refused. */
static int constrain(const struct reading *g, enum constraint_kind kind, const char *text)
{
    struct constraint *c = read_member(g);
    if (c->kind != CONSTRAINT_NONE)
        return api_refuse(g->e, g->field->name, "%s and %s exclude each other.", c->field,
                          g->field->name);
    c->kind = kind;
    c->field = g->field->name;
    c->text = text;
    return 0;
}

/* A schema is an object, true or false, or the text of one. */
static int constrain_schema(const struct reading *g, const json_t *v)
{
    size_t n = json_string_length(v);
    if (json_is_string(v) && api_depth(json_string_value(v), n) <= API_DEPTH) {
        json_t *schema = json_loadb(json_string_value(v), n, JSON_DECODE_ANY, NULL);
        bool good = json_is_object(schema) || json_is_boolean(schema);
        json_decref(schema);
        if (good)
            return constrain(g, CONSTRAINT_SCHEMA, json_string_value(v));
    }
    if (!json_is_object(v) && !json_is_boolean(v))
        return api_refuse(g->e, g->field->name,
                          "%s: the JSON schema must be an object, or the "
                          "text of one.",
                          g->field->name);
    return constrain(g, CONSTRAINT_SCHEMA, api_dump(g->r, v));
}

static int constrain_text(const struct reading *g, enum constraint_kind kind, const json_t *v)
{
    enum { MOST = 256 << 10 };
    size_t n = json_string_length(v);
    if (!json_is_string(v))
        return api_refuse_kind(g, v, "a text");
    if (!n || n > MOST)
        return api_refuse(g->e, g->field->name, "%s has %zu bytes; 1 to %d are read.",
                          g->field->name, n, MOST);
    return constrain(g, kind, json_string_value(v));
}

static int constrain_choice(const struct reading *g, const json_t *v)
{
    struct constraint *c = read_member(g);
    struct api_texts texts;
    int rc = json_is_array(v) ? api_texts(g, v, &texts) : api_refuse_kind(g, v, "a list of texts");
    rc = rc ? rc : constrain(g, CONSTRAINT_CHOICE, NULL);
    if (!rc)
        c->choice = texts;
    return rc;
}

int read_guided_json(const struct reading *g, const json_t *v) { return constrain_schema(g, v); }

int read_guided_regex(const struct reading *g, const json_t *v)
{
    return constrain_text(g, CONSTRAINT_REGEX, v);
}

int read_guided_choice(const struct reading *g, const json_t *v) { return constrain_choice(g, v); }

int read_guided_grammar(const struct reading *g, const json_t *v)
{
    return constrain_text(g, CONSTRAINT_GRAMMAR, v);
}

int read_format(const struct reading *g, const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *named = json_object_get(v, "json_schema");
    const json_t *schema = json_object_get(json_is_object(named) ? named : v, "schema");
    if (!json_is_object(v))
        return api_refuse_kind(g, v, "an object");
    if (type && !strcmp(type, "text"))
        return 0;
    if (type && !strcmp(type, "json_object")) /* some servers take a schema here, too */
        return schema ? constrain_schema(g, schema) : constrain(g, CONSTRAINT_OBJECT, NULL);
    if (!type || strcmp(type, "json_schema"))
        return api_refuse(g->e, "response_format.type",
                          "response_format.type must be \"text\", "
                          "\"json_object\" or \"json_schema\".");
    if (!schema)
        return api_refuse(g->e, "response_format.json_schema",
                          "response_format.json_schema.schema is missing.");
    return constrain_schema(g, schema);
}

int read_structured(const struct reading *g, const json_t *v)
{
    static const char *const keys[] = {"json", "json_object", "regex", "choice", "grammar"};
    const json_t *at[COUNT(keys)];
    int n = 0, which = 0;
    if (!json_is_object(v))
        return api_refuse_kind(g, v, "an object");
    for (int i = 0; i < (int)COUNT(keys); i++) {
        at[i] = json_object_get(v, keys[i]);
        if (at[i] && !json_is_null(at[i]) && !json_is_false(at[i]))
            n++, which = i;
    }
    if (n != 1)
        return api_refuse(g->e, "structured_outputs",
                          "structured_outputs must have one of json, "
                          "json_object, regex, choice, grammar.");
    switch (which) {
    case 0: return constrain_schema(g, at[0]);
    case 1: return constrain(g, CONSTRAINT_OBJECT, NULL);
    case 2: return constrain_text(g, CONSTRAINT_REGEX, at[2]);
    case 3: return constrain_choice(g, at[3]);
    default: return constrain_text(g, CONSTRAINT_GRAMMAR, at[4]);
    }
}

/* ------------------------------------------------------------------------------- tools */

/* What stands around the name and the arguments of a call. */
static const struct call_words {
    const char *trigger, *before_name, *after_name, *end;
} call_words[] = {
    [TOOLS_HERMES] = {"<tool_call>", "<tool_call>\n{\"name\": \"",
                      "\", \"arguments\": ", "}\n</tool_call>"},
    [TOOLS_LLAMA] = {"{\"name\": \"", "{\"name\": \"", "\", \"parameters\": ", "}"},
    [TOOLS_MISTRAL] = {"[TOOL_CALLS]", "[TOOL_CALLS][{\"name\": \"", "\", \"arguments\": ", "}]"},
    [TOOLS_ARGS] = {"[TOOL_CALLS]", "[TOOL_CALLS]", "[ARGS]", ""},
};

static void add_tag(struct request *r, const json_t *function)
{
    const struct call_words *w = &call_words[r->style];
    const char *name = json_string_value(json_object_get(function, "name"));
    const json_t *parameters = json_object_get(function, "parameters");
    if (r->function && strcmp(r->function, name))
        return;
    r->constraint.tag[r->constraint.n_tags++] = (struct constraint_tag){
        .begin = api_join(r, (const char *[]){w->before_name, name, w->after_name, NULL}),
        .schema = json_is_object(parameters) ? api_dump(r, parameters) : "{\"type\": \"object\"}",
        .end = w->end};
}

static void tag_tools(struct request *r)
{
    struct constraint *c = &r->constraint;
    size_t i;
    const json_t *tool;
    *c = (struct constraint){.kind = CONSTRAINT_TAGS,
                             .field = "tools",
                             .trigger = call_words[r->style].trigger,
                             .at_once = r->tool_choice == TOOLS_REQUIRED,
                             .once = !r->parallel_tool_calls || r->function ||
                                     r->style == TOOLS_LLAMA || r->style == TOOLS_MISTRAL};
    c->tag = pool_get(&r->pool, json_array_size(r->tools) * sizeof(*c->tag));
    json_array_foreach((json_t *)r->tools, i, tool) add_tag(r, json_object_get(tool, "function"));
}

void request_settle(struct request *r, bool thinks)
{
    bool calls = r->tools && r->tool_choice != TOOLS_OFF && r->style != TOOLS_NONE;
    if (calls && (r->constraint.kind == CONSTRAINT_NONE || r->tool_choice == TOOLS_REQUIRED))
        tag_tools(r);
    if (thinks && r->constraint.kind != CONSTRAINT_NONE) {
        r->constraint.open = r->opened ? NULL : r->think.open;
        r->constraint.after = r->think.close;
    }
}
