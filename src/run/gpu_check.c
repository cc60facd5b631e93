/* gpu_check.c - what GPUs cannot run, and what would do instead. See gpu.h. */
#include "run/gpu_inside.h"

static bool fits(const struct plan *p, const struct gpus *g) { return gpu_pages(p, g) >= p->pages; }

/* What to change so that it fits: the cache, then the weights' format, then who else uses the GPU,
 * or the model. */
static void advise(const struct plan *p, const struct gpus *g, int gpu, size_t want, char *to,
                   size_t n)
{
    const size_t all = g->gpu[gpu].memory, free = min_size(g->gpu[gpu].memory_free, all);
    static const enum num smaller[] = {NUM_BF16, NUM_INT8, NUM_INT4};
    int pages = gpu_pages(p, g);
    struct plan even = *p;
    even.slots = 0;
    if (p->slots && fits(&even, g)) {
        snprintf(to, n,
                 "; it would fit without room for experts that move: fewer "
                 "--redundant-experts");
        return;
    }
    if (gpu_fast_products(p)) {
        snprintf(to, n, "; without --fast %.0f MiB less, for it keeps weights a second time",
                 (double)gpu_plain_bytes(p, 0) / (1 << 20));
        return;
    }
    snprintf(to, n, "; take a smaller model");
    if (want <= all)
        snprintf(to, n,
                 "; others use %.0f MiB of it: nvidia-smi shows who, CUDA_VISIBLE_DEVICES chooses "
                 "another GPU",
                 (double)(all - free) / (1 << 20));
    if ((int64_t)pages * KV_PAGE >= 256) {
        snprintf(to, n, "; %d tokens of cache would fit: --ctx %d, or fewer --max-seqs",
                 pages * KV_PAGE, min_int(pages * KV_PAGE, p->ctx));
        return;
    }
    for (size_t i = 0; i < COUNT(smaller); i++) {
        struct plan other = *p;
        other.weight = smaller[i];
        if (plan_weight_bytes(&other, 0) < plan_weight_bytes(p, 0) && fits(&other, g)) {
            snprintf(to, n, "; --dtype %s would fit", num_name(smaller[i]));
            return;
        }
    }
}

static int check_memory(const struct plan *p, const struct gpus *g, int gpu, struct err *e)
{
    const double mib = 1 << 20;
    const struct gpu_need need = gpu_need_of(p, g, gpu);
    const size_t want = need.weights + need.kv + need.scratch, have = g->gpu[gpu].memory_free;
    char advice[160];
    if (want <= have)
        return 0;
    advise(p, g, gpu, want, advice, sizeof(advice));
    return err_set(
        e, -ENOMEM,
        "GPU %d (%s) has %.0f MiB free, but %.0f are needed, %.0f more (weights %.0f, KV "
        "cache %.0f, scratch and CUDA %.0f)%s",
        gpu, g->gpu[gpu].name, (double)have / mib, (double)want / mib, (double)(want - have) / mib,
        (double)need.weights / mib, (double)need.kv / mib, (double)need.scratch / mib, advice);
}

static int check_kinds(const struct plan *p, const struct gpus *g, struct err *e)
{
    const struct gpu *first = gpu_of(g, 0);
    for (int r = 1; r < p->dp * plan_ranks(p); r++) {
        const struct gpu *other = gpu_of(g, r);
        if (other->arch != first->arch)
            return err_set(e, -EINVAL,
                           "the GPUs differ (%s is sm_%d, %s is sm_%d), and so would the bits of "
                           "their answers: choose like ones by CUDA_VISIBLE_DEVICES",
                           first->name, first->arch, other->name, other->arch);
    }
    return 0;
}

/* NCCL takes a GPU for one rank only. */
static int check_groups(const struct plan *p, const struct gpus *g, struct err *e)
{
    if (!(gpu_libraries(p, g) & LIBRARY_NCCL) || gpu_one_each(p, g))
        return 0;
    return err_set(e, -ENOTSUP,
                   "%d ranks want a GPU each, for these GPUs cannot read each other's memory, but "
                   "there are %d: choose a smaller --tp or --pp",
                   plan_ranks(p), g->n);
}

int gpu_check(const struct plan *p, const struct gpus *g, struct err *e)
{
    int rc = check_kinds(p, g, e);
    if (!rc)
        rc = check_groups(p, g, e);
    for (int i = 0; !rc && i < g->n; i++)
        rc = check_memory(p, g, i, e);
    return rc;
}
