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

/* The multiprocessor of one thread of the host. */
struct processor {
    const model_kernel *kernel;
    char *shared_end; /* nothing may be touched from here on */
    struct fiber home, fiber[MODEL_THREADS_MOST];
    void *stack[MODEL_THREADS_MOST];
    struct warp warp[MODEL_THREADS_MOST / 32];
    int ready[MODEL_THREADS_MOST], first, n_ready;
    int n, now, ended, at_barrier;
    bool running, meets;      /* a kernel; for all of a warp together */
    unsigned blocks, kernels; /* so far: who is first changes with them */
    unsigned barriers;        /* of the block, behind it */
    uint64_t random;
    std::string wrong;
};

static thread_local processor *here;

static void processor_free(processor *p)
{
    for (void *stack : p->stack)
        if (stack)
            fiber_stack_free(stack);
    const size_t most = (MODEL_SHARED_MOST + 4095) / 4096 * 4096;
    munmap(p->shared_end - most, most + 4096);
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
    const size_t most = (MODEL_SHARED_MOST + 4095) / 4096 * 4096;
    char *at =
        (char *)mmap(NULL, most + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || mprotect(at + most, 4096, PROT_NONE)) {
        perror("the model of a GPU has no memory");
        abort();
    }
    p->shared_end = at + most;
    leaving.used = true; /* so that it is made, and ends with the thread */
    return p;
}

/* ------------------------------------------------------------------------------- taking turns */

static void make_ready(processor *p, int thread)
{
    p->ready[(p->first + p->n_ready++) % MODEL_THREADS_MOST] = thread;
}

static void become(processor *p, int thread)
{
    p->now = thread;
    threadIdx = {(unsigned)thread % blockDim.x, (unsigned)thread / blockDim.x % blockDim.y,
                 (unsigned)thread / (blockDim.x * blockDim.y)};
}

/* Why nobody can go on. */
static std::string stuck(const processor *p)
{
    char text[300];
    int in_warps = 0;
    const char *where = "";
    for (int w = 0; w < p->n / 32; w++)
        if (p->warp[w].here) {
            in_warps += p->warp[w].here;
            where = p->warp[w].where->name;
        }
    snprintf(text, sizeof(text),
             "threads wait for ever: of %d, %d at __syncthreads, %d for their warp at %s, and %d "
             "have returned",
             p->n, p->at_barrier, in_warps, in_warps ? where : "nothing", p->ended);
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
                  p->ready[(p->first + (int)draw(p, (unsigned)p->n_ready)) % MODEL_THREADS_MOST]);
    int next = p->ready[p->first];
    p->first = (p->first + 1) % MODEL_THREADS_MOST;
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

void model_meet(const model_meeting *where, void *mine)
{
    processor *p = here;
    int me = p->now, first = me / 32 * 32;
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
    for (int l = first; l < first + 32; l++)
        if (l != me)
            make_ready(p, l);
}

void __syncthreads(void)
{
    processor *p = here;
    if (++p->at_barrier < p->n) {
        give_way(p);
        return;
    }
    int me = p->now;
    p->at_barrier = 0;
    p->barriers++;
    for (int i = 0; i < p->n; i++)
        if (i != me)
            make_ready(p, i);
}

/* Whoever waits for another GPU lets the host's other threads run too. */
void gpu_pause(void)
{
    make_ready(here, here->now);
    sched_yield();
    give_way(here);
}

/* ------------------------------------------------------------------------------- a kernel */

static void run_block(processor *p)
{
    const size_t shared = p->kernel->shared;
    const bool backwards = (p->blocks * 2654435761u >> 16 & 1) != 0;
    memset(p->shared_end - shared, 0xff, shared);
    p->n = (int)(blockDim.x * blockDim.y * blockDim.z);
    p->first = p->n_ready = p->ended = p->at_barrier = 0;
    p->barriers = 0;
    p->blocks++;
    model_copies_forget(p->n);
    for (int i = 0; i < p->n; i++) {
        int thread = backwards ? p->n - 1 - i : i;
        if (!p->stack[thread])
            p->stack[thread] = fiber_stack();
        p->fiber[thread] = fiber_begin(p->stack[thread], begin);
        p->warp[thread / 32] = {};
        make_ready(p, thread);
    }
    int thread = take_ready(p);
    become(p, thread);
    p->running = true;
    fiber_switch(&p->home, p->fiber[thread]);
    p->running = false;
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
    const uint64_t n = (uint64_t)k->grid.x * k->grid.y * k->grid.z, step = step_of(n);
    for (uint64_t i = 0, at = (step - 1) % n; i < n && p->wrong.empty();
         i++, at = (at + step) % n) {
        blockIdx = {(unsigned)(at % k->grid.x), (unsigned)(at / k->grid.x % k->grid.y),
                    (unsigned)(at / k->grid.x / k->grid.y)};
        run_block(p);
    }
    if (p->wrong.empty())
        return "";
    char where[160];
    snprintf(where, sizeof(where), " (block %u %u %u, thread %d of %.80s...)", blockIdx.x,
             blockIdx.y, blockIdx.z, p->now, k->what.c_str());
    return p->wrong + where;
}

void *model_shared(void) { return here->shared_end - here->kernel->shared; }

int model_thread(void) { return here->now; }

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
    const char *from = (const char *)at, *begins = here->shared_end - here->kernel->shared;
    return from >= begins && from + n <= here->shared_end;
}
