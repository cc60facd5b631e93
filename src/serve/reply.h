/* reply.h - the engine's events as replies of the OpenAI API: whole, or chunk by chunk.
 *
 * A reply belongs to one request (serve/api.h) and takes the events of all its choices. Stop
 * strings are found here, reasoning and tool calls are split out, nothing is sent that a stop
 * string may still swallow, and no half character. No sockets, no clock.
 */
#ifndef TANDEM_REPLY_H
#define TANDEM_REPLY_H

#include "serve/api.h"
#include "serve/reply_json.h"

struct reply;

struct reply_head {
    const char *id;          /* "" or NULL: made of request_id, or of `number` */
    uint64_t number;         /* unique: names the reply and its tool calls */
    long long created;       /* seconds since 1970 */
    const char *fingerprint; /* hash of the plan */
};

/* r (after request_prompts()), m and head's texts must outlive it. reply_free() ends it. */
struct reply *reply_new(const struct request *r, const struct api_model *m,
                        const struct reply_head *head);

/* Take an event of choice c. A stream's frames ("data: {...}\n\n") are appended to out; a reply
 * that is not streamed leaves it alone. Returns false when the choice needs no more tokens because
 * of a stop string or a complete call: cancel the engine's request; further events are ignored. */
bool reply_event(struct reply *p, int c, const struct engine_event *ev, struct out *out);

/* Every choice has ended; now reply_end() may be called. */
bool reply_done(const struct reply *p);

/* The rest: of a stream the chunk with usage (where asked for) and "data: [DONE]"; else the whole
 * body. When a choice failed the body is an error object and the status 500; returns the status
 * (200 for a stream, which says so in an error frame). */
int reply_end(struct reply *p, struct out *out);

void reply_free(struct reply *p);

/* Tokens so far of all choices, for logs and metrics. */
struct reply_usage {
    int prompt_tok, cached_tok, new_tok, reasoning_tok;
};
struct reply_usage reply_usage(const struct reply *p);

/* {"error": {...}} and nothing else: the body of a refusal. In a stream: data frame of the same. */
void reply_error(struct out *out, const struct api_error *e);
void reply_error_frame(struct out *out, const struct api_error *e);

/* Bodies of the small paths: /tokenize and /detokenize (r after request_prompts()), /v1/models. */
void reply_tokenize(struct out *out, const struct request *r, const struct api_model *m);
void reply_detokenize(struct out *out, const struct request *r, const struct api_model *m);
void reply_models(struct out *out, const struct api_model *m, long long created);

#endif
