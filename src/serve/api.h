/* api.h - requests of the OpenAI API, with what vLLM adds: JSON text in, a struct out.
 *
 * No sockets and no clock. A request goes through three calls: request_parse() checks the fields
 * (serve/api.def is the table of them), request_prompts() makes tokens of its prompts, and
 * request_engine() fills what engine_submit() wants for each of its choices. The answer is written
 * by serve/reply.h.
 */
#ifndef TANDEM_API_H
#define TANDEM_API_H

#include "base/arena.h"
#include "engine/engine.h"
#include "model/folder.h"
#include "text/chat.h"
#include "text/think.h"
#include "text/tok.h"
#include "text/tools.h"

#include <jansson.h>

/* The paths: /v1/chat/completions, /v1/completions, /tokenize, /detokenize. */
enum api_kind { API_CHAT = 1, API_COMPLETIONS = 2, API_TOKENIZE = 4, API_DETOKENIZE = 8 };

/* What is wrong with a request, for its sender. reply_error() writes it. */
struct api_error {
    int status;                             /* of HTTP: 400, 404, 500 ... */
    char message[512], param[96], code[48]; /* param, code: "" for null */
};

/* What is served, the same for all requests; read-only, owned by the caller. */
struct api_model {
    const char *const
        *name; /* [n_names]; a request names one of them or none. name[0] is replied */
    int n_names;
    const struct tok *tok;
    struct chat *chat;        /* NULL: no chat template, so no chat */
    int ctx;                  /* tokens of prompt and answer together */
    int n_vocab;              /* logits of the model */
    struct sampling sampling; /* what holds where a request says nothing, see api_sampling() */
    const int *eos;           /* tokens that end an answer */
    int n_eos;
    int max_choices; /* of one request: its prompts times best_of; 0: 128 */
};

/* Defaults of the draws: OpenAI's (temperature 1, all else off), or where the model's
 * generation_config.json has its own, those. g may be NULL. */
struct sampling api_sampling(const struct generation *g, bool openai);

/* ------------------------------------------------------------------------------- the request */

struct api_texts { /* of a request; owned by it */
    const char **at;
    int n;
};
struct api_ids {
    int *at;
    int n;
};

struct api_prompt {
    const char *text; /* NULL: came as tokens */
    int *tok;         /* the request's; for text from request_prompts() on */
    int n;
};

/* What the answer's text must be; made of response_format, structured_outputs, guided_* and
 * tool_choice, for a grammar (text/grammar.h) to hold the draws to. */
enum constraint_kind {
    CONSTRAINT_NONE,
    CONSTRAINT_OBJECT,  /* any JSON object */
    CONSTRAINT_SCHEMA,  /* JSON by the schema `text` */
    CONSTRAINT_REGEX,   /* `text` */
    CONSTRAINT_CHOICE,  /* one of the choices */
    CONSTRAINT_GRAMMAR, /* `text`, EBNF */
    CONSTRAINT_TAGS     /* free text; wherever `trigger` was written, one of the tags goes on */
};

/* begin, JSON by the schema, end. The trigger is the beginning of every `begin`. */
struct constraint_tag {
    const char *begin, *schema, *end;
};

struct constraint {
    enum constraint_kind kind;
    const char *field;       /* of the request, for errors: "response_format" */
    const char *text;        /* the schema, pattern or grammar */
    struct api_texts choice; /* CONSTRAINT_CHOICE */
    const char *trigger;     /* CONSTRAINT_TAGS */
    struct constraint_tag *tag;
    int n_tags;
    bool at_once; /* the answer begins with a tag; nothing but tags and blanks in it */
    bool once;    /* and ends after one */
    /* Reasoning comes first and is free: the rest holds only after `after`; NULL: from the first
     * token on. With `open` an answer that does not begin with these words has no reasoning. */
    const char *open, *after;
};

struct request {
    enum api_kind kind;
    struct pool pool; /* of what hangs below */
    json_t *body;

    const char *model, *user, *request_id, *suffix;
    const json_t *messages; /* as the chat template wants them: content is text */
    const json_t *tools, *template_vars;
    enum { TOOLS_AUTO, TOOLS_OFF, TOOLS_REQUIRED } tool_choice;
    const char *function; /* the only one to be called; NULL: any */
    const char *reasoning_effort;
    bool parallel_tool_calls, continue_final_message;
    int add_generation_prompt, add_special_tokens; /* -1: not said, so as usual */

    struct api_prompt *prompt;
    int n_prompts, n, best_of; /* choices: n_prompts * best_of, of which n a prompt are replied */
    bool echo;

    struct sampling sampling;
    bool seeded; /* else the server gives each request a seed: request_seed() */
    int max_tokens, max_completion_tokens, min_tokens; /* -1: not said */
    struct api_texts stop, bad_words;
    struct api_ids stop_ids, allowed;
    bool include_stop, ignore_eos, skip_special;
    struct token_bias *bias;
    int n_bias;
    struct token_run *bad; /* bad_words as tokens, from request_prompts() on */
    int n_bad;
    int truncate; /* the last so many prompt tokens; -1: as many as fit; 0: all */
    int priority;
    float timeout; /* seconds; 0: none */
    const char *cache_salt;

    bool logprobs;                /* chat: asked for */
    int n_top, n_prompt_top;      /* alternatives; -1: no logprobs */
    bool stream, include_usage;   /* stream_options */
    bool return_ids, return_strs; /* token ids; /tokenize: their texts */

    enum tools_style style;   /* how the model writes tool calls; NONE where tools are not given */
    struct think_words think; /* around reasoning; open NULL: the model does not reason apart */
    bool opened;              /* the prompt has opened it */
    struct constraint constraint;
};

/* Parse n bytes of JSON. 0, or -EINVAL with e filled (status 400; 404 for an unknown model). What
 * was allocated is the request's in either case: end it with request_free(). */
int request_parse(enum api_kind kind, const char *text, size_t n, const struct api_model *m,
                  struct request *r, struct api_error *e);

/* Make tokens of every prompt: renders the chat template (which may take milliseconds and must not
 * run in two threads at once), encodes, checks against the context, settles the constraint. For
 * /tokenize the prompt's tokens are the answer. Errors as above. */
int request_prompts(struct request *r, const struct api_model *m, struct api_error *e);

/* How many engine requests it is: n_prompts * best_of. Choice c is of prompt c / best_of. */
int request_choices(const struct request *r);
const char *request_path(const struct request *r); /* where it was sent to */

/* A seed for a request that names none. Choices count up from it. */
void request_seed(struct request *r, uint64_t seed);

/* What to submit for one choice. Points into r and m; the guide is left empty, and client
 * and salt 0. */
void request_engine(const struct request *r, const struct api_model *m, int choice,
                    struct engine_request *to);

void request_free(struct request *r);

/* Fill e and return -EINVAL, so that a function can say: return api_refuse(e, "n", "...", ...). */
PRINTF(3, 4) int api_refuse(struct api_error *e, const char *param, const char *fmt, ...);

/* The table of fields as Markdown, for docs/API.md. */
void api_fields_markdown(FILE *to);

#endif
