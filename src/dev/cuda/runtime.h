/* runtime.h - the little of the CUDA runtime that the host side of the device uses.
 *
 * runtime.c (and runtime_keep.c, for kept memory) are the files that know cudart and the driver;
 * the tests have another body of them, on which kernels run in software on any machine. Functions
 * return a cudaError_t as int, 0 when all is well, and gpu_error() says it in words. Calls that
 * take a stream are in order with what was enqueued on it.
 */
#ifndef TANDEM_CUDA_RUNTIME_H
#define TANDEM_CUDA_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One GPU. arch: 10 * major + minor of its compute capability. */
struct gpu_about {
    char name[96], bus[24];
    int arch, sm;
    size_t memory, memory_free;
};

/* CUDA versions, 1000 * major + 10 * minor: what the driver can do (0: there is none), and what
 * this library needs. */
int gpu_driver(int *have, int *need);
int gpu_count(int *n);                          /* asks the driver; none is an error in words */
int gpu_use(int gpu);                           /* this process's GPU from now on */
int gpu_about(int gpu, struct gpu_about *to);   /* memory_free: of the GPU in use, otherwise 0 */
int gpu_reaches(int gpu, int other, bool *yes); /* its kernels can read the other's memory */
const char *gpu_error(int code);

int gpu_alloc(void **at, size_t bytes);
int gpu_free(void *at);
int gpu_pinned(void **at, size_t bytes); /* host memory that copies at full speed */
int gpu_pinned_free(void *at);

/* Memory of a GPU that other processes use, too: whoever has the handle, which travels as bytes,
 * maps what gpu_alloc() gave, wherever its GPU is. A process cannot map its own. */
struct gpu_handle {
    unsigned char bytes[64];
};
int gpu_handle(struct gpu_handle *to, void *at);
int gpu_map(void **at, const struct gpu_handle *from);
int gpu_unmap(void *at);

/* Memory of a GPU that outlives processes: it lasts as long as the one that made it lives, or
 * anybody has its descriptor, which goes through fork() and sockets, or maps it. Sizes are rounded
 * up to a unit, of which 0 says that this GPU or its driver cannot. Making it takes no context, and
 * what this process has of one is ended by gpu_leave(). Mapping is for the GPU in use, wherever the
 * memory is, by the size that it was made with; contents stay as they are. */
int gpu_keep_unit(int gpu, size_t *unit);
int gpu_keep(int gpu, size_t bytes, int *fd);
int gpu_leave(int gpu);
int gpu_kept_map(void **at, int fd, size_t bytes);
int gpu_kept_unmap(void *at, size_t bytes);

/* Host memory that kernels read and write where it is; seen: its address for them. Pinned memory
 * they see anyway. */
int gpu_show(void **seen, void *host, size_t bytes);
int gpu_hide(void *host);

int gpu_stream(void **stream);
int gpu_copy_in(void *to, const void *from, size_t bytes, void *stream);  /* host to device */
int gpu_copy_out(void *to, const void *from, size_t bytes, void *stream); /* device to host */
int gpu_copy(void *to, const void *from, size_t bytes, void *stream);     /* device to device */
int gpu_clear(void *at, size_t bytes, void *stream);
int gpu_wait(void *stream); /* until all of it is done; a kernel's failure appears here */
int gpu_done(void *stream, bool *done); /* the same without waiting */

/* What is enqueued between begin and end is recorded instead, and may then be run many times. */
int gpu_record_begin(void *stream);
int gpu_record_end(void *stream, void **recorded);
int gpu_replay(void *recorded, void *stream);
int gpu_record_free(void *recorded);

/* A mark in a stream: gpu_mark() enqueues it, and once the stream has passed two, *seconds lie
 * between them. */
int gpu_mark_new(void **mark);
int gpu_mark(void *mark, void *stream);
int gpu_mark_seconds(double *seconds, void *from, void *to);
/* Whether the stream has passed it; and until it has. What failed before it appears in both. */
int gpu_mark_passed(bool *passed, void *mark, void *stream);
int gpu_mark_wait(void *mark, void *stream);

/* What this thread does from here to the end has a name, for profilers that look on (NVTX); spans
 * lie within each other. Costs nothing when none does. */
void gpu_span_begin(const char *name);
void gpu_span_end(void);

#endif
