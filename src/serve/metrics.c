/* metrics.c - see metrics.h. */
#include "serve/metrics.h"
#include "serve/experts.h"

#include <time.h>
#include <unistd.h>

void metrics_init(struct metrics *m, const char *model_name)
{
    char name[120];
    memset(m, 0, sizeof(*m));
    metric_escape(name, sizeof(name), model_name);
    snprintf(m->labels, sizeof(m->labels), "model_name=\"%s\"", name);
    struct histogram *seconds[] = {&m->ttft,    &m->itl,    &m->tpot, &m->e2e,      &m->queue,
                                   &m->prefill, &m->decode, &m->step, &m->inference};
    struct histogram *tokens[] = {&m->step_rows, &m->prompt_tok, &m->new_tok, &m->max_tok,
                                  &m->choices};
    for (size_t i = 0; i < COUNT(seconds); i++)
        *seconds[i] = histogram_seconds();
    for (size_t i = 0; i < COUNT(tokens); i++)
        *tokens[i] = histogram_tokens();
}

void metrics_request(struct metrics *m, int choices, int max_tok)
{
    histogram_add(&m->choices, choices);
    histogram_add(&m->max_tok, max_tok);
}

void metrics_event(struct metrics *m, struct metrics_choice *c, const struct engine_event *ev,
                   double now)
{
    if (ev->prompt < 0 && ev->token >= 0) {
        histogram_add(c->n_new ? &m->itl : &m->ttft, now - (c->n_new ? c->last : c->arrived));
        if (!c->n_new)
            c->first = now;
        c->n_new++;
        c->last = now;
    }
    if (ev->finish == RUNNING)
        return;
    histogram_add(&m->e2e, now - c->arrived);
    histogram_add(&m->queue, ev->queued_s);
    histogram_add(&m->prefill, ev->prefill_s);
    histogram_add(&m->decode, ev->decode_s);
    histogram_add(&m->inference, ev->prefill_s + ev->decode_s);
    histogram_add(&m->prompt_tok, c->n_prompt);
    histogram_add(&m->new_tok, c->n_new);
    if (c->n_new > 1)
        histogram_add(&m->tpot, (c->last - c->first) / (c->n_new - 1));
}

static void take_steps(struct metrics *m, struct engine *x)
{
    struct engine_step step[64];
    for (int n; (n = engine_steps(x, step, COUNT(step))) > 0;)
        for (int i = 0; i < n; i++) {
            histogram_add(&m->step, step[i].seconds);
            histogram_add(&m->step_rows, step[i].rows);
            m->predicted_s += step[i].predicted_s;
            if (m->priced && step[i].predicted_s > 0)
                drift_add(&m->drift, step[i].rows, step[i].seconds, step[i].predicted_s);
        }
}

void metrics_steps(struct metrics *m, struct fleet *f)
{
    for (int i = 0; i < fleet_size(f); i++)
        take_steps(m, fleet_engine(f, i));
}

/* ------------------------------------------------------------------------------- writing */

struct writing {
    FILE *to;
    const struct metrics *m;
};

static void family(const struct writing *w, const char *prefix, const char *name, const char *type,
                   const char *help, char full[96])
{
    snprintf(full, 96, "%s:%s", prefix, name);
    metric_family(w->to, full, type, help);
}

static void one(const struct writing *w, const char *prefix, const char *name, const char *type,
                const char *help, double value)
{
    char full[96];
    family(w, prefix, name, type, help, full);
    metric_value(w->to, full, w->m->labels, value);
}

/* Under both prefixes. */
static void both(const struct writing *w, const char *name, const char *type, const char *help,
                 double value)
{
    one(w, "tandem", name, type, help, value);
    one(w, "vllm", name, type, help, value);
}

static void both_histograms(const struct writing *w, const char *name, const char *help,
                            const struct histogram *h)
{
    static const char *const prefix[] = {"tandem", "vllm"};
    for (size_t i = 0; i < COUNT(prefix); i++) {
        char full[96];
        family(w, prefix[i], name, "histogram", help, full);
        metric_histogram(w->to, full, w->m->labels, h);
    }
}

