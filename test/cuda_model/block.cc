/* block.cc - see block.h.
 *
 * A fiber runs until it has to wait, and then hands over to the next one that is ready; who arrives
 * last where others wait makes them ready. When none is ready and not all have ended, nobody ever
 * will be: that is a mistake of the kernel's, and said.
 */
#include "block.h"

#include "fiber.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <sched.h>
#include <sys/mman.h>

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

struct warp {
    int here, left; /* lanes that wait for their warp; that have ended */
    unsigned syncs; /* __syncwarp()s that are behind it */
    const model_meeting *where;
    void *lane[32];
};

struct group {
    int here;
    const char *name;
    void *mine[MODEL_GROUP];
};

/* The multiprocessors of one thread of the host: one for each block of a cluster. */
struct processor {
    const model_kernel *kernel;
    char *shared_end[MODEL_CLUSTER_MOST]; /* nothing may be touched from here on */
    struct fiber home, fiber[MODEL_FIBERS];
    void *stack[MODEL_FIBERS];
    struct warp warp[MODEL_FIBERS / 32];
    struct group group[MODEL_FIBERS / 32];
    const void *sleeps[MODEL_FIBERS]; /* at what; NULL: does not */
    int ready[MODEL_FIBERS], first, n_ready;
    int threads, n; /* of a block, of the cluster */
    int now, ended, asleep, at_barrier[MODEL_CLUSTER_MOST], at_cluster;
    uint3 block;                      /* the first of the cluster */
    bool running, meets;              /* a kernel; for all of a warp together */
    bool follows[MODEL_CLUSTER_MOST]; /* the block said after_previous() */
    unsigned blocks, kernels;         /* so far: who is first changes with them */
    unsigned barriers;                /* of the block, behind it */
    uint64_t random;
    std::string wrong;
};

static thread_local processor *here;
static const size_t SHARED_PAGES = (MODEL_SHARED_LARGE + 4095) / 4096 * 4096;

static void processor_free(processor *p)
{
    for (void *stack : p->stack)
        if (stack)
            fiber_stack_free(stack);
    for (char *end : p->shared_end)
        munmap(end - SHARED_PAGES, SHARED_PAGES + 4096);
    delete p;
}

/* When the host's thread ends, its multiprocessor does. */
static thread_local struct leaving {
    bool used;
    ~leaving()
    {
        if (here)
            processor_free(here);
    }
} leaving;

static processor *processor_new(void)
{
    processor *p = new processor();
    for (char *&end : p->shared_end) {
        char *at = (char *)mmap(NULL, SHARED_PAGES + 4096, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED || mprotect(at + SHARED_PAGES, 4096, PROT_NONE)) {
            perror("the model of a GPU has no memory");
            abort();
        }
        end = at + SHARED_PAGES;
    }
    leaving.used = true; /* so that it is made, and ends with the thread */
    return p;
}

/* ------------------------------------------------------------------------------- taking turns */

static void make_ready(processor *p, int thread)
{
    p->ready[(p->first + p->n_ready++) % MODEL_FIBERS] = thread;
}

static void become(processor *p, int thread)
{
    const unsigned of_block = (unsigned)(thread % p->threads);
    p->now = thread;
    threadIdx = {of_block % blockDim.x, of_block / blockDim.x % blockDim.y,
                 of_block / (blockDim.x * blockDim.y)};
    blockIdx = {p->block.x + (unsigned)(thread / p->threads), p->block.y, p->block.z};
}

/* Why nobody can go on. */
static std::string stuck(const processor *p)
{
    char text[400];
    int in_warps = 0, in_groups = 0, at_barrier = 0;
    const char *where = "nothing", *group = "nothing";
    for (int w = 0; w < p->n / 32; w++) {
        if (p->warp[w].here)
            where = p->warp[w].where->name;
        if (p->group[w].here)
            group = p->group[w].name;
        in_warps += p->warp[w].here;
        in_groups += p->group[w].here;
    }
    for (int at : p->at_barrier)
        at_barrier += at;
    snprintf(text, sizeof(text),
             "threads wait for ever: of %d, %d at __syncthreads, %d for their warp at %s, %d for "
             "their warpgroup at %s, %d for their cluster, %d at barriers, and %d have returned",
             p->n, at_barrier, in_warps, where, in_groups, group, p->at_cluster, p->asleep,
             p->ended);
    return text;
}

