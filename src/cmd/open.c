/* open.c - see open.h. */
#include "cmd/open.h"
#include "base/place.h"
#include "cmd/cmd.h"
#include "cmd/device.h"
#include "cmd/experts.h"
#include "plan/place.h"
#include "run/gpu.h"
#include "run/room.h"

#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------- the model */

static bool has_config(const char *folder)
{
    char path[PATH_MAX + 16];
    snprintf(path, sizeof(path), "%s/config.json", folder);
    return access(path, R_OK) == 0;
}

int open_demo(char folder[PATH_MAX], struct err *e)
{
    const char *chosen = getenv("TANDEM_DEMO");
    if (place_find(folder, "TANDEM_DEMO", "models/demo", TANDEM_DEMO_INSTALLED, TANDEM_DEMO_SOURCE,
                   "config.json"))
        return 0;
    if (chosen)
        return err_set(e, -ENOENT, "TANDEM_DEMO is %.200s, but no config.json is there", chosen);
    return err_set(e, -ENOENT,
                   "the demo model is neither in %s nor in %s: name a model folder, or set "
                   "TANDEM_DEMO to the demo's",
                   TANDEM_DEMO_INSTALLED, TANDEM_DEMO_SOURCE);
}

static int find_folder(struct opened *to, const char *model, struct err *e)
{
    struct stat st;
    to->demo = !model;
    if (!model)
        return open_demo(to->folder, e);
    if (strlen(model) >= PATH_MAX || stat(model, &st))
        return err_set(e, -ENOENT,
                       "no model at %.200s: name a folder with config.json, *.safetensors and "
                       "tokenizer.json, or a GGUF file (nothing is downloaded)",
                       model);
    if (S_ISDIR(st.st_mode) && !has_config(model))
        return err_set(e, -ENOENT, "%.200s has no config.json: is it a Hugging Face model folder?",
                       model);
    snprintf(to->folder, sizeof(to->folder), "%s", model);
    return 0;
}

/* ------------------------------------------------------------------------------- the plan */

int open_isa(const char *name, enum isa *isa, struct err *e)
{
    *isa = isa_best();
    if (!strcmp(name, "auto"))
        return 0;
    for (int i = 0; i < ISA_COUNT; i++)
        if (!strcmp(isa_name((enum isa)i), name)) {
            *isa = (enum isa)i;
            if (isa_here(*isa))
                return 0;
        }
    return err_set(e, -ENOTSUP, "--isa %s: this machine lacks these instructions; its best is %s",
                   name, isa_name(isa_best()));
}

/* The format that most bytes of the files are in, or fp8 when layers are; bf16, as most are, when
 * there are no files. */
static enum num stored_type(const struct store *s)
{
    size_t bytes[NUM_COUNT] = {0};
    enum num most = NUM_BF16;
    for (int i = 0; s && i < store_count(s); i++)
        if (store_at(s, i)->type < NUM_COUNT)
            bytes[store_at(s, i)->type] += store_at(s, i)->bytes;
    for (int i = NUM_F32; i < NUM_COUNT; i++)
        if (num_can_weigh((enum num)i) && bytes[i] > bytes[most])
            most = (enum num)i;
    return bytes[NUM_FP8] ? NUM_FP8 : most;
}

static enum num choose_num(const char *name, enum num automatic)
{
    const enum num named = num_named(name);
    return named < NUM_COUNT ? named : automatic;
}

static int sequence_pages(const struct plan *p) { return (p->ctx + KV_PAGE - 1) / KV_PAGE; }

/* On as few GPUs as hold the weights and one sequence, when the user does not say on how many. */
static int make_on_gpus(struct plan *p, const struct model *m, struct plan_ask *ask,
                        const struct gpus *g, struct err *e)
{
    const bool asked = ask->tp || ask->pp > 1;
    int rc;
    ask->tp = max_int(ask->tp, 1);
    while (!(rc = plan_make(p, m, ask, e)) && !asked && ask->tp * max_int(ask->dp, 1) < g->n &&
           gpu_pages(p, g) < sequence_pages(p))
        ask->tp++;
    return rc;
}

/* No more pages than fit beside weights and scratch; that one sequence fits is checked with all the
 * rest. */
static int fit_gpus(struct plan *p, const struct model *m, struct plan_ask *ask,
                    const struct gpus *g, struct err *e)
{
    int pages = gpu_pages(p, g);
    if (pages >= p->pages || pages < sequence_pages(p))
        return 0;
    ask->kv_bytes = (size_t)pages * rank_page_bytes(p) * (size_t)p->dp;
    return plan_make(p, m, ask, e);
}

