/* serve.c - `tandem serve`: the model, the engine and the HTTP server put together, and signals. */
#include "base/notify.h"
#include "cmd/cmd.h"
#include "cmd/experts.h"
#include "cmd/open.h"
#include "cmd/priced.h"
#include "cmd/progress.h"
#include "cmd/words.h"
#include "serve/server.h"
#include "serve/tls.h"

#include <signal.h>

struct serving {
    const struct options *o;
    struct opened at, draft_at; /* draft_at.folder "": no draft model */
    struct draft_model draft;
    struct words words;
    const char *name[OPT_LIST_MAX];
    struct api_model model;
    struct event_base *base;
    struct event *signal[3], *watchdog;
    struct tls *tls;
    struct priced *priced; /* NULL: no profile */
    struct experts_asked experts;
    struct server *server;
};

/* ------------------------------------------------------------------------------- what is served */

static const char *folder_name(const struct opened *at)
{
    if (at->demo)
        return "demo";
    char *path = (char *)at->folder, *end = path + strlen(path);
    while (end > path + 1 && end[-1] == '/')
        *--end = 0;
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void describe(struct serving *s)
{
    const struct options *o = s->o;
    int n = 0;
    for (; n < o->served_name.n; n++)
        s->name[n] = o->served_name.at[n];
    if (!n)
        s->name[n++] = folder_name(&s->at);
    s->model = (struct api_model){
        .name = s->name,
        .n_names = n,
        .tok = s->words.tok,
        .chat = s->words.chat,
        .ctx = s->at.plan.ctx,
        .n_vocab = s->at.plan.model.n_vocab,
        .sampling = api_sampling(&s->at.generation, !strcmp(o->defaults, "openai")),
        .eos = s->words.eos,
        .n_eos = s->words.n_eos,
    };
}

/* ------------------------------------------------------------------------------- the first screen
 */

static void show_ranks(struct serving *s, FILE *to)
{
    const struct plan *p = &s->at.plan;
    const double mib = 1 << 20;
    struct team_memory host;
    struct rank_memory rank[PLAN_RANKS];
    engine_memory(fleet_engine(server_fleet(s->server), 0), &host, rank);
    for (int r = 0; r < plan_ranks(p); r++) {
        struct span layers = p->stage[plan_stage(p, r)];
        char core[24];
        fprintf(to,
                "  rank %-3d %s%s, layers %d-%d, weights %.0f MiB, cache %.0f MiB, scratch %.0f "
                "MiB\n",
                r, s->at.gpus.n ? "" : "core ", open_place(core, &s->at, r), layers.lo,
                layers.hi - 1, (double)rank[r].weights / mib, (double)rank[r].kv / mib,
                (double)rank[r].scratch / mib);
    }
}

static void show(struct serving *s, double took)
{
    const struct plan *p = &s->at.plan;
    FILE *to = stderr;
    char size[80];
    fprintf(to, "model    %s: %s, %s, %s weights, %s cache\n", s->name[0], p->model.arch,
            open_parameters(size, p), num_name(p->weight), num_name(p->kv));
    if (p->dp > 1)
        fprintf(to, "replicas %d, each of this kind:\n", p->dp);
    fprintf(
        to,
        "plan     tp %d, pp %d, %d thread%s per rank; %d sequences at once of up to %d tokens\n",
        p->tp, p->pp, p->threads, p->threads > 1 ? "s" : "", p->max_seq, p->ctx);
    show_ranks(s, to);
    fprintf(to, "cache    %lld tokens (%.0f MiB)\n", (long long)p->pages * KV_PAGE,
            (double)plan_kv_bytes(p, PLAN_WHOLE) / (1 << 20));
    if (!s->model.chat)
        fprintf(to, "chat     no: the model has no chat template; /v1/completions serves\n");
    fprintf(to, "ready    in %.2f s: ", took);
    if (s->o->unix_socket)
        fprintf(to, "%s\n", s->o->unix_socket);
    else
        fprintf(to, "http%s://%s:%d\n", s->tls ? "s" : "", s->o->host, server_port(s->server));
}

/* ------------------------------------------------------------------------------- running */

static void on_signal(evutil_socket_t signal, short what, void *arg)
{
    struct serving *s = arg;
    struct err e;
    (void)what;
    if (!s->server)
        return;
    if (signal != SIGHUP) {
        fprintf(stderr, "tandem: ending\n");
        notify_manager("STOPPING=1");
        server_drain(s->server);
    } else if (server_reload(s->server, &e)) {
        fprintf(stderr, "tandem: not reloaded: %s\n", e.text);
    }
}

static int open_tls(struct serving *s, struct err *e)
{
    const char *cert = s->o->tls_cert, *key = s->o->tls_key;
    if (!cert && !key)
        return 0;
    if (!cert || !key)
        return err_set(e, -EINVAL, "--tls-cert and --tls-key belong together: give both");
    return tls_open(&s->tls, cert, key, e);
}

/* The service manager ends a server whose steps have stopped. */
static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
    struct serving *s = arg;
    struct err e;
    (void)fd;
    (void)what;
    if (server_alive(s->server, &e))
        notify_manager("WATCHDOG=1");
}

static void tell_manager(struct serving *s)
{
    double every = notify_watchdog_s() / 3;
    notify_manager("READY=1");
    if (every <= 0)
        return;
    s->watchdog = event_new(s->base, -1, EV_PERSIST, on_watchdog, s);
    must(s->watchdog);
    event_add(s->watchdog, &(struct timeval){.tv_sec = (time_t)every,
                                             .tv_usec = (long)((every - (long)every) * 1e6)});
}