/* TANDEM_MODEL_ORDER, a number: threads take turns, and blocks begin, in an order that it chooses.
 * Without it blocks ascend, and threads ascend or descend. */
static uint64_t chosen_order(void)
{
    static const char *chosen = getenv("TANDEM_MODEL_ORDER");
    return chosen ? strtoull(chosen, NULL, 10) : 0;
}

static unsigned draw(processor *p, unsigned n)
{
    p->random = p->random * 6364136223846793005u + chosen_order();
    return (unsigned)(p->random >> 33) % n;
}

/* The next of those that are ready. */
static int take_ready(processor *p)
{
    if (chosen_order())
        std::swap(p->ready[p->first],
                  p->ready[(p->first + (int)draw(p, (unsigned)p->n_ready)) % MODEL_FIBERS]);
    int next = p->ready[p->first];
    p->first = (p->first + 1) % MODEL_FIBERS;
    p->n_ready--;
    return next;
}

/* Hand over for good, or until someone makes this thread ready. */
static void give_way(processor *p)
{
    struct fiber *mine = &p->fiber[p->now];
    if (!p->n_ready) {
        if (p->ended < p->n)
            p->wrong = stuck(p);
        fiber_switch(mine, p->home);
        return;
    }
    int next = take_ready(p);
    if (next == p->now)
        return;
    become(p, next);
    fiber_switch(mine, p->fiber[next]);
}

void model_fail(const char *format, ...)
{
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    here->wrong = text;
    fiber_switch(&here->fiber[here->now], here->home);
    abort();
}

static void begin(void)
{
    processor *p = here;
    p->kernel->thread();
    p->ended++;
    p->warp[p->now / 32].left++;
    give_way(p);
    abort();
}

/* ------------------------------------------------------------------------------- meeting */

static void wake_others(processor *p, int first, int end)
{
    for (int i = first; i < end; i++)
        if (i != p->now)
            make_ready(p, i);
}

void model_meet(const model_meeting *where, void *mine)
{
    processor *p = here;
    const int me = p->now, first = me / 32 * 32;
    struct warp *w = &p->warp[me / 32];
    if (w->here && w->where != where && strcmp(w->where->name, where->name))
        model_fail("a warp is divided: one lane at %s, others at %s", where->name, w->where->name);
    w->where = where;
    w->lane[me % 32] = mine;
    if (++w->here < 32) {
        give_way(p);
        return;
    }
    p->meets = true;
    where->all(w->lane);
    p->meets = false;
    w->here = 0;
    w->syncs += where->orders;
    wake_others(p, first, first + 32);
}

void __syncthreads(void)
{
    processor *p = here;
    const int block = p->now / p->threads, first = block * p->threads;
    if (++p->at_barrier[block] < p->threads) {
        give_way(p);
        return;
    }
    p->at_barrier[block] = 0;
    p->barriers++;
    wake_others(p, first, first + p->threads);
}

void model_meet_cluster(void)
{
    processor *p = here;
    if (++p->at_cluster < p->n) {
        give_way(p);
        return;
    }
    p->at_cluster = 0;
    wake_others(p, 0, p->n);
}

void model_meet_group(const char *name, void (*all)(void *mine[MODEL_GROUP]), void *mine)
{
    processor *p = here;
    const int of_block = p->now % p->threads, first = p->now - of_block % MODEL_GROUP;
    struct group *g = &p->group[first / 32];
    if (of_block - of_block % MODEL_GROUP + MODEL_GROUP > p->threads)
        model_fail("%s: warp %d is not in a whole warpgroup", name, of_block / 32);
    if (g->here && strcmp(g->name, name))
        model_fail("a warpgroup is divided: one lane at %s, others at %s", name, g->name);
    g->name = name;
    g->mine[of_block % MODEL_GROUP] = mine;
    if (++g->here < MODEL_GROUP) {
        give_way(p);
        return;
    }
    all(g->mine);
    g->here = 0;
    wake_others(p, first, first + MODEL_GROUP);
}

void model_sleep(const void *what)
{
    processor *p = here;
    p->sleeps[p->now] = what;
    p->asleep++;
    give_way(p);
}

void model_wake(const void *what)
{
    processor *p = here;
    for (int i = 0; i < p->n; i++)
        if (p->sleeps[i] == what) {
            p->sleeps[i] = NULL;
            p->asleep--;
            make_ready(p, i);
        }
}

