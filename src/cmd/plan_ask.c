/* plan_ask.c - the options of `tandem plan` as a question to the search. See plan.h. */
#include "cmd/device.h"
#include "cmd/open.h"
#include "cmd/plan.h"

#include <math.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------- small readers */

/* "500ms", "2s", "0.5": seconds. */
static int read_time(const char *what, const char *text, double *to, struct err *e)
{
    char *end;
    *to = 0;
    if (!text)
        return 0;
    *to = strtod(text, &end);
    if (!strcmp(end, "ms"))
        *to /= 1e3;
    else if (strcmp(end, "s") != 0 && *end)
        *to = 0;
    if (strchr("+-0123456789.", *text) && *to > 0 && *to < 1e6)
        return 0;
    return err_set(e, CMD_USAGE, "plan: --%s takes a time such as 500ms or 2s, not \"%.40s\"", what,
                   text);
}

/* One number of "memory:80,rate:2039"; 0 when it is not there. */
static double number_of(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, n) && at[n] == ':')
            return strtod(at + n + 1, NULL);
    return 0;
}

static int given_device(const struct options *o, struct hardware *h, struct err *e)
{
    struct hardware_ask ask = {.name = "given",
                               .devices = o->given.devices ? o->devices : 1,
                               .memory_bytes = number_of(o->device, "memory") * 1e9,
                               .memory_rate = number_of(o->device, "rate") * 1e9,
                               .math_rate = number_of(o->device, "math") * 1e12,
                               .link_rate = number_of(o->device, "link") * 1e9};
    for (const char *at = o->device; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, "memory:", 7) && strncmp(at, "rate:", 5) && strncmp(at, "math:", 5) &&
            strncmp(at, "link:", 5))
            return err_set(e, CMD_USAGE,
                           "plan: --device takes memory:GB,rate:GB/s,math:TFLOP/s,link:GB/s, not "
                           "\"%.40s\"",
                           at);
    return hardware_simple(&ask, h, e);
}

int plan_hardware(const struct options *o, struct hardware *h, struct err *e)
{
    if (o->given.plan_hardware && o->given.device)
        return err_set(e, CMD_USAGE, "plan: --hardware and --device: one of them");
    if (device_numbers(o))
        return given_device(o, h, e);
    if (!o->given.plan_hardware)
        return err_set(
            e, CMD_USAGE,
            "plan: for which machine? --hardware NAME|FILE, or --device with its numbers");
    return hardware_load(o->plan_hardware, h, e);
}

/* ------------------------------------------------------------------------------- the load */

static int lengths(const char *what, const char *text, double usual, struct lengths *to,
                   struct assumed *a, struct err *e)
{
    struct spread s = {SPREAD_UNIFORM, usual, usual};
    if (text) {
        if (spread_parse(text, what, &s, e))
            return CMD_USAGE;
    } else {
        assume(a, "%s %.0f, as nothing was said", what, usual);
    }
    *to = lengths_of_spread(&s);
    return 0;
}

static int from_trace(const struct options *o, struct demand *d, struct assumed *a, struct err *e)
{
    struct trace t = {0};
    int rc = trace_read(&t, o->plan_trace, e);
    if (!rc)
        rc = demand_of_trace(&t, o->given.plan_rate ? o->plan_rate : 0, d, e);
    if (!rc)
        assume(a,
               "of the trace: %.3g requests a second, prompts of %.0f tokens (cv %.2f), answers of "
               "%.0f (cv %.2f), squared cv of gaps %.3g%s",
               d->rate, d->prompt.mean, d->prompt.cv, d->output.mean, d->output.cv, d->cv2,
               d->cv2 > 4 ? ": so uneven that closed forms are rough; simulate the trace itself"
                          : "");
    trace_free(&t);
    return rc;
}

static int load(const struct options *o, struct demand *d, struct assumed *a, struct err *e)
{
    int rc = 0;
    if (o->given.plan_rate + o->given.plan_concurrency +
            (o->given.plan_trace && !o->given.plan_rate) !=
        1)
        return err_set(e, CMD_USAGE,
                       "plan: for which load? one of --rate X (requests a second), --concurrency N "
                       "(clients) or --trace FILE");
    d->rate = o->given.plan_rate ? o->plan_rate : 0;
    d->concurrency = o->given.plan_concurrency ? o->plan_concurrency : 0;
    d->cv2 = 1;
    if (o->given.plan_trace) {
        rc = from_trace(o, d, a, e);
    } else {
        rc = lengths("--prompt-tokens", o->plan_prompt, 1024, &d->prompt, a, e);
        if (!rc)
            rc = lengths("--output-tokens", o->plan_output, 256, &d->output, a, e);
    }
    if (o->given.plan_cv)
        d->cv2 = o->plan_cv * o->plan_cv;
    else if (d->rate > 0 && !o->given.plan_trace)
        assume(a, "arrivals as Poisson's (--cv 1)");
    return rc;
}

static int bounds(const struct options *o, struct demand *d, struct assumed *a, struct err *e)
{
    int rc = read_time("ttft", o->ttft, &d->ttft_s, e);
    if (!rc)
        rc = read_time("tpot", o->plan_tpot, &d->tpot_s, e);
    d->share = o->percentile / 100;
    d->spare = 0.1;
    if (!d->ttft_s && !d->tpot_s)
        assume(a, "no bound on latency (--ttft, --tpot): layouts need only keep up with the load");
    else if (!o->given.percentile)
        assume(a, "bounds are for 99 of 100 requests (--percentile 99)");
    assume(a, "a tenth of each bound and of the cache is left free, for what figures get wrong");
    return rc;
}