static void put_finished(const struct writing *w, const struct engine_stats *s)
{
    static const char *const reason[] = {[FINISH_STOP] = "stop",
                                         [FINISH_LENGTH] = "length",
                                         [FINISH_CANCELLED] = "abort",
                                         [FINISH_DEADLINE] = "deadline",
                                         [FINISH_FAILED] = "error"};
    static const char *const prefix[] = {"tandem", "vllm"};
    for (size_t i = 0; i < COUNT(prefix); i++) {
        char full[96], labels[224];
        family(w, prefix[i], "request_success_total", "counter", "Requests ended, by reason.",
               full);
        for (int f = FINISH_STOP; f <= FINISH_FAILED; f++) {
            snprintf(labels, sizeof(labels), "%s,finished_reason=\"%s\"", w->m->labels, reason[f]);
            metric_value(w->to, full, labels, (double)s->finished[f]);
        }
    }
}

static void put_stats(const struct writing *w, const struct engine_stats *s)
{
    both(w, "num_requests_running", "gauge", "Sequences that have pages.", s->running);
    both(w, "num_requests_waiting", "gauge", "Sequences that wait for them.", s->waiting);
    both(w, "kv_cache_usage_perc", "gauge", "Share of pages in use, 1 is all.",
         s->pages ? (double)s->pages_used / s->pages : 0);
    both(w, "num_preemptions_total", "counter", "Sequences that had to give their pages back.",
         (double)s->preempted);
    both(w, "prompt_tokens_total", "counter", "Tokens of prompts begun.", (double)s->prompt_tok);
    both(w, "generation_tokens_total", "counter", "Tokens drawn.", (double)s->new_tok);
    both(w, "prefix_cache_queries_total", "counter", "Tokens of prompts looked up.",
         (double)s->prompt_tok);
    both(w, "prefix_cache_hits_total", "counter", "Tokens of prompts that were stored already.",
         (double)s->cached_tok);
    both(w, "prompt_tokens_cached_total", "counter", "The same, under its newer name.",
         (double)s->cached_tok);
    both(w, "spec_decode_num_draft_tokens_total", "counter", "Tokens guessed.", (double)s->drafted);
    both(w, "spec_decode_num_accepted_tokens_total", "counter", "Guesses that were right.",
         (double)s->accepted);
    put_finished(w, s);
    one(w, "tandem", "requests_total", "counter", "Requests admitted.", (double)s->submitted);
    one(w, "tandem", "waiting_tokens", "gauge", "Tokens of prompts that wait.", s->waiting_tok);
    one(w, "tandem", "kv_pages", "gauge", "Pages of 16 tokens.", s->pages);
    one(w, "tandem", "kv_pages_cached", "gauge", "Pages without users that are kept for reuse.",
        s->pages_cached);
    one(w, "tandem", "steps_total", "counter", "Steps committed.", (double)s->steps);
    one(w, "tandem", "busy_seconds_total", "counter", "Time in steps.", s->busy_s);
    one(w, "tandem", "host_seconds_total", "counter",
        "Time in the scheduler, in part while a step runs.", s->host_s);
    one(w, "tandem", "step_fixed_seconds", "gauge", "What a step costs at least, as learnt.",
        s->step_s);
    one(w, "tandem", "step_row_seconds", "gauge", "What one more row costs, as learnt.",
        s->token_s);
    one(w, "tandem", "last_commit_age_seconds", "gauge", "Since a step was committed; 0 when idle.",
        s->last_commit_s);
    one(w, "tandem", "restarts_total", "counter", "Times the ranks were started again.",
        (double)s->restarts);
    one(w, "tandem", "ranks_hung_total", "counter",
        "Of these, those where nobody had died, but no rank got on.", (double)s->hung);
    one(w, "tandem", "restarts_kept_total", "counter",
        "Of them, those that kept weights and cache.", (double)s->replaced);
    one(w, "tandem", "restart_seconds_total", "counter", "Time in them.", s->restart_s);
    one(w, "tandem", "gpu_weights_copied_bytes_total", "counter",
        "Weights that ranks copied to GPUs.", (double)s->copied);
}

