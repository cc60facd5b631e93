/* runtime_keep.c - kept memory of runtime.h: the driver's virtual memory, whose allocations belong
 * to no context and are shared by file descriptors. The driver is found through cudart. */
#include "dev/cuda/runtime.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

/* Calls of the driver, as of CUDA 12; its header is for their types only. */
struct driver {
    __typeof__(cuInit) *init;
    __typeof__(cuDeviceGet) *device;
    __typeof__(cuDeviceGetAttribute) *attribute;
    __typeof__(cuDevicePrimaryCtxGetState) *context;
    __typeof__(cuDevicePrimaryCtxReset) *reset;
    __typeof__(cuMemGetAllocationGranularity) *granularity;
    __typeof__(cuMemCreate) *create;
    __typeof__(cuMemRelease) *release;
    __typeof__(cuMemExportToShareableHandle) *to_fd;
    __typeof__(cuMemImportFromShareableHandle) *from_fd;
    __typeof__(cuMemAddressReserve) *reserve;
    __typeof__(cuMemAddressFree) *unreserve;
    __typeof__(cuMemMap) *map;
    __typeof__(cuMemUnmap) *unmap;
    __typeof__(cuMemSetAccess) *access;
};

static int find(const char *name, void *call)
{
    enum cudaDriverEntryPointQueryResult how;
    int rc = (int)cudaGetDriverEntryPointByVersion(name, call, 12000, cudaEnableDefault, &how);
    return rc || how == cudaDriverEntryPointSuccess ? rc : (int)cudaErrorSymbolNotFound;
}

static int find_driver(struct driver *d)
{
    const struct {
        const char *name;
        void *call;
    } all[] = {
        {"cuInit", &d->init},
        {"cuDeviceGet", &d->device},
        {"cuDeviceGetAttribute", &d->attribute},
        {"cuDevicePrimaryCtxGetState", &d->context},
        {"cuDevicePrimaryCtxReset", &d->reset},
        {"cuMemGetAllocationGranularity", &d->granularity},
        {"cuMemCreate", &d->create},
        {"cuMemRelease", &d->release},
        {"cuMemExportToShareableHandle", &d->to_fd},
        {"cuMemImportFromShareableHandle", &d->from_fd},
        {"cuMemAddressReserve", &d->reserve},
        {"cuMemAddressFree", &d->unreserve},
        {"cuMemMap", &d->map},
        {"cuMemUnmap", &d->unmap},
        {"cuMemSetAccess", &d->access},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof(all) / sizeof(all[0]); i++)
        rc = find(all[i].name, all[i].call);
    return rc ? rc : (int)d->init(0);
}

static const CUmemAllocationHandleType BY_FD = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;

static CUmemAllocationProp on_gpu(int gpu)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .requestedHandleTypes = BY_FD,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu}};
}

/* Bytes rounded up to the unit of memory like this. */
static int round_bytes(const struct driver *d, const CUmemAllocationProp *prop, size_t *bytes)
{
    size_t unit = 1;
    int rc = (int)d->granularity(&unit, prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    if (!rc)
        *bytes = (*bytes + unit - 1) / unit * unit;
    return rc;
}

int gpu_keep_unit(int gpu, size_t *unit)
{
    struct driver d;
    CUdevice device;
    int virtual = 0, by_fd = 0, rc = find_driver(&d);
    const CUmemAllocationProp prop = on_gpu(gpu);
    *unit = 0;
    if (!rc)
        rc = (int)d.device(&device, gpu);
    if (!rc)
        rc = (int)d.attribute(&virtual, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
                              device);
    if (!rc)
        rc = (int)d.attribute(
            &by_fd, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, device);
    if (rc || !virtual || !by_fd)
        return rc;
    *unit = 1;
    rc = round_bytes(&d, &prop, unit);
    *unit = rc ? 0 : *unit;
    return rc;
}

int gpu_keep(int gpu, size_t bytes, int *fd)
{
    struct driver d;
    CUmemGenericAllocationHandle memory;
    const CUmemAllocationProp prop = on_gpu(gpu);
    int rc = find_driver(&d);
    *fd = -1;
    if (!rc)
        rc = round_bytes(&d, &prop, &bytes);
    if (!rc)
        rc = (int)d.create(&memory, bytes, &prop, 0);
    if (rc)
        return rc;
    rc = (int)d.to_fd(fd, memory, BY_FD, 0);
    if (rc)
        d.release(memory);
    return rc; /* the memory stays this process's, too */
}

int gpu_leave(int gpu)
{
    struct driver d;
    CUdevice device;
    unsigned flags;
    int active = 0, rc = find_driver(&d);
    if (!rc)
        rc = (int)d.device(&device, gpu);
    if (!rc)
        rc = (int)d.context(device, &flags, &active);
    return rc || !active ? rc : (int)d.reset(device);
}

/* Addresses for memory that was imported, and the right of the GPU in use to read and write it. */
static int map_memory(const struct driver *d, CUdeviceptr *at, CUmemGenericAllocationHandle memory,
                      size_t bytes, int gpu)
{
    const CUmemAccessDesc mine = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu},
                                  .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    int rc = (int)d->reserve(at, bytes, 0, 0, 0);
    if (rc)
        return rc;
    rc = (int)d->map(*at, bytes, 0, memory, 0);
    if (!rc) {
        rc = (int)d->access(*at, bytes, &mine, 1);
        if (rc)
            d->unmap(*at, bytes);
    }
    if (rc)
        d->unreserve(*at, bytes);
    return rc;
}

/* The driver, the GPU in use, and the size of memory of its kind. */
static int find_gpu(struct driver *d, int *gpu, size_t *bytes)
{
    int rc = find_driver(d);
    if (!rc)
        rc = (int)cudaGetDevice(gpu);
    const CUmemAllocationProp prop = on_gpu(*gpu);
    return rc ? rc : round_bytes(d, &prop, bytes);
}

int gpu_kept_map(void **at, int fd, size_t bytes)
{
    struct driver d;
    CUmemGenericAllocationHandle memory;
    CUdeviceptr to = 0;
    int gpu = 0, rc = find_gpu(&d, &gpu, &bytes);
    *at = NULL;
    if (!rc)
        rc = (int)d.from_fd(&memory, (void *)(uintptr_t)fd, BY_FD);
    if (rc)
        return rc;
    rc = map_memory(&d, &to, memory, bytes, gpu);
    d.release(memory); /* the mapping holds it */
    *at = rc ? NULL : (void *)(uintptr_t)to;
    return rc;
}

int gpu_kept_unmap(void *at, size_t bytes)
{
    struct driver d;
    const CUdeviceptr from = (CUdeviceptr)(uintptr_t)at;
    int gpu = 0, rc = find_gpu(&d, &gpu, &bytes);
    if (!rc)
        rc = (int)d.unmap(from, bytes);
    return rc ? rc : (int)d.unreserve(from, bytes);
}
