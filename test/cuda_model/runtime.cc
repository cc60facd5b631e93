/* runtime.cc - the body of dev/cuda/runtime.h on the model: memory that only kernels and copies may
 * touch, and streams that do nothing until someone waits for them.
 */
#include "block.h"
#include "stream.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* in C a struct and a function may share a name */
extern "C" {
#include "dev/cuda/runtime.h"
int gpu_driver(int *have, int *need);
}
#pragma GCC diagnostic pop

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <map>
#include <memory>
#include <mutex>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <vector>

/* As cudaError_t has them. */
enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_LAUNCH = 9,
    OLD_DRIVER = 35,
    NO_DEVICE = 100,
    LAUNCH_FAILED = 719
};

static thread_local char words[600];

static int failed(int code, const std::string &why)
{
    snprintf(words, sizeof(words), "%s", why.c_str());
    return code;
}

const char *gpu_error(int code)
{
    return code && words[0] ? words : code ? "an error of the model of a GPU" : "no error";
}

/* ------------------------------------------------------------------------------- the GPU */

/* Another machine than the usual one, in words: TANDEM_MODEL_GPU="gpus=2 arch=80/90 free=2048/512
 * driver=12080 lost=100". One number for all GPUs, or one for each; free: MiB of memory; lost:
 * waits after which all find their GPUs gone; hang: every so-manieth kernel never ends; mute=1: no
 * stream is ever opened; peers=0: none maps another's memory. */
static long machine(const char *name, int gpu, long usual)
{
    const char *all = getenv("TANDEM_MODEL_GPU"), *at = all;
    const size_t n = strlen(name);
    while (at && (strncmp(at, name, n) || at[n] != '='))
        at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL;
    if (!at)
        return usual;
    char *end;
    long value = strtol(at + n + 1, &end, 10);
    for (; gpu > 0 && *end == '/'; gpu--)
        value = strtol(end + 1, &end, 10);
    return value;
}

