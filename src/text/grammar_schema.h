/* grammar_schema.h - what the files of the schema compiler share. Private to text/.
 *
 * Each schema within a schema becomes one rule, compiled from a list of those still to do, so that
 * neither nesting nor recursion of schemas is recursion here. */
#ifndef TANDEM_GRAMMAR_SCHEMA_H
#define TANDEM_GRAMMAR_SCHEMA_H

#include "base/json.h"
#include "text/grammar_rules.h"

enum { SCHEMA_PROPERTIES_MAX = 1024, SCHEMA_CHOICES_MAX = 4096, SCHEMA_MERGE_COST = 1 << 20 };

struct place { /* where a schema stands, for error sentences */
    int up;    /* -1: the root */
    const char *key;
    int number; /* -1: none */
    int depth;  /* of schemas in schemas */
};

struct todo {
    const json_t *schema;
    int rule, place;
};

struct schema {
    struct rules *r;
    struct json_rules json;
    const char *what;
    json_t *root;
    json_t *made; /* array: owns what schemas were merged to */
    struct place *at;
    int n_places, place_room;
    struct todo *todo; /* all there were; the first `done` are compiled */
    int n_todo, todo_room, done;
    int *slot; /* open addressing by the schema's address: todo + 1 */
    size_t n_slots;
    size_t merge_cost;
};

/* Keep a failure, with the place in the schema. */
PRINTF(3, 4) void schema_fail(struct schema *s, int place, const char *fmt, ...);
int schema_place(struct schema *s, int up, const char *key, int number);

/* The rule of a schema at a place; it will be compiled. */
int schema_rule(struct schema *s, const json_t *schema, int place);

/* What "$ref" points to within the whole; NULL with a failure kept. */
const json_t *schema_target(struct schema *s, const char *ref, int place);

/* schema_merge.c: both at once, as one schema; owned by s. NULL with a failure kept. */
const json_t *schema_merge(struct schema *s, const json_t *a, const json_t *b, int place);

/* schema_types.c: from a node to the one behind. */
int schema_object(struct schema *s, int from, const json_t *o, int place);
int schema_array(struct schema *s, int from, const json_t *o, int place);
int schema_string(struct schema *s, int from, const json_t *o, int place);
int schema_number(struct schema *s, int from, const json_t *o, bool integer, int place);
int schema_literal(struct schema *s, int from, const json_t *value, int depth, int place);

/* A whole number >= 0 of a keyword; fallback when it is absent. */
int schema_count(struct schema *s, const json_t *o, const char *key, int fallback, int place);

#endif
