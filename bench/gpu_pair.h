/* gpu_pair.h - what several processes, or several streams, do on one GPU: the sum of two ranks, and
 * the memory that each process takes. For bench/gpu.c, which is started again for them. */
#ifndef TANDEM_BENCH_GPU_PAIR_H
#define TANDEM_BENCH_GPU_PAIR_H

#include <stdbool.h>

/* Seconds of one sum of 16 KiB between two ranks. */
double pair_threads(bool tiny);
double pair_processes(bool tiny); /* 0, and a line on standard error: it cannot be measured */

/* Bytes of the GPU that a process with all kernels loaded takes, beside what it asks for; or one
 * that only keeps memory there, beside that. */
double idle_bytes(void);
double keeper_bytes(void);

/* Of the processes that are started: "--pair FD RANK TINY", "--idle" and "--keep". */
int pair_main(int fd, int rank, bool tiny);
int idle_main(void);
int keeper_main(void);

#endif