/* ------------------------------------------------------------------------------- the rest */

static bool cache_format(enum num t) { return t == NUM_F32 || t == NUM_BF16 || t == NUM_INT8; }

/* A list of formats in the place of the one that is there. */
static int formats(const char *option, const char *list, bool (*may)(enum num), enum num *to,
                   int *n, struct err *e)
{
    if (!list)
        return 0;
    *n = 0;
    for (const char *at = list, *end; *at; at = *end ? end + 1 : end) {
        end = at + strcspn(at, ",");
        int t = 0;
        while (t < NUM_COUNT &&
               (!may((enum num)t) || strlen(num_name((enum num)t)) != (size_t)(end - at) ||
                strncmp(at, num_name((enum num)t), (size_t)(end - at)) != 0))
            t++;
        if (t == NUM_COUNT || *n == NUM_COUNT)
            return err_set(e, CMD_USAGE, "plan: %s \"%.60s\": \"%.*s\" is no such format (%s)",
                           option, list, (int)(end - at), at,
                           may(NUM_INT4) ? "bf16, f16, f32, int8, int4, ..." : "bf16, f32, int8");
        to[(*n)++] = (enum num)t;
    }
    return *n ? 0 : err_set(e, CMD_USAGE, "plan: %s names no format", option);
}

static int shape(const struct options *o, struct asked *to, struct err *e)
{
    struct opened at;
    struct options plain = *o;
    const char *name = o->n_word ? o->word[0] : NULL;
    plain.tp = plain.given.tp ? 1 : 0,
    plain.ep = plain.pp = plain.dp = 1; /* the search's business */
    int rc = open_shape(&at, &plain, name, e);
    if (rc)
        return rc;
    struct question *q = &to->question;
    q->model = at.plan.model;
    q->isa = at.isa;
    q->n_weight = q->n_kv = 1;
    q->weight[0] = at.plan.weight;
    q->kv[0] = at.plan.kv;
    to->host = at.host;
    snprintf(to->model, sizeof(to->model), "%.200s", name ? name : "the demo model");
    if (!o->given.dtype && !o->dtypes)
        assume(&to->assumed, "weights in %s, as %s (--dtype)", num_name(q->weight[0]),
               at.store || at.packed ? "the files have them" : "is usual");
    open_close(&at);
    rc = formats("--dtypes", o->dtypes, num_can_weigh, q->weight, &q->n_weight, e);
    return rc ? rc : formats("--kvs", o->kvs, cache_format, q->kv, &q->n_kv, e);
}

static void devices(const struct options *o, struct asked *to)
{
    struct question *q = &to->question;
    int all = hardware_devices(&to->hardware);
    q->hardware = &to->hardware;
    q->devices = o->given.devices ? min_int(o->devices, all) : all;
    q->hosts = o->given.hosts ? o->hosts : 0;
    q->ep = o->given.ep ? o->ep : 0;
    q->tp = o->given.tp ? o->tp : 0, q->pp = o->given.pp ? o->pp : 0;
    q->dp = o->given.dp ? o->dp : 0;
    q->ctx = o->given.ctx ? o->ctx : 0;
    q->price_hour = o->given.price_hour ? o->price_hour : 0;
    if (to->hardware.kind == DEVICE_GPU)
        q->isa = ISA_AVX512_BF16; /* the numerics that GPUs are to have */
    else if (to->host.n_core == q->devices)
        q->host = &to->host;
    if (!o->given.ctx)
        assume(&to->assumed, "sequences of up to %d tokens (--ctx), the longest of the load%s",
               question_ctx(q),
               demand_ctx(&q->demand) > q->model.n_ctx ? ", cut at what the model was made for"
                                                       : "");
    if (!o->given.hosts && q->demand.rate > 0)
        assume(&to->assumed, "as many hosts as needed (--hosts), joined by a router in front only");
}

/* Runs of slices with whole experts that no layout can have. */
static int check_runs(const struct question *q, struct err *e)
{
    if (q->ep > 1 && !q->model.experts.n)
        return err_set(e, CMD_USAGE, "plan: --ep %d, but %s has no experts: leave it out", q->ep,
                       q->model.arch);
    if (q->ep > max_int(q->model.experts.n, 1))
        return err_set(e, CMD_USAGE, "plan: --ep %d exceeds the %d experts of a layer", q->ep,
                       q->model.experts.n);
    if (q->ep && q->tp % q->ep)
        return err_set(e, CMD_USAGE, "plan: --ep %d does not divide --tp %d", q->ep, q->tp);
    return 0;
}

int plan_ask_of(const struct options *o, struct asked *to, struct err *e)
{
    memset(to, 0, sizeof(*to));
    int rc = plan_hardware(o, &to->hardware, e);
    if (!rc)
        rc = load(o, &to->question.demand, &to->assumed, e);
    if (!rc)
        rc = bounds(o, &to->question.demand, &to->assumed, e);
    if (!rc)
        rc = shape(o, to, e);
    if (rc)
        return rc;
    devices(o, to);
    if ((rc = check_runs(&to->question, e)))
        return rc;
    int ctx = demand_ctx(&to->question.demand);
    if (o->given.ctx && o->ctx < ctx)
        return err_set(e, CMD_USAGE, "plan: --ctx %d, but the load has sequences of %d tokens",
                       o->ctx, ctx);
    return 0;
}
