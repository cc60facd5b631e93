/* session.h - one sequence on a team: prompt in, tokens out. What `tandem run` stands on. */
#ifndef TANDEM_SESSION_H
#define TANDEM_SESSION_H

#include "engine/team.h"

struct session;

/* A session uses pages 0.. of the KV cache: one per team at a time. Free with session_free(). */
struct session *session_new(struct team *t, const struct plan *p);
void session_free(struct session *s);

struct session_stats {
    int prompt_tok, cached_tok, new_tok; /* cached: prompt tokens whose keys were still there */
    double prefill_s, decode_s;          /* wall clock */
};

/* When a rank dies or hangs, the ranks are replaced (team_again()) and the answer goes on; -EIO
 * when that is not possible.
 *
 * Make the sequence exactly ids[n] (what is stored of a common prefix is kept, the rest is
 * computed, in chunks, several on their way when the plan has stages), then generate until fn
 * returns false, max_new tokens are made or the context is full. fn sees every token, in order.
 * Stop tokens are fn's business. A prompt longer than the context is -E2BIG with both numbers. */
typedef bool session_token_fn(void *arg, int token);
int session_run(struct session *s, const int *ids, int n, int max_new,
                const struct sampling *sampling, session_token_fn *fn, void *arg,
                struct session_stats *stats, struct err *e);

/* Logits of every position of ids[n], from nothing: to[n][n_vocab], in steps of at most max_out
 * tokens. The team keeps logits. For tests and checks. */
int session_logits(struct session *s, const int *ids, int n, float *to, struct err *e);

#endif