/* No more pages than a quarter of what the weights leave free; one sequence must fit. */
static int fit_kv(struct plan *p, const struct model *m, struct plan_ask *ask, struct err *e)
{
    size_t weights = plan_weight_bytes(p, PLAN_WHOLE), have = memory_available();
    size_t most = have > weights ? (have - weights) / 4 : 0;
    size_t one = plan_kv_bytes(p, PLAN_WHOLE) / (size_t)p->max_seq;
    if (most >= plan_kv_bytes(p, PLAN_WHOLE) * (size_t)p->dp)
        return 0;
    one *= (size_t)p->dp;
    ask->kv_bytes = most > one ? most : one;
    return plan_make(p, m, ask, e);
}

/* Threads beside a GPU only draw tokens. */
enum { DRAWING_THREADS = 8 };

static void ask_for_gpus(struct plan_ask *ask, const struct opened *to, bool fast,
                         char numerics[16])
{
    gpu_numerics(numerics, to->gpus.gpu[0].arch, ask->weight, ask->kv, fast);
    ask->numerics = numerics;
    if (!ask->threads)
        ask->threads = min_int(DRAWING_THREADS, max_int(1, to->host.n_core / max_int(ask->dp, 1)));
}

static int make_plan(struct opened *to, const struct options *o, const struct model *m,
                     struct err *e)
{
    enum num weight =
        choose_num(o->dtype, to->packed ? to->packed->weight : stored_type(to->store));
    bool serves = o->verb == VERB_SERVE || o->verb == VERB_SIMULATE;
    int many = o->max_seqs ? o->max_seqs : serves ? 64 : 1;
    char numerics[16];
    struct plan_ask ask = {
        .tp = o->tp,
        .ep = o->ep,
        .pp = o->pp,
        .dp = o->dp,
        .sp = o->sp,
        .threads = o->threads,
        .shares = !o->shares && to->packed && o->tp <= to->packed->shares ? to->packed->shares
                                                                          : o->shares,
        .ctx = o->ctx,
        .max_tok = o->chunk,
        .max_seq = many,
        .max_out = many > 1 ? 4 * many : 0,
        .kv_bytes = o->kv_memory,
        .weight = weight,
        .kv = choose_num(o->kv, weight == NUM_F32 || weight == NUM_F16 ? NUM_F32 : NUM_BF16),
        .numerics = isa_numerics(to->isa, weight),
        .host = o->on_hardware ? NULL : &to->host, /* elsewhere, cores and memory are others */
        .quota = host_quota(),
    };
    if (to->gpus.n)
        ask_for_gpus(&ask, to, o->fast, numerics);
    int rc = to->gpus.n ? experts_slots(&ask.slots, o, m, e) : 0;
    if (!rc)
        rc = to->gpus.n ? make_on_gpus(&to->plan, m, &ask, &to->gpus, e)
                        : plan_make(&to->plan, m, &ask, e);
    if (rc || ask.kv_bytes || to->plan.max_seq == 1 || o->on_hardware)
        return rc;
    return to->gpus.n ? fit_gpus(&to->plan, m, &ask, &to->gpus, e) : fit_kv(&to->plan, m, &ask, e);
}

/* Plans are compared by hash: padding and unused entries do not count. */
static bool same_model(const struct plan *p, const struct model *m)
{
    struct plan other = *p;
    other.model = *m;
    return plan_hash(p) == plan_hash(&other);
}

/* The plan says which bits to expect: take the GPUs when they give them. */
static int obey_on_gpus(struct opened *to, const struct options *o, struct err *e)
{
    const struct plan *p = &to->plan;
    char have[16];
    if (!to->gpus.n)
        return 0;
    gpu_numerics(have, to->gpus.gpu[0].arch, p->weight, p->kv, plan_fast(p));
    if (!strcmp(have, p->numerics))
        return 0;
    err_set(e, -ENOTSUP, "%.200s asks for the numerics %s, but %s gives %s", o->plan, p->numerics,
            to->gpus.gpu[0].name, have);
    return device_fall_back(&to->gpus, o, &to->notes, -ENOTSUP, e);
}

/* Otherwise the fastest kernels of the CPU that give them. */
static int obey_numerics(struct opened *to, const struct options *o, struct err *e)
{
    const struct plan *p = &to->plan;
    bool free_choice = !strcmp(o->isa, "auto");
    for (int i = (int)to->isa; i >= (free_choice ? 0 : (int)to->isa); i--)
        if (isa_here((enum isa)i) && !strcmp(isa_numerics((enum isa)i, p->weight), p->numerics)) {
            to->isa = (enum isa)i;
            return 0;
        }
    return err_set(e, -ENOTSUP, "%.200s asks for the numerics %s, but %s on this machine gives %s",
                   o->plan, p->numerics, isa_name(to->isa), isa_numerics(to->isa, p->weight));
}

