/* runtime.c - the CUDA runtime behind runtime.h. The one file on the host side that knows cudart,
 * which is linked into the plugin and finds the driver by itself. */
#include "dev/cuda/runtime.h"

#include <cuda_runtime_api.h>
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <string.h>

int gpu_driver(int *have, int *need)
{
    *have = 0;
    *need = CUDART_VERSION;
    return (int)cudaDriverGetVersion(have);
}

int gpu_count(int *n)
{
    *n = 0;
    return (int)cudaGetDeviceCount(n);
}

int gpu_use(int gpu) { return (int)cudaSetDevice(gpu); }

int gpu_about(int gpu, struct gpu_about *to)
{
    struct cudaDeviceProp p;
    int used = -1, rc = (int)cudaGetDeviceProperties(&p, gpu);
    memset(to, 0, sizeof(*to));
    if (!rc)
        rc = (int)cudaDeviceGetPCIBusId(to->bus, (int)sizeof(to->bus), gpu);
    if (rc)
        return rc;
    snprintf(to->name, sizeof(to->name), "%.95s", p.name);
    to->arch = 10 * p.major + p.minor;
    to->sm = p.multiProcessorCount;
    to->memory = p.totalGlobalMem;
    size_t all;
    if (cudaGetDevice(&used) != cudaSuccess || used != gpu ||
        cudaMemGetInfo(&to->memory_free, &all) != cudaSuccess)
        to->memory_free = 0;
    return 0;
}

int gpu_reaches(int gpu, int other, bool *yes)
{
    int can = gpu == other;
    int rc = can ? 0 : (int)cudaDeviceCanAccessPeer(&can, gpu, other);
    *yes = can;
    return rc;
}

const char *gpu_error(int code) { return cudaGetErrorString((cudaError_t)code); }

int gpu_alloc(void **at, size_t bytes) { return (int)cudaMalloc(at, bytes); }
int gpu_free(void *at) { return (int)cudaFree(at); }
int gpu_pinned(void **at, size_t bytes) { return (int)cudaMallocHost(at, bytes); }
int gpu_pinned_free(void *at) { return (int)cudaFreeHost(at); }

int gpu_handle(struct gpu_handle *to, void *at)
{
    cudaIpcMemHandle_t handle;
    _Static_assert(sizeof(handle) == sizeof(*to), "a handle is that many bytes");
    int rc = (int)cudaIpcGetMemHandle(&handle, at);
    memcpy(to, &handle, sizeof(*to));
    return rc;
}

int gpu_map(void **at, const struct gpu_handle *from)
{
    cudaIpcMemHandle_t handle;
    memcpy(&handle, from, sizeof(handle));
    return (int)cudaIpcOpenMemHandle(at, handle, cudaIpcMemLazyEnablePeerAccess);
}

int gpu_unmap(void *at) { return (int)cudaIpcCloseMemHandle(at); }

int gpu_show(void **seen, void *host, size_t bytes)
{
    int rc = (int)cudaHostRegister(host, bytes, cudaHostRegisterMapped);
    if (rc == (int)cudaErrorHostMemoryAlreadyRegistered)
        rc = 0;
    return rc ? rc : (int)cudaHostGetDevicePointer(seen, host, 0);
}

int gpu_hide(void *host) { return (int)cudaHostUnregister(host); }

int gpu_stream(void **stream)
{
    return (int)cudaStreamCreateWithFlags((cudaStream_t *)stream, cudaStreamNonBlocking);
}

int gpu_copy_in(void *to, const void *from, size_t bytes, void *stream)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream);
}

int gpu_copy_out(void *to, const void *from, size_t bytes, void *stream)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream);
}

int gpu_copy(void *to, const void *from, size_t bytes, void *stream)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

int gpu_clear(void *at, size_t bytes, void *stream)
{
    return (int)cudaMemsetAsync(at, 0, bytes, stream);
}

int gpu_wait(void *stream) { return (int)cudaStreamSynchronize(stream); }

int gpu_done(void *stream, bool *done)
{
    cudaError_t rc = cudaStreamQuery(stream);
    *done = rc == cudaSuccess;
    return rc == cudaErrorNotReady ? 0 : (int)rc;
}

int gpu_record_begin(void *stream)
{
    return (int)cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
}

int gpu_record_end(void *stream, void **recorded)
{
    cudaGraph_t graph = NULL;
    int rc = (int)cudaStreamEndCapture(stream, &graph);
    if (rc)
        return rc;
    rc = (int)cudaGraphInstantiate((cudaGraphExec_t *)recorded, graph, 0);
    cudaGraphDestroy(graph);
    return rc;
}

int gpu_replay(void *recorded, void *stream) { return (int)cudaGraphLaunch(recorded, stream); }
int gpu_record_free(void *recorded) { return (int)cudaGraphExecDestroy(recorded); }

/* ------------------------------------------------------------------------------- profilers */

int gpu_mark_new(void **mark) { return (int)cudaEventCreate((cudaEvent_t *)mark); }
int gpu_mark(void *mark, void *stream) { return (int)cudaEventRecord(mark, stream); }

int gpu_mark_seconds(double *seconds, void *from, void *to)
{
    float ms = 0;
    int rc = (int)cudaEventElapsedTime(&ms, from, to);
    *seconds = 1e-3 * (double)ms;
    return rc;
}

int gpu_mark_passed(bool *passed, void *mark, void *stream)
{
    const cudaError_t rc = cudaEventQuery(mark);
    (void)stream;
    *passed = rc != cudaErrorNotReady;
    return rc == cudaErrorNotReady ? 0 : (int)rc;
}

int gpu_mark_wait(void *mark, void *stream)
{
    (void)stream;
    return (int)cudaEventSynchronize(mark);
}

void gpu_span_begin(const char *name) { nvtxRangePushA(name); }
void gpu_span_end(void) { nvtxRangePop(); }