/* Counted by all processes together that the one forks which has loaded this. */
struct counted {
    std::atomic<long> waits, kernels;
};
static struct counted *const counted = static_cast<struct counted *>(
    mmap(NULL, sizeof(*counted), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

static bool is_lost(void)
{
    const long lost = machine("lost", 0, -1);
    return lost >= 0 && ++counted->waits > lost;
}

static void hang(void)
{
    for (;;)
        pause();
}

int gpu_driver(int *have, int *need)
{
    *need = 13000;
    return *have = (int)machine("driver", 0, *need), 0;
}

int gpu_count(int *n)
{
    *n = (int)machine("gpus", 0, 1);
    if (machine("driver", 0, 13000) < 13000)
        return *n = 0, failed(OLD_DRIVER, "the driver is older than the runtime");
    return *n ? 0 : failed(NO_DEVICE, "no CUDA-capable device is detected");
}

int gpu_use(int gpu)
{
    if (gpu >= machine("gpus", 0, 1))
        return failed(INVALID_VALUE, "the model has no such GPU");
    return machine("free", gpu, 1) ? 0 : failed(OUT_OF_MEMORY, "out of memory");
}

int gpu_reaches(int gpu, int other, bool *yes)
{
    *yes = gpu == other || machine("peers", 0, 1);
    return 0;
}

static size_t kept_bytes; /* made by this process */

/* So many that tests need not mind, unless they say how many. */
static size_t memory_bytes(void)
{
    const char *told = getenv("TANDEM_MODEL_MEMORY");
    return told ? strtoull(told, NULL, 10) : (size_t)16 << 30;
}

int gpu_about(int gpu, struct gpu_about *to)
{
    const size_t memory = memory_bytes();
    const long mib = machine("free", gpu, -1);
    *to = {"model of a GPU",
           "",
           (int)machine("arch", gpu, 90),
           4,
           memory,
           mib < 0 ? memory - kept_bytes : (size_t)mib << 20};
    snprintf(to->bus, sizeof(to->bus), "0000:%02X:00.0", 0x10 * gpu + 0x17);
    return 0;
}

/* ------------------------------------------------------------------------------- memory */

struct allocation {
    size_t mapped; /* with the page behind it, which is never open */
    int file;      /* holds it, so that other processes can map it */
};

static std::mutex lock;
static std::map<char *, allocation> memory; /* by the first byte mapped */
static int users;                           /* threads whose streams run */

static size_t pages(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

static void protect(int how)
{
    for (const auto &one : memory)
        mprotect(one.first, one.second.mapped - 4096, how);
}

static void open_memory(void)
{
    std::lock_guard<std::mutex> held(lock);
    if (!users++)
        protect(PROT_READ | PROT_WRITE);
}

static void close_memory(void)
{
    std::lock_guard<std::mutex> held(lock);
    if (!--users)
        protect(PROT_NONE);
}

static bool on_device(const void *at, size_t bytes)
{
    std::lock_guard<std::mutex> held(lock);
    auto next = memory.upper_bound((char *)at);
    if (next == memory.begin())
        return false;
    --next;
    return (char *)at + bytes <= next->first + next->second.mapped - 4096;
}

bool model_is_global(const void *at) { return on_device(at, 1); }

/* Map the file, closed, and a page behind it; NULL: no memory. */
static char *map_file(int file, size_t bytes)
{
    void *from = mmap(NULL, bytes + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (from == MAP_FAILED)
        return NULL;
    const int how = users ? PROT_READ | PROT_WRITE : PROT_NONE;
    if (mmap(from, bytes, how, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED)
        return NULL;
    memory[(char *)from] = {bytes + 4096, file};
    return (char *)from;
}

/* What an allocation takes: cudaMalloc's 256 would hide reading behind the end. */
static size_t allocated(size_t bytes) { return (bytes + 15) / 16 * 16; }

/* A file of so many bytes, all 0xff; -1: no memory. */
static int new_file(size_t bytes)
{
    const int file = memfd_create("model of a GPU", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)bytes))
        return -1;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED)
        return -1;
    memset(at, 0xff, bytes);
    munmap(at, bytes);
    return file;
}

/* The memory ends where the closed page begins. */
static int map_allocation(void **at, int file, size_t bytes)
{
    const size_t size = allocated(bytes), mapped = pages(size);
    char *from = file < 0 ? NULL : map_file(file, mapped);
    *at = from ? from + mapped - size : NULL;
    return from ? 0 : failed(OUT_OF_MEMORY, "the model of a GPU has not enough memory");
}

int gpu_alloc(void **at, size_t bytes)
{
    std::lock_guard<std::mutex> held(lock);
    return map_allocation(at, new_file(pages(allocated(bytes))), bytes);
}

int gpu_free(void *at)
{
    std::lock_guard<std::mutex> held(lock);
    auto one = memory.upper_bound((char *)at);
    if (!at)
        return 0;
    if (one == memory.begin())
        return failed(INVALID_VALUE, "gpu_free: not the device's memory");
    --one;
    munmap(one->first, one->second.mapped);
    close(one->second.file);
    memory.erase(one);
    return 0;
}

int gpu_pinned(void **at, size_t bytes)
{
    *at = aligned_alloc(4096, pages(bytes));
    return *at ? 0 : failed(OUT_OF_MEMORY, "not enough memory");
}

int gpu_pinned_free(void *at)
{
    free(at);
    return 0;
}

/* Where the file is that holds the memory, and what stands before it there. */
struct place {
    int pid, file;
    size_t bytes, skip;
};

int gpu_handle(struct gpu_handle *to, void *at)
{
    std::lock_guard<std::mutex> held(lock);
    auto one = memory.upper_bound((char *)at);
    if (one == memory.begin())
        return failed(INVALID_VALUE, "gpu_handle: not the device's memory");
    --one;
    const struct place p = {getpid(), one->second.file, one->second.mapped - 4096,
                            (size_t)((char *)at - one->first)};
    memset(to, 0, sizeof(*to));
    memcpy(to, &p, sizeof(p));
    return 0;
}

int gpu_map(void **at, const struct gpu_handle *from)
{
    struct place p;
    char path[64];
    memcpy(&p, from, sizeof(p));
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", p.pid, p.file);
    std::lock_guard<std::mutex> held(lock);
    const int file = open(path, O_RDWR | O_CLOEXEC);
    char *mapped = file < 0 ? NULL : map_file(file, p.bytes);
    *at = mapped ? mapped + p.skip : NULL;
    return mapped ? 0 : failed(INVALID_VALUE, "the memory of another process cannot be mapped");
}

int gpu_unmap(void *at) { return gpu_free(at); }

/* No GPU has so small a unit; a larger one would hide reading behind the end, as does more than the
 * 256 bytes that memory of a device is aligned to. TANDEM_MODEL_KEEPS=0 is a GPU that cannot. */
static size_t kept(size_t bytes) { return (bytes + 255) / 256 * 256; }

int gpu_keep_unit(int gpu, size_t *unit)
{
    const char *told = getenv("TANDEM_MODEL_KEEPS");
    *unit = told && *told == '0' ? 0 : 4096;
    return gpu_use(gpu);
}

int gpu_keep(int gpu, size_t bytes, int *fd)
{
    const size_t size = pages(kept(bytes));
    std::lock_guard<std::mutex> held(lock);
    *fd = -1;
    if (gpu_use(gpu))
        return INVALID_VALUE;
    if (kept_bytes + size > memory_bytes() || (*fd = new_file(size)) < 0)
        return failed(OUT_OF_MEMORY, "the model of a GPU has not enough memory");
    kept_bytes += size;
    return 0;
}

int gpu_leave(int gpu) { return gpu_use(gpu); }

int gpu_kept_map(void **at, int fd, size_t bytes)
{
    std::lock_guard<std::mutex> held(lock);
    return map_allocation(at, fcntl(fd, F_DUPFD_CLOEXEC, 3), kept(bytes));
}

int gpu_kept_unmap(void *at, size_t) { return gpu_free(at); }
int gpu_show(void **seen, void *host, size_t) { return *seen = host, 0; }
int gpu_hide(void *) { return 0; }

/* ------------------------------------------------------------------------------- streams */

typedef std::function<int(void)> task;

struct recording {
    std::vector<task> tasks;
    std::string kernels; /* their names, in order */
    int n_kernel = 0;
};

struct stream : model_stream {
    std::vector<task> todo;
    struct recording *recording = NULL;
    int error = 0; /* remembered, as a GPU does */
    stream();
};

static struct stream *stream_of(void *stream)
{
    static thread_local struct stream none;
    return stream ? (struct stream *)stream : &none;
}

static int enqueue(void *stream, task what)
{
    struct stream *s = stream_of(stream);
    (s->recording ? s->recording->tasks : s->todo).push_back(std::move(what));
    return 0;
}

static int enqueue_for(void *stream, int (*what)(void *), void *arg, void (*release)(void *))
{
    std::shared_ptr<void> held(arg, release);
    return enqueue(stream, [=] { return what(held.get()); });
}

stream::stream() : model_stream{enqueue_for} {}

int gpu_stream(void **stream)
{
    if (machine("mute", 0, 0))
        hang();
    static auto *all = new std::vector<struct stream *>(); /* so that none counts as lost memory */
    std::lock_guard<std::mutex> held(lock);
    all->push_back(new struct stream());
    *stream = all->back();
    return 0;
}

/* A kernel's name without what it is made for: of "(attend_split<WIDE>), dim3(1), ..." the first.
 */
static void note_kernel(struct recording *r, const char *what)
{
    const char *begin = what + strspn(what, "(");
    r->kernels += " " + std::string(begin, strcspn(begin, "<,"));
    r->n_kernel++;
}

int model_enqueue(const char *what, dim3 grid, dim3 block, size_t shared, void *stream,
                  std::function<void()> thread, unsigned cluster, bool chained)
{
    const size_t threads = (size_t)block.x * block.y * block.z, blocks = cluster ? cluster : 1;
    struct model_kernel kernel = {
        what, grid, block, (unsigned)blocks, chained, shared, std::move(thread)};
    if (!grid.x || !grid.y || !grid.z)
        return 0;
    if (grid.y > 65535 || grid.z > 65535 || !threads || threads > MODEL_THREADS_MOST ||
        shared > (cluster ? MODEL_SHARED_LARGE : MODEL_SHARED_MOST) ||
        blocks > MODEL_CLUSTER_MOST || grid.x % blocks || threads * blocks > MODEL_FIBERS)
        return failed(INVALID_LAUNCH, std::string("no GPU can launch ") + what);
    if (threads % 32)
        return failed(INVALID_LAUNCH, std::string("the model knows whole warps only: ") + what);
    if (stream_of(stream)->recording)
        note_kernel(stream_of(stream)->recording, what);
    return enqueue(stream, [kernel] {
        const long hangs = machine("hang", 0, 0);
        if (hangs > 0 && ++counted->kernels % hangs == 0)
            hang();
        std::string wrong = model_run(&kernel);
        return wrong.empty() ? 0 : failed(LAUNCH_FAILED, wrong);
    });
}

static int copy(void *to, const void *from, size_t bytes, void *stream, bool to_device,
                bool from_device)
{
    if (bytes && (on_device(to, bytes) != to_device || on_device(from, bytes) != from_device))
        return failed(INVALID_VALUE, "a copy in the wrong direction, or beyond an allocation");
    return enqueue(stream, [=] {
        memmove(to, from, bytes);
        return 0;
    });
}

int gpu_copy_in(void *to, const void *from, size_t bytes, void *stream)
{
    return copy(to, from, bytes, stream, true, false);
}

int gpu_copy_out(void *to, const void *from, size_t bytes, void *stream)
{
    return copy(to, from, bytes, stream, false, true);
}

int gpu_copy(void *to, const void *from, size_t bytes, void *stream)
{
    return copy(to, from, bytes, stream, true, true);
}

int gpu_clear(void *at, size_t bytes, void *stream)
{
    if (bytes && !on_device(at, bytes))
        return failed(INVALID_VALUE, "gpu_clear: not the device's memory");
    return enqueue(stream, [=] {
        memset(at, 0, bytes);
        return 0;
    });
}

struct mark {
    double seconds;
    bool passed;
};

/* All tasks, or those before the mark; when it does not wait, at most so many, and none behind one
 * that is not done. */
enum { ALL = 1 << 30 };
static void run(struct stream *s, const struct mark *until, bool waits, size_t most)
{
    size_t done = 0;
    open_memory();
    while (done < s->todo.size() && done < most && !s->error && !(until && until->passed)) {
        const int rc = s->todo[done]();
        if (rc == MODEL_AGAIN && !waits)
            break;
        if (rc == MODEL_AGAIN) {
            sched_yield();
            continue;
        }
        s->error = rc;
        done++;
    }
    close_memory();
    s->todo.erase(s->todo.begin(), s->error ? s->todo.end() : s->todo.begin() + (ptrdiff_t)done);
}

int gpu_wait(void *stream)
{
    struct stream *s = stream_of(stream);
    if (is_lost())
        return s->error = failed(LAUNCH_FAILED, "the GPU has fallen off the bus");
    run(s, NULL, true, ALL);
    return s->error;
}

int gpu_done(void *stream, bool *done)
{
    struct stream *s = stream_of(stream);
    run(s, NULL, false, ALL);
    *done = s->todo.empty();
    return s->error;
}

/* ------------------------------------------------------------------------------- recording */

/* TANDEM_MODEL_KERNELS names a file, to which every recording adds a line: how many kernels it
 * launches, and their names in order. */
static void tell_kernels(const struct recording *r)
{
    const char *path = getenv("TANDEM_MODEL_KERNELS");
    const std::string line = std::to_string(r->n_kernel) + r->kernels + "\n";
    const int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file >= 0 && write(file, line.data(), line.size()) != (ssize_t)line.size())
        perror(path);
    if (file >= 0)
        close(file);
}

int gpu_record_begin(void *stream)
{
    struct stream *s = stream_of(stream);
    if (s->recording)
        return failed(INVALID_VALUE, "the stream is being recorded already");
    s->recording = new struct recording();
    return 0;
}

int gpu_record_end(void *stream, void **recorded)
{
    struct stream *s = stream_of(stream);
    *recorded = s->recording;
    if (!s->recording)
        return failed(INVALID_VALUE, "the stream is not being recorded");
    tell_kernels(s->recording);
    s->recording = NULL;
    return 0;
}

int gpu_replay(void *recorded, void *stream)
{
    for (const task &one : ((struct recording *)recorded)->tasks)
        enqueue(stream, one);
    return 0;
}

int gpu_record_free(void *recorded)
{
    delete (struct recording *)recorded;
    return 0;
}

/* ------------------------------------------------------------------------------- profilers */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int gpu_mark_new(void **mark)
{
    static auto *all = new std::vector<struct mark *>(); /* so that none counts as lost memory */
    std::lock_guard<std::mutex> held(lock);
    all->push_back(new struct mark());
    *mark = all->back();
    return 0;
}

int gpu_mark(void *mark, void *stream)
{
    struct mark *m = (struct mark *)mark;
    m->passed = false;
    return enqueue(stream, [m] {
        *m = {now_s(), true};
        return 0;
    });
}

/* The stream does what was told to it before the mark. */
int gpu_mark_wait(void *mark, void *stream)
{
    struct stream *s = stream_of(stream);
    if (is_lost())
        return s->error = failed(LAUNCH_FAILED, "the GPU has fallen off the bus");
    run(s, (struct mark *)mark, true, ALL);
    return s->error;
}

/* Between two looks it does one thing. */
int gpu_mark_passed(bool *passed, void *mark, void *stream)
{
    const struct mark *m = (struct mark *)mark;
    struct stream *s = stream_of(stream);
    run(s, m, false, 1);
    *passed = m->passed;
    return s->error;
}

int gpu_mark_seconds(double *seconds, void *from, void *to)
{
    const struct mark *a = (struct mark *)from, *b = (struct mark *)to;
    if (!a->passed || !b->passed)
        return failed(INVALID_VALUE, "a mark that the stream has not passed yet");
    return *seconds = b->seconds - a->seconds, 0;
}
