/* mpi_allreduce.c - Open MPI's all-reduce of f32, for comparison: prints "bytes median_us" for
 * each size from argv[1] to argv[2]. Run by `tandem bench allreduce` through mpirun. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    size_t min = argc > 1 ? strtoull(argv[1], NULL, 10) : 1024;
    size_t max = argc > 2 ? strtoull(argv[2], NULL, 10) : 1 << 20;
    float *from = calloc(1, max), *to = calloc(1, max);
    double *us = calloc(5000, sizeof(*us));
    for (size_t bytes = min; from && to && us && bytes <= max; bytes *= 2) {
        size_t n = bytes / sizeof(float), want = (256u << 20) / (bytes + 4096);
        int iters = want > 5000 ? 5000 : want < 10 ? 10 : (int)want;
        for (int turn = -20; turn < iters; turn++) {
            for (size_t i = 0; i < n; i++)
                from[i] = (float)(rank + turn);
            double begin = MPI_Wtime();
            MPI_Allreduce(from, to, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
            if (turn >= 0)
                us[turn] = (MPI_Wtime() - begin) * 1e6;
        }
        qsort(us, (size_t)iters, sizeof(*us), by_value);
        if (rank == 0)
            printf("%zu %.3f\n", bytes, us[iters / 2]);
    }
    free(from);
    free(to);
    free(us);
    MPI_Finalize();
    return 0;
}