/* Whoever waits for another GPU lets the host's other threads run too. */
void gpu_pause(void)
{
    make_ready(here, here->now);
    sched_yield();
    give_way(here);
}

/* ------------------------------------------------------------------------------- a kernel */

static void run_cluster(processor *p)
{
    const size_t shared = p->kernel->shared;
    const bool backwards = (p->blocks * 2654435761u >> 16 & 1) != 0;
    for (unsigned i = 0; i < p->kernel->cluster; i++) {
        memset(p->shared_end[i] - shared, 0xff, shared);
        p->at_barrier[i] = 0;
        p->follows[i] = !p->kernel->chained;
    }
    p->threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    p->n = p->threads * (int)p->kernel->cluster;
    p->first = p->n_ready = p->ended = p->asleep = p->at_cluster = 0;
    p->barriers = 0;
    p->blocks++;
    model_copies_forget(p->n);
    model_groups_forget();
    for (int i = 0; i < p->n; i++) {
        int thread = backwards ? p->n - 1 - i : i;
        if (!p->stack[thread])
            p->stack[thread] = fiber_stack();
        p->fiber[thread] = fiber_begin(p->stack[thread], begin);
        p->warp[thread / 32] = {};
        p->group[thread / 32].here = 0;
        p->sleeps[thread] = NULL;
        make_ready(p, thread);
    }
    int thread = take_ready(p);
    become(p, thread);
    p->running = true;
    fiber_switch(&p->home, p->fiber[thread]);
    p->running = false;
    for (unsigned i = 0; i < p->kernel->cluster && p->wrong.empty(); i++)
        if (!p->follows[i])
            p->wrong = "a block of a chained kernel never said after_previous()";
    for (int i = 0; i < p->n; i++) /* threads end without returning */
        fiber_stack_clean(p->stack[i]);
}

/* From one of n blocks to the next, modulo n: no divisor of n, so that all get their turn. It is
 * the same on all GPUs, whose blocks of a number wait for each other. */
static uint64_t step_of(uint64_t n)
{
    uint64_t step = 1 + chosen_order() * 2654435761u % n;
    while (std::gcd(step, n) != 1)
        step++;
    return step;
}

std::string model_run(const struct model_kernel *k)
{
    processor *p = here ? here : (here = processor_new());
    struct model_kernel rounded = *k;
    rounded.shared = (k->shared + 15) / 16 * 16;
    p->kernel = &rounded;
    p->wrong.clear();
    gridDim = {k->grid.x, k->grid.y, k->grid.z};
    blockDim = {k->block.x, k->block.y, k->block.z};
    p->kernels++;
    const uint64_t wide = k->grid.x / k->cluster, n = wide * k->grid.y * k->grid.z,
                   step = step_of(n);
    for (uint64_t i = 0, at = (step - 1) % n; i < n && p->wrong.empty();
         i++, at = (at + step) % n) {
        p->block = {(unsigned)(at % wide) * k->cluster, (unsigned)(at / wide % k->grid.y),
                    (unsigned)(at / wide / k->grid.y)};
        run_cluster(p);
    }
    if (p->wrong.empty())
        return "";
    char where[160];
    snprintf(where, sizeof(where), " (block %u %u %u, thread %d of %.80s...)", blockIdx.x,
             blockIdx.y, blockIdx.z, p->now % p->threads, k->what.c_str());
    return p->wrong + where;
}

void after_previous(void) { here->follows[model_block()] = true; }
int model_thread(void) { return here->now; }
int model_block(void) { return here->now / here->threads; }
char *model_shared_of(int block) { return here->shared_end[block] - here->kernel->shared; }
void *model_shared(void) { return model_shared_of(model_block()); }

bool model_now(struct model_moment *to)
{
    const processor *p = here;
    if (!p || !p->running || p->meets)
        return false;
    *to = {p->now, p->blocks, p->kernels, p->barriers, p->warp[p->now / 32].syncs};
    return true;
}

bool model_on_stack(const void *at) { return fiber_on_stack(here->stack[here->now], at); }

bool model_is_shared(const void *at, size_t n)
{
    const char *from = (const char *)at, *begins = model_shared_of(model_block());
    return from >= begins && from + n <= here->shared_end[model_block()];
}
