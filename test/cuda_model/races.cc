/* races.cc - finds threads of a kernel that touch the same bytes with nothing between them: one
 * writes, and no barrier says who is first.
 *
 * The kernels are compiled as for the thread sanitizer, so that the compiler calls a function
 * before every access; these functions are here, in place of the sanitizer's. Of every word that is
 * touched we keep who wrote it last and who has read it since, each with a moment (block.h). The
 * order in which threads happen to run is no matter. Shared memory is watched in a block, the
 * device's in a launch: nothing orders blocks of one launch but atomics, and those are not taken to
 * order anything. As CUDA says, shuffles, votes and matrices order nothing either: only
 * __syncwarp() and __syncthreads() do. A copy that has begun and not arrived must not be touched.
 */
#include "block.h"

#include <atomic>
#include <dlfcn.h>
#include <memory>
#include <unordered_map>
#include <vector>

namespace
{

/* Since the last write: one thread; lanes of one warp, since the same __syncwarp(); threads of a
 * block, since the same barrier; threads of several blocks. */
enum readers : uint8_t { NOBODY, THREAD, WARP, BLOCK, BLOCKS };

/* One word, or one byte of a word that is touched by bytes. */
struct cell {
    unsigned stamp; /* of the block or the launch that all this is of */
    model_moment wrote, read;
    readers reads;
    bool written, atomic, flies, bytes;
};

enum { PAGE = 4096, CACHE = 1024 };

struct page {
    uintptr_t number = 0;
    bool global = false;
    unsigned asked = 0; /* in which launch we asked whether it is */
    cell word[PAGE / 4] = {};
    std::vector<cell> byte; /* [PAGE], when bytes of it are touched */
};

/* What a thread of the host knows: it is a GPU of its own. */
struct watch {
    std::unordered_map<uintptr_t, std::unique_ptr<page>> pages;
    page *cache[CACHE] = {};
};

watch &mine(void)
{
    static thread_local watch all;
    return all;
}

page *page_of(uintptr_t at, const model_moment &now)
{
    watch &w = mine();
    page *&cached = w.cache[at / PAGE % CACHE];
    if (!cached || cached->number != at / PAGE) {
        auto &p = w.pages[at / PAGE];
        if (!p)
            p.reset(new page());
        p->number = at / PAGE;
        cached = p.get();
    }
    if (cached->asked != now.kernel) {
        cached->asked = now.kernel;
        cached->global = model_is_global((const void *)at);
    }
    return cached;
}

/* ------------------------------------------------------------------------------- who is first */

bool same_warp(const model_moment &a, const model_moment &b)
{
    return a.block == b.block && a.thread / 32 == b.thread / 32;
}

bool barrier_between(const model_moment &a, const model_moment &b)
{
    return a.block == b.block && a.barriers < b.barriers;
}

bool is_before(const model_moment &a, const model_moment &b)
{
    return barrier_between(a, b) || (a.block == b.block && a.thread == b.thread) ||
           (same_warp(a, b) && a.warps < b.warps);
}

bool reads_are_before(const cell &c, const model_moment &now)
{
    switch (c.reads) {
    case NOBODY: return true;
    case THREAD: return is_before(c.read, now);
    case WARP:
        return barrier_between(c.read, now) || (same_warp(c.read, now) && c.read.warps < now.warps);
    case BLOCK: return barrier_between(c.read, now);
    default: return false;
    }
}

void add_reader(cell &c, const model_moment &now)
{
    if (c.reads == BLOCKS)
        return;
    if (reads_are_before(c, now)) {
        c.reads = THREAD, c.read = now;
        return;
    }
    c.reads = c.read.block != now.block                    ? BLOCKS
              : c.reads != BLOCK && same_warp(c.read, now) ? WARP
                                                           : BLOCK;
    c.read.barriers = now.barriers, c.read.warps = now.warps;
}

/* ------------------------------------------------------------------------------- a race */

[[noreturn]] void say(const char *what, const model_moment &before, const model_moment &now,
                      uintptr_t at, bool global, const void *from)
{
    Dl_info in = {};
    dladdr(from, &in);
    model_fail("a race: thread %d%s %s thread %d%s, and no barrier is between them: %s memory at "
               "%p, in %s at %#zx",
               now.thread, now.block != before.block ? " of another block" : "", what,
               before.thread, same_warp(before, now) ? " of its warp" : "",
               global ? "the device's" : "shared", (void *)at, in.dli_fname ? in.dli_fname : "?",
               (size_t)((const char *)from - (const char *)in.dli_fbase));
}

void touch(cell &c, bool global, const model_moment &now, enum model_access how, uintptr_t at,
           const void *from)
{
    const unsigned stamp = global ? 2 * now.kernel : 2 * now.block + 1;
    if (c.stamp != stamp) {
        c.stamp = stamp;
        c.reads = NOBODY;
        c.written = c.atomic = c.flies = false;
    }
    const bool atomic = how == MODEL_ATOMIC, orders = atomic && c.atomic;
    if (c.flies && how != MODEL_ARRIVE)
        say("touches a copy that has begun and not arrived, of", c.wrote, now, at, global, from);
    if (c.written && !orders && !is_before(c.wrote, now))
        say(how == MODEL_READ ? "reads what was written by" : "writes what was written by", c.wrote,
            now, at, global, from);
    if (how == MODEL_READ) {
        add_reader(c, now);
        return;
    }
    if (!reads_are_before(c, now))
        say("writes what was read by", c.read, now, at, global, from);
    c.written = true, c.atomic = atomic, c.flies = how == MODEL_COPY;
    c.wrote = now, c.reads = NOBODY;
}

/* From now on its bytes are looked at one by one. */
void split(page *p, cell &c, uintptr_t at)
{
    p->byte.resize(PAGE);
    for (uintptr_t b = at; b < at + 4; b++)
        p->byte[b % PAGE] = c;
    c.bytes = true;
}

} // namespace