static int watch_signals(struct serving *s, struct err *e)
{
    static const int end[] = {SIGTERM, SIGINT, SIGHUP};
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < COUNT(end); i++) {
        s->signal[i] = evsignal_new(s->base, end[i], on_signal, s);
        if (!s->signal[i] || event_add(s->signal[i], NULL))
            return err_set(e, -ENOMEM, "cannot watch signals");
    }
    return 0;
}

static int start(struct serving *s, struct err *e)
{
    const struct options *o = s->o;
    struct progress progress = progress_begin(o->quiet);
    struct server_opts opts = {
        .http = {.host = o->host,
                 .port = o->port,
                 .socket_path = o->unix_socket,
                 .tls = s->tls,
                 .max_connections = o->max_connections,
                 .max_body = o->max_body,
                 .max_header = 64 << 10,
                 .max_backlog = 4 << 20,
                 .request_s = 60,
                 .stall_s = 30},
        .model = &s->model,
        .plan = &s->at.plan,
        .store = s->at.store,
        .engine = {.team = {.isa = s->at.isa,
                            .progress = progress_show,
                            .arg = &progress,
                            .packed = s->at.packed,
                            .gpus = open_gpus(&s->at),
                            .host = &s->at.host,
                            .patience_s = o->patience},
                   .queue = {o->max_queue, (size_t)o->max_queue_tokens, o->max_ttft},
                   .draft = o->given.draft_tokens ? o->draft_tokens
                            : s->draft.plan       ? 4
                                                  : 0,
                   .draft_model = s->draft.plan ? &s->draft : NULL,
                   .tpot_s = o->tpot,
                   .experts = {.layer = s->experts.layer,
                               .rebalance = s->experts.every_s >= 0,
                               .every_s = s->experts.every_s,
                               .redundant = o->redundant_experts},
                   .price = priced_for(s->priced)},
        .version = TANDEM_VERSION,
        .drain_s = o->drain,
        .key_file = o->api_key_file,
        .access_log = o->access_log,
        .admin_socket = o->admin_socket,
        .origin = o->origin.at,
        .n_origin = o->origin.n,
    };
    int rc = expert_cache_ask(&opts.engine.team.expert_cache, o, &s->at, e);
    if (!rc)
        rc = server_start(&s->server, s->base, &opts, e);
    double took = progress_end(&progress);
    if (!rc && !o->quiet)
        show(s, took);
    if (!rc)
        tell_manager(s);
    return rc;
}

static void close_serving(struct serving *s)
{
    server_free(s->server);
    for (size_t i = 0; i < COUNT(s->signal); i++)
        if (s->signal[i])
            event_free(s->signal[i]);
    if (s->base)
        event_base_free(s->base);
    if (s->watchdog)
        event_free(s->watchdog);
    tls_close(s->tls);
    priced_close(s->priced);
    experts_asked_free(&s->experts);
    words_close(&s->words);
    open_close(&s->draft_at);
    open_close(&s->at);
}

/* The draft model: one rank, as many sequences and as much context as the model's, a quarter of its
 * cache at most. */
static int open_draft(struct serving *s, struct err *e)
{
    struct options o = *s->o;
    const struct plan *p = &s->at.plan;
    if (!o.draft)
        return 0;
    o.tp = o.pp = o.dp = 1;
    o.sp = false, o.plan = NULL, o.dtype = o.kv = "auto";
    o.shares = 0;
    o.given.threads = true, o.threads = p->threads;
    o.given.ctx = true, o.ctx = p->ctx;
    o.max_seqs = p->max_seq;
    o.kv_memory = plan_kv_bytes(p, PLAN_WHOLE) / 4;
    int rc = open_model(&s->draft_at, &o, o.draft, e);
    if (rc)
        return err_add(e, rc, "--draft");
    struct plan *both[] = {&s->at.plan, &s->draft_at.plan};
    for (size_t i = 0; i < COUNT(both); i++)
        for (int r = 0; r < plan_ranks(both[i]); r++)
            both[i]->core[r] = -1; /* they take turns on the cores, and must not spin there */
    s->draft = (struct draft_model){.plan = &s->draft_at.plan,
                                    .store = s->draft_at.store,
                                    .team = {.isa = s->draft_at.isa,
                                             .packed = s->draft_at.packed,
                                             .gpus = open_gpus(&s->draft_at),
                                             .host = &s->draft_at.host,
                                             .patience_s = s->o->patience}};
    return 0;
}

int cmd_serve(const struct options *o, struct err *e)
{
    struct serving s = {.o = o};
    int rc = open_model(&s.at, o, o->n_word ? o->word[0] : NULL, e);
    if (rc)
        return rc;
    for (int i = 0; i < s.at.notes.n; i++)
        fprintf(stderr, "note: %s\n", s.at.notes.text[i]);
    rc = words_open(&s.words, &s.at, false, e);
    if (!rc)
        rc = open_draft(&s, e);
    if (!rc) {
        describe(&s);
        s.base = event_base_new();
        rc = s.base ? watch_signals(&s, e) : err_set(e, -ENOMEM, "cannot make an event loop");
    }
    if (!rc)
        rc = open_tls(&s, e);
    if (!rc && o->hardware)
        rc = priced_open(&s.priced, &s.at.plan, o->hardware, e);
    if (!rc)
        rc = experts_ask(&s.experts, o, &s.at.plan, e);
    if (!rc)
        rc = start(&s, e);
    if (!rc)
        event_base_dispatch(s.base);
    close_serving(&s);
    return rc;
}