/* Steps of so many rows and more, up to the next class. */
static void put_classes(const struct writing *w, enum num weight, const char *name,
                        const char *help, size_t at)
{
    char full[96], labels[224];
    family(w, "tandem", name, "counter", help, full);
    for (int c = 0; c < DRIFT_CLASSES; c++) {
        const struct drift_class *of = &w->m->drift.of[c];
        if (!of->steps)
            continue;
        double value;
        memcpy(&value, (const char *)of + at, sizeof(value));
        snprintf(labels, sizeof(labels), "%s,dtype=\"%s\",rows=\"%d\"", w->m->labels,
                 num_name(weight), 1 << c);
        metric_value(w->to, full, labels, value);
    }
}

static void put_drift(const struct writing *w, enum num weight)
{
    one(w, "tandem", "step_price_ratio", "gauge",
        "Median of measured to predicted time of the last 512 steps; 0: too few yet.",
        drift_median(&w->m->drift));
    put_classes(w, weight, "step_seconds_by_rows_total", "Time of steps, by their rows at least.",
                offsetof(struct drift_class, measured_s));
    put_classes(w, weight, "step_predicted_seconds_by_rows_total",
                "What the hardware profile says they take, by their rows at least.",
                offsetof(struct drift_class, predicted_s));
}

static void put_histograms(const struct writing *w)
{
    const struct metrics *m = w->m;
    both_histograms(w, "time_to_first_token_seconds", "From arrival to the first token.", &m->ttft);
    both_histograms(w, "inter_token_latency_seconds", "Between two tokens.", &m->itl);
    both_histograms(w, "request_time_per_output_token_seconds",
                    "Mean time of a token after the first, by request.", &m->tpot);
    both_histograms(w, "e2e_request_latency_seconds", "From arrival to the end.", &m->e2e);
    both_histograms(w, "request_queue_time_seconds", "From arrival to the first step.", &m->queue);
    both_histograms(w, "request_prefill_time_seconds", "From the first step to the first token.",
                    &m->prefill);
    both_histograms(w, "request_inference_time_seconds", "From the first step to the end.",
                    &m->inference);
    both_histograms(w, "request_decode_time_seconds", "From the first token to the end.",
                    &m->decode);
    both_histograms(w, "request_prompt_tokens", "Tokens of a prompt.", &m->prompt_tok);
    both_histograms(w, "request_generation_tokens", "Tokens of an answer.", &m->new_tok);
    both_histograms(w, "request_params_max_tokens", "Tokens asked for at most.", &m->max_tok);
    both_histograms(w, "request_params_n", "Choices asked for.", &m->choices);
    char full[96];
    family(w, "vllm", "iteration_tokens_total", "histogram", "Rows of a step.", full);
    metric_histogram(w->to, full, m->labels, &m->step_rows);
    family(w, "tandem", "step_rows", "histogram", "Rows of a step.", full);
    metric_histogram(w->to, full, m->labels, &m->step_rows);
    family(w, "tandem", "step_seconds", "histogram", "Time of a step.", full);
    metric_histogram(w->to, full, m->labels, &m->step);
    one(w, "tandem", "step_predicted_seconds_total", "counter",
        "What steps were expected to take; compare with tandem:step_seconds_sum.", m->predicted_s);
}

/* What each rank spent: the one that waits least made the others wait. Ranks of replica i count on
 * from i times the ranks of one. */
static void put_rank_times(const struct writing *w, struct fleet *f, int ranks)
{
    static const struct {
        const char *name, *help;
        size_t at;
    } seconds[] = {
        {"rank_compute_seconds_total", "Time in kernels.", offsetof(struct rank_time, compute)},
        {"rank_wait_seconds_total", "Time waiting for other ranks.",
         offsetof(struct rank_time, wait)},
        {"rank_transfer_seconds_total", "Time reading and adding what others sent.",
         offsetof(struct rank_time, move)},
        {"rank_idle_seconds_total",
         "Time between the end of a step and what the next one computes; without requests too.",
         offsetof(struct rank_time, idle)}};
    struct rank_time time[PLAN_RANKS];
    char full[96], labels[224];
    for (size_t i = 0; i < COUNT(seconds); i++) {
        family(w, "tandem", seconds[i].name, "counter", seconds[i].help, full);
        for (int x = 0; x < fleet_size(f); x++) {
            engine_times(fleet_engine(f, x), time, false);
            for (int r = 0; r < ranks; r++) {
                double value;
                memcpy(&value, (char *)&time[r] + seconds[i].at, sizeof(value));
                snprintf(labels, sizeof(labels), "%s,rank=\"%d\"", w->m->labels, x * ranks + r);
                metric_value(w->to, full, labels, value);
            }
        }
    }
}