void model_access(const void *where, size_t n, enum model_access how, const void *from)
{
    const uintptr_t begin = (uintptr_t)where, end = begin + n;
    model_moment now;
    if (!model_now(&now) || model_on_stack(where))
        return;
    for (uintptr_t word = begin / 4 * 4; word < end; word += 4) {
        page *p = page_of(word, now);
        cell &c = p->word[word % PAGE / 4];
        if (!c.bytes && (word < begin || word + 4 > end))
            split(p, c, word);
        if (!c.bytes)
            touch(c, p->global, now, how, word, from);
        for (uintptr_t b = word; c.bytes && b < word + 4; b++)
            if (begin <= b && b < end)
                touch(p->byte[b % PAGE], p->global, now, how, b, from);
    }
}

/* ------------------------------------------------------------------------------- the compiler's */

#define PLAIN(name, size, how)                                                                     \
    void __tsan_##name(void *at) { model_access(at, size, how, __builtin_return_address(0)); }
#define PLAINS(size)                                                                               \
    PLAIN(read##size, size, MODEL_READ)                                                            \
    PLAIN(write##size, size, MODEL_WRITE)                                                          \
    PLAIN(unaligned_read##size, size, MODEL_READ)                                                  \
    PLAIN(unaligned_write##size, size, MODEL_WRITE)                                                \
    PLAIN(volatile_read##size, size, MODEL_READ)                                                   \
    PLAIN(volatile_write##size, size, MODEL_WRITE)

#define ATOMIC(bits, name, ...)                                                                    \
    model_access(at, bits / 8, MODEL_ATOMIC, __builtin_return_address(0));                         \
    return __atomic_##name(__VA_ARGS__)
#define ATOMICS(bits, T)                                                                           \
    T __tsan_atomic##bits##_load(const T *at, int) { return __atomic_load_n(at, 5); }              \
    void __tsan_atomic##bits##_store(T *at, T v, int) { ATOMIC(bits, store_n, at, v, 5); }         \
    T __tsan_atomic##bits##_exchange(T *at, T v, int) { ATOMIC(bits, exchange_n, at, v, 5); }      \
    T __tsan_atomic##bits##_fetch_add(T *at, T v, int) { ATOMIC(bits, fetch_add, at, v, 5); }      \
    T __tsan_atomic##bits##_fetch_sub(T *at, T v, int) { ATOMIC(bits, fetch_sub, at, v, 5); }      \
    T __tsan_atomic##bits##_fetch_or(T *at, T v, int) { ATOMIC(bits, fetch_or, at, v, 5); }        \
    T __tsan_atomic##bits##_fetch_and(T *at, T v, int) { ATOMIC(bits, fetch_and, at, v, 5); }      \
    int __tsan_atomic##bits##_compare_exchange_strong(T *at, T *from, T to, int, int)              \
    {                                                                                              \
        ATOMIC(bits, compare_exchange_n, at, from, to, false, 5, 5);                               \
    }                                                                                              \
    int __tsan_atomic##bits##_compare_exchange_weak(T *at, T *from, T to, int, int)                \
    {                                                                                              \
        ATOMIC(bits, compare_exchange_n, at, from, to, false, 5, 5);                               \
    }                                                                                              \
    T __tsan_atomic##bits##_compare_exchange_val(T *at, T from, T to, int, int) /* clang's */      \
    {                                                                                              \
        model_access(at, bits / 8, MODEL_ATOMIC, __builtin_return_address(0));                     \
        __atomic_compare_exchange_n(at, &from, to, false, 5, 5);                                   \
        return from;                                                                               \
    }

extern "C" {
PLAINS(1)
PLAINS(2)
PLAINS(4)
PLAINS(8)
PLAINS(16)
ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)

void __tsan_read_range(void *at, size_t n)
{
    model_access(at, n, MODEL_READ, __builtin_return_address(0));
}

void __tsan_write_range(void *at, size_t n)
{
    model_access(at, n, MODEL_WRITE, __builtin_return_address(0));
}

void __tsan_atomic_thread_fence(int) { std::atomic_thread_fence(std::memory_order_seq_cst); }
void __tsan_atomic_signal_fence(int) {}
void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}
}
