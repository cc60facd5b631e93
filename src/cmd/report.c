/* report.c - see report.h. */
#include "cmd/report.h"

static const double MIB = 1 << 20;

static double rate(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

void report_text(FILE *to, const struct opened *at, struct team *t, const struct session_stats *s)
{
    const struct plan *p = &at->plan;
    struct team_memory host;
    struct rank_memory memory[PLAN_RANKS];
    struct rank_time time[PLAN_RANKS];
    int computed = s->prompt_tok - s->cached_tok;
    team_memory(t, &host, memory);
    team_times(t, time, true);
    fprintf(to, "prompt %d tokens", s->prompt_tok);
    if (s->cached_tok)
        fprintf(to, " (%d kept)", s->cached_tok);
    fprintf(to, ", %.1f tokens/s | answer %d tokens, %.1f tokens/s\n", rate(computed, s->prefill_s),
            s->new_tok, rate(s->new_tok - 1, s->decode_s));
    struct cache_use use = team_cache(t);
    if (use.hits + use.misses)
        fprintf(to, "experts: %.1f %% of %llu needed were kept, %.1f MiB read for the others\n",
                100 * rate((double)use.hits, (double)(use.hits + use.misses)),
                (unsigned long long)(use.hits + use.misses), (double)use.bytes / MIB);
    fprintf(to, "rank  core  layers  heads  weights MiB  kv MiB  scratch MiB  compute s  wait s  "
                "move s\n");
    for (int r = 0; r < plan_ranks(p); r++) {
        struct span l = p->stage[plan_stage(p, r)], h = plan_share(p, r, HEADS);
        char core[24], layers[24], heads[24];
        snprintf(layers, sizeof(layers), "%d-%d", l.lo, l.hi - 1);
        snprintf(heads, sizeof(heads), "%d-%d", h.lo, h.hi - 1);
        fprintf(to, "%4d %5s %7s %6s %12.2f %7.2f %12.2f %10.3f %7.3f %7.3f\n", r,
                open_place(core, at, r), layers, heads, (double)memory[r].weights / MIB,
                (double)memory[r].kv / MIB, (double)memory[r].scratch / MIB, time[r].compute,
                time[r].wait, time[r].move);
    }
    fprintf(to, "host %33.2f %7.2f %12.2f   one copy of weights and cache for all ranks\n",
            (double)host.weights / MIB, (double)host.kv / MIB,
            (double)(host.scratch + host.mailbox) / MIB);
}

static json_t *rank_json(int r, const struct rank_memory *m, const struct rank_time *t)
{
    return json_pack("{s:i, s:i, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "rank", r,
                     "core", m->core, "weight_bytes", (json_int_t)m->weights, "kv_bytes",
                     (json_int_t)m->kv, "scratch_bytes", (json_int_t)m->scratch, "compute_s",
                     t->compute, "wait_s", t->wait, "move_s", t->move, "idle_s", t->idle, "led",
                     (json_int_t)t->led, "calls", (json_int_t)t->calls, "bytes_read",
                     (json_int_t)t->bytes);
}

json_t *report_json(const struct plan *p, struct team *t, const struct session_stats *s)
{
    struct team_memory host;
    struct rank_memory memory[PLAN_RANKS];
    struct rank_time time[PLAN_RANKS];
    char hash[24];
    json_t *ranks = json_array();
    team_memory(t, &host, memory);
    team_times(t, time, true);
    for (int r = 0; r < plan_ranks(p); r++)
        json_array_append_new(ranks, rank_json(r, &memory[r], &time[r]));
    snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)plan_hash(p));
    struct cache_use use = team_cache(t);
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:f, s:f, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:o}", "plan_hash",
        hash, "prompt_tokens", s->prompt_tok, "cached_tokens", s->cached_tok, "new_tokens",
        s->new_tok, "prefill_s", s->prefill_s, "decode_s", s->decode_s, "host", "weight_bytes",
        (json_int_t)host.weights, "kv_bytes", (json_int_t)host.kv, "scratch_bytes",
        (json_int_t)(host.scratch + host.mailbox), "expert_cache", "hits", (json_int_t)use.hits,
        "misses", (json_int_t)use.misses, "bytes", (json_int_t)use.bytes, "ranks", ranks);
}