static void put_late_ranks(const struct writing *w, struct fleet *f, int ranks)
{
    uint64_t late[PLAN_RANKS];
    char full[96], labels[224];
    family(w, "tandem", "rank_late_steps_total", "counter",
           "Steps in which the others waited for this rank: it waited least.", full);
    for (int x = 0; x < fleet_size(f); x++) {
        engine_late(fleet_engine(f, x), late);
        for (int r = 0; r < ranks; r++) {
            snprintf(labels, sizeof(labels), "%s,rank=\"%d\"", w->m->labels, x * ranks + r);
            metric_value(w->to, full, labels, (double)late[r]);
        }
    }
}

/* Of the control process, as Prometheus' own clients name them. */
static void put_process(FILE *to)
{
    long pages = 0;
    struct timespec cpu;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm && fscanf(statm, "%*d %ld", &pages) == 1) {
        metric_family(to, "process_resident_memory_bytes", "gauge", "Resident memory.");
        metric_value(to, "process_resident_memory_bytes", "",
                     (double)pages * (double)sysconf(_SC_PAGESIZE));
    }
    if (statm)
        fclose(statm);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    metric_family(to, "process_cpu_seconds_total", "counter", "Time on processors.");
    metric_value(to, "process_cpu_seconds_total", "",
                 (double)cpu.tv_sec + 1e-9 * (double)cpu.tv_nsec);
}

static void put_rank_memory(const struct writing *w, struct fleet *f, int ranks)
{
    static const char *const kind[] = {"weights", "kv", "scratch"};
    struct rank_memory memory[PLAN_RANKS];
    struct team_memory host;
    char full[96], labels[224];
    family(w, "tandem", "rank_memory_bytes", "gauge", "Memory a rank reaches, by kind.", full);
    for (int x = 0; x < fleet_size(f); x++) {
        memset(memory, 0, sizeof(memory));
        engine_memory(fleet_engine(f, x), &host, memory);
        for (int r = 0; r < ranks; r++) {
            const struct rank_memory *m = &memory[r];
            const double bytes[] = {(double)m->weights, (double)m->kv, (double)m->scratch};
            for (size_t k = 0; k < COUNT(kind); k++) {
                snprintf(labels, sizeof(labels), "%s,rank=\"%d\",kind=\"%s\"", w->m->labels,
                         x * ranks + r, kind[k]);
                metric_value(w->to, full, labels, bytes[k]);
            }
        }
    }
}

void metrics_write(FILE *to, const struct metrics *m, struct fleet *f, const struct plan *p)
{
    struct writing w = {to, m};
    struct engine_stats s;
    char full[96], labels[256];
    fleet_stats(f, &s);
    put_stats(&w, &s);
    put_histograms(&w);
    if (m->priced)
        put_drift(&w, p->weight);
    put_rank_times(&w, f, plan_ranks(p));
    put_late_ranks(&w, f, plan_ranks(p));
    put_rank_memory(&w, f, plan_ranks(p));
    experts_metrics(to, f, p, m->labels);
    put_process(to);
    one(&w, "tandem", "http_connections", "gauge", "Connections of clients.", m->connections);
    family(&w, "tandem", "refused_requests_total", "counter", "Requests refused, by why.", full);
    static const char *const why[] = {"bad", "busy", "ending"};
    for (size_t i = 0; i < COUNT(why); i++) {
        snprintf(labels, sizeof(labels), "%s,why=\"%s\"", m->labels, why[i]);
        metric_value(to, full, labels, (double)m->refused[i]);
    }
    family(&w, "vllm", "cache_config_info", "gauge", "How the cache is laid out.", full);
    snprintf(labels, sizeof(labels),
             "%s,block_size=\"16\",num_gpu_blocks=\"%d\",cache_dtype=\"%s\"", m->labels, p->pages,
             num_name(p->kv));
    metric_value(to, full, labels, 1);
}
