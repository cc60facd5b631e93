/* plan_layout.c - `tandem plan` of a given layout: what each rank would hold and do, without
 * reading a weight. */
#include "cmd/open.h"
#include "cmd/plan.h"
#include "predict/count.h"
#include "run/gpu.h"
#include "run/room.h"

/* Bytes with a unit, for people. */
static const char *size_text(char to[16], double bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    while (bytes >= 1024 && i + 1 < COUNT(unit))
        bytes /= 1024, i++;
    snprintf(to, 16, bytes < 100 && i ? "%.1f %s" : "%.0f %s", bytes, unit[i]);
    return to;
}

/* On a GPU all that is not weights and cache; the allowance for CUDA itself is not among it. */
static size_t scratch_of(const struct opened *at, const struct room *room, int rank)
{
    return at->gpus.n ? gpu_need(&at->plan, rank, &at->gpus).scratch : room->rank_bytes[rank];
}

static void print_rank(const struct opened *at, const struct room *room, int r)
{
    const struct plan *p = &at->plan;
    char weights[16], kv[16], scratch[16], bytes[16], moved[16], core[24], range[24];
    struct span layers = p->stage[plan_stage(p, r)];
    struct step_cost cost;
    count_step(p, r, (struct step_shape){1, 1, p->ctx - 1}, &cost);
    snprintf(range, sizeof(range), "%d-%d", layers.lo, layers.hi - 1);
    printf("%4d %5s  %-7s %5d %4d %6d %6d  %10s %10s %10s  %9.3f %10s %6llu %10s\n", r,
           open_place(core, at, r), range, len(plan_share(p, r, HEADS)),
           len(plan_share(p, r, KVHEADS)),
           len(plan_share(p, r, p->model.experts.n ? EXPERT_COLUMNS : COLUMNS)),
           len(plan_share(p, r, WORDS)), size_text(weights, (double)plan_weight_bytes(p, r)),
           size_text(kv, (double)plan_kv_bytes(p, r)),
           size_text(scratch, (double)scratch_of(at, room, r)), (double)cost.flops / 1e9,
           size_text(bytes, (double)cost.bytes), (unsigned long long)cost.sums,
           size_text(moved, (double)cost.moved));
}

static void print_head(const struct opened *at)
{
    const struct plan *p = &at->plan;
    const struct model *m = &p->model;
    char runs[16] = "", size[80];
    if (p->ep > 1)
        snprintf(runs, sizeof(runs), ", ep %d", p->ep);
    printf("%s: %s, %d layers, %d heads, %d key-value heads, %d words\n", m->arch,
           open_parameters(size, p), m->n_layer, m->n_head, m->n_kv, m->n_vocab);
    printf("%d rank%s: pp %d, tp %d%s%s; %d thread%s each; %d shares; weights %s, keys and values "
           "%s, numerics %s (%s); "
           "context %d\n\n",
           plan_ranks(p), plan_ranks(p) == 1 ? "" : "s", p->pp, p->tp, runs, p->sp ? ", sp" : "",
           p->threads, p->threads == 1 ? "" : "s", p->shares, num_name(p->weight), num_name(p->kv),
           p->numerics, open_kernels(at), p->ctx);
}

static void print_table(const struct opened *at)
{
    const struct plan *p = &at->plan;
    struct room room;
    char weights[16], kv[16], all[16];
    room_measure(&room, p, at->isa, at->gpus.n > 0, false);
    print_head(at);
    printf("            holds                           memory reached by the rank         "
           "one decode step at full context\n"
           "rank  core  layers  heads   kv columns words   %10s %10s %10s  %9s %10s %6s %10s\n",
           "weights", "kv cache", "scratch", "GFLOP", "memory", "calls", "from peers");
    for (int r = 0; r < plan_ranks(p); r++)
        print_rank(at, &room, r);
    size_t whole = plan_weight_bytes(p, PLAN_WHOLE);
    if (at->gpus.n)
        printf("\nThe host holds the weights, %s, %s, and %s beside.\n",
               size_text(weights, (double)whole),
               p->slots ? "for experts that move" : "until the GPUs have them",
               size_text(all, (double)room.bytes));
    else
        printf("\nThe host holds weights and cache once: %s of weights, %s of cache, %s in all.\n",
               size_text(weights, (double)whole), size_text(kv, (double)room.kv_bytes),
               size_text(all, (double)whole + (double)room.bytes));
    printf(
        "Sizes and counts are exact: they come from the layout and the forward pass themselves.\n");
}

int plan_layout(const struct options *o, struct err *e)
{
    struct opened at;
    int rc = open_shape(&at, o, o->n_word ? o->word[0] : NULL, e);
    if (rc)
        return rc;
    for (int i = 0; i < at.notes.n; i++)
        fprintf(stderr, "tandem: note: %s\n", at.notes.text[i]);
    if (o->json) {
        json_t *plan = plan_to_json(&at.plan);
        json_dumpf(plan, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(plan);
    } else {
        print_table(&at);
    }
    open_close(&at);
    return 0;
}