static int take_plan(struct opened *to, const struct options *o, const struct model *m,
                     struct err *e)
{
    int rc = plan_load(o->plan, &to->plan, e);
    if (rc)
        return rc;
    if (!same_model(&to->plan, m))
        return err_set(e, -EINVAL,
                       "%.200s was made for another model: a %s of %d layers, not a %s of %d",
                       o->plan, to->plan.model.arch, to->plan.model.n_layer, m->arch, m->n_layer);
    if (o->on_hardware)
        return 0;
    rc = obey_on_gpus(to, o, e);
    if (!to->gpus.n)
        to->plan.slots = 0; /* all ranks see all weights */
    return rc || to->gpus.n ? rc : obey_numerics(to, o, e);
}

/* Ranks stand near their GPUs: what they copy there and back does not cross between sockets. */
static void place_near_gpus(struct opened *to)
{
    const int ranks = min_int(to->plan.dp * plan_ranks(&to->plan), PLAN_RANKS);
    int node[PLAN_RANKS];
    for (int r = 0; r < ranks; r++)
        node[r] = host_card_node(to->gpus.gpu[gpus_index(&to->gpus, r)].bus, NULL);
    place_ranks_near(&to->plan, &to->host, node);
}

static int plan_of(struct opened *to, const struct options *o, const struct model *m, struct err *e)
{
    int rc = o->plan ? take_plan(to, o, m, e) : make_plan(to, o, m, e);
    if (!rc && !o->plan && to->gpus.n && !o->on_hardware)
        place_near_gpus(to);
    return rc;
}

static void note_fast(struct opened *to)
{
    struct notes *notes = &to->notes;
    if (plan_fast(&to->plan) && notes->n < (int)COUNT(notes->text))
        snprintf(notes->text[notes->n++], sizeof(notes->text[0]),
                 "--fast (%s): sums are in an order of NVIDIA's libraries, so the last bits of an "
                 "answer depend on the layout and on who shares its steps",
                 to->plan.numerics);
}

/* On a CPU all ranks see all experts; on other machines' GPUs simulate prices copies. */
static int check_copies(const struct opened *to, const struct options *o, struct err *e)
{
    if (o->verb != VERB_PLAN || !o->given.redundant_experts || (to->gpus.n && o->ep > 1))
        return 0;
    return err_set(
        e, CMD_USAGE,
        "--redundant-experts of plan is about runs of ranks (--ep) on GPUs of this host: "
        "leave it out");
}

/* The CPU has nothing that is faster in another order. */
static int check_fast(const struct opened *to, const struct options *o, struct err *e)
{
    if (!o->fast || to->gpus.n)
        return 0;
    return err_set(e, -ENOTSUP,
                   "--fast is about NVIDIA's libraries, and no GPU computes here%s: leave it out",
                   o->on_hardware ? " (--hardware)" : "");
}

/* Where it is computed, and then how: what GPUs cannot do the CPU may. */
static int choose_plan(struct opened *to, const struct options *o, const struct model *m,
                       struct err *e)
{
    int rc = open_isa(o->isa, &to->isa, e);
    host_read(&to->host, NULL);
    if (!rc)
        rc = device_choose(&to->gpus, o, &to->notes, e);
    if (!rc)
        rc = check_fast(to, o, e);
    if (!rc)
        rc = check_copies(to, o, e);
    if (!rc)
        rc = plan_of(to, o, m, e);
    if (rc || !to->gpus.n)
        return rc;
    rc = gpu_check(&to->plan, &to->gpus, e);
    if (!rc)
        rc = plugin_libraries(to->gpus.plugin, gpu_libraries(&to->plan, &to->gpus), e);
    if (!rc) {
        note_fast(to);
        return 0;
    }
    if (plan_fast(&to->plan))
        return err_add(e, rc, "--fast");
    rc = device_fall_back(&to->gpus, o, &to->notes, rc, e);
    return rc ? rc : plan_of(to, o, m, e);
}

/* ------------------------------------------------------------------------------- together */

/* What can be refused before any file is read. */
static int check_options(const struct options *o, struct err *e)
{
    const bool layout = o->given.tp || o->given.ep || o->given.pp || o->given.sp ||
                        o->given.threads || o->given.shares || o->given.ctx || o->given.chunk ||
                        o->given.max_seqs || o->given.kv_memory || o->given.dtype || o->given.kv ||
                        o->given.fast;
    if (!o->plan || !layout)
        return 0;
    return err_set(
        e, CMD_USAGE,
        "--plan %.200s says the whole layout: leave out --tp, --ep, --pp, --sp, "
        "--threads-per-rank, --shares, "
        "--ctx, --chunk, --max-seqs, --kv-memory, --dtype, --kv and --fast, or edit the file",
        o->plan);
}

