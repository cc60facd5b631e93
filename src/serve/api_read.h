/* api_read.h - readers of the fields' values: JSON in, a member of struct request out. Private to
 * serve/api*.c. */
#ifndef TANDEM_API_READ_H
#define TANDEM_API_READ_H

#include "serve/api.h"

struct reading;

/* A row of api.def. */
struct api_field {
    int paths;
    const char *name;
    int (*read)(const struct reading *g, const json_t *v);
    size_t member; /* its offset in struct request */
    double lo, hi;
    const char *usual, *help;
    const char *kind; /* the reader's name */
};

/* A value being read: whose, by which row, and where to complain. */
struct reading {
    struct request *r;
    const struct api_model *m;
    struct api_error *e;
    const struct api_field *field;
};

/* The member that the row names. */
void *read_member(const struct reading *g);

int read_flag(const struct reading *g, const json_t *v);  /* bool */
int read_flag3(const struct reading *g, const json_t *v); /* int: 0 or 1 */
int read_whole(const struct reading *g, const json_t *v); /* int */
int read_real(const struct reading *g, const json_t *v);  /* float */
int read_top_k(const struct reading *g, const json_t *v);
int read_truncate(const struct reading *g, const json_t *v);
int read_seed(const struct reading *g, const json_t *v);
int read_text(const struct reading *g, const json_t *v);   /* const char * */
int read_texts(const struct reading *g, const json_t *v);  /* struct api_texts */
int read_ids(const struct reading *g, const json_t *v);    /* struct api_ids */
int read_object(const struct reading *g, const json_t *v); /* const json_t * */
int read_bias(const struct reading *g, const json_t *v);
int read_model(const struct reading *g, const json_t *v);
int read_refused(const struct reading *g, const json_t *v);
int read_stream_options(const struct reading *g, const json_t *v);
int read_prompts(const struct reading *g, const json_t *v);
int read_tokens(const struct reading *g, const json_t *v);

/* api_chat.c */
int read_messages(const struct reading *g, const json_t *v);
int read_tools(const struct reading *g, const json_t *v);
int read_tool_choice(const struct reading *g, const json_t *v);
int read_effort(const struct reading *g, const json_t *v);

/* api_format.c: each puts the request's one constraint into the member. */
int read_format(const struct reading *g, const json_t *v);
int read_structured(const struct reading *g, const json_t *v);
int read_guided_json(const struct reading *g, const json_t *v);
int read_guided_regex(const struct reading *g, const json_t *v);
int read_guided_choice(const struct reading *g, const json_t *v);
int read_guided_grammar(const struct reading *g, const json_t *v);

/* The constraint, once the request's style of tool calls and reasoning are known: that of the
 * tools, where nothing else was asked for, and where it begins. */
void request_settle(struct request *r, bool thinks);

/* How deep brackets nest in JSON text. */
size_t api_depth(const char *text, size_t n);
enum { API_DEPTH = 100 }; /* at most: a chat template's JSON reader counts them, too */

/* A text, or a list of lo to hi texts, none of them empty. */
int api_texts(const struct reading *g, const json_t *v, struct api_texts *to);

/* -EINVAL: the field must be `needed`, not what v is. */
int api_refuse_kind(const struct reading *g, const json_t *v, const char *needed);

/* v as JSON text that lives as long as the request. */
const char *api_dump(struct request *r, const json_t *v);

/* Words joined, as long as the request lives; the list ends with NULL. */
const char *api_join(struct request *r, const char *const *words);

#endif
