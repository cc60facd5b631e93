/* nvml_live.h - what the NVIDIA GPUs of this host are doing now, asked again and again of the
 * driver's library. What they are is topo/nvml.h's.
 *
 * The driver may take its time, and for ever when it hangs: ask from a thread that may wait.
 */
#ifndef TANDEM_TOPO_NVML_LIVE_H
#define TANDEM_TOPO_NVML_LIVE_H

#include "topo/nvml.h"

/* Bits of nvml_now.slowed: why clocks are below what was asked for. */
enum {
    GPU_SLOWED_POWER_CAP = 0x4,
    GPU_SLOWED_HARDWARE = 0x8,
    GPU_SLOWED_SOFTWARE_THERMAL = 0x20,
    GPU_SLOWED_HARDWARE_THERMAL = 0x40,
    GPU_SLOWED_POWER_BRAKE = 0x80,
};

/* -1: not told, by this GPU or by this driver. */
struct nvml_now {
    bool lost;                              /* off the bus: only a restart of the host helps */
    double busy, memory_busy;               /* share of the last second or less, 1 is all */
    double memory_used, memory_free;        /* bytes */
    double power_w, power_limit_w, celsius; /* of the chip */
    double energy_j;                        /* since the driver was loaded */
    double sm_hz;
    double ecc_corrected, ecc_uncorrected; /* since the driver was loaded */
    double nvlinks, nvlink_errors;         /* links that are up; CRC errors, replays, recoveries */
    double pcie_generation, pcie_width, pcie_replays;
    double slowed;
};

struct nvml_live {
    void *library, *device[NVML_GPUS], *events;
    int n;
    struct nvml about;
    double xid[NVML_GPUS],
        n_xid[NVML_GPUS]; /* the driver's last report of an error, and how many */
};

/* Open `library` (NULL: libnvidia-ml.so.1); fails as nvml_read() does. */
int nvml_live_open(struct nvml_live *x, const char *library, struct err *e);

/* now[i] becomes what GPU i does; x->xid is brought up to date. Takes about a millisecond a GPU. */
void nvml_live_read(struct nvml_live *x, struct nvml_now now[NVML_GPUS]);

void nvml_live_close(struct nvml_live *x);

#endif