/* Matrices that are stored otherwise than most are converted. */
static void note_mixed(struct opened *to)
{
    enum num most = stored_type(to->store);
    struct notes *notes = &to->notes;
    for (int i = 0; i < store_count(to->store) && notes->n < (int)COUNT(notes->text); i++) {
        const struct tensor *t = store_at(to->store, i);
        if (t->n_dim == 2 && t->type != most && t->type != NUM_I32)
            snprintf(notes->text[notes->n++], sizeof(notes->text[0]),
                     "tensor \"%.80s\" is %s and becomes %s, as most are", t->name,
                     num_name(t->type), num_name(most));
    }
}

/* Packed weights win over the tensors of the folder. */
static int open_weights(struct opened *to, struct err *e)
{
    int rc = packed_open(to->folder, &to->packed, e);
    if (rc == -ENOENT || rc == -ENOTDIR)
        rc = store_open(to->folder, &to->store, e);
    if (!rc && to->store && gguf_is(to->folder))
        note_mixed(to);
    return rc;
}

int open_model(struct opened *to, const struct options *o, const char *model, struct err *e)
{
    struct model m;
    memset(to, 0, sizeof(*to));
    memset(&m, 0, sizeof(m));
    int rc = check_options(o, e);
    if (!rc)
        rc = find_folder(to, model, e);
    if (!rc)
        rc = model_load(to->folder, &m, &to->generation, &to->notes, e);
    if (!rc)
        rc = open_weights(to, e);
    if (!rc)
        rc = choose_plan(to, o, &m, e);
    if (!rc && to->packed)
        rc = packed_check(to->packed, &to->plan, e);
    if (rc)
        open_close(to);
    return rc;
}

int open_shape(struct opened *to, const struct options *o, const char *model, struct err *e)
{
    struct model m;
    struct err ignored;
    const char *known = model && access(model, F_OK) ? model_config(model) : NULL;
    int rc = check_options(o, e);
    if (!rc && model && access(model, F_OK) && model_is_mixture(model))
        return err_set(
            e, -ENOTSUP,
            "%s is a mixture of experts of a kind that Tandem cannot run or plan yet: name another "
            "model (tandem make-model --help lists some, deepseek-v3-sizes among them)",
            model);
    memset(to, 0, sizeof(*to));
    memset(&m, 0, sizeof(m));
    if (rc)
        return rc;
    if (!known && model && access(model, F_OK) && !strchr(model, '/')) {
        char names[430];
        model_known_names(names, sizeof(names));
        return err_set(e, -ENOENT, "no folder and no known shape is called %.30s; known: %s", model,
                       names);
    }
    if (known) {
        rc = model_parse(known, strlen(known), NULL, 0, &m, &to->generation, &to->notes, e);
    } else {
        rc = find_folder(to, model, e);
        if (!rc)
            rc = model_load(to->folder, &m, &to->generation, &to->notes, e);
        /* Weights may be absent here; when there, their headers tell the number format. */
        if (!rc)
            open_weights(to, &ignored);
    }
    if (!rc)
        rc = choose_plan(to, o, &m, e);
    if (rc)
        open_close(to);
    return rc;
}

const char *open_parameters(char to[80], const struct plan *p)
{
    double n = (double)plan_parameters(p), unit = n < 1e9 ? 1e6 : 1e9;
    int at = snprintf(to, 80, "%.4g %s parameters", n / unit, n < 1e9 ? "million" : "billion");
    if (p->model.experts.n)
        snprintf(to + at, 80 - (size_t)at, " (%.4g active)", (double)plan_active(p) / unit);
    return to;
}

const char *open_place(char to[24], const struct opened *at, int rank)
{
    const struct host *h = &at->host;
    int core = at->plan.core[rank], found = host_find(h, core);
    if (at->gpus.n)
        snprintf(to, 24, "gpu %d", gpus_index(&at->gpus, rank));
    else if (core < 0)
        return "-";
    else if (found >= 0 && h->n_node > 1)
        snprintf(to, 24, "%d/%d", core, h->node[h->core[found].at]);
    else
        snprintf(to, 24, "%d", core);
    return to;
}

const char *open_kernels(const struct opened *at)
{
    return at->gpus.n ? at->gpus.gpu[0].name : isa_name(at->isa);
}

void open_close(struct opened *o)
{
    if (o->store)
        store_close(o->store);
    packed_close(o->packed);
    o->store = NULL, o->packed = NULL;
}
