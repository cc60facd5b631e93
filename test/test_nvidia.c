/* test_nvidia.c - NVIDIA's own libraries, where they are installed: they open without a driver, are
 * new enough, and have every function that is called. */
#include "comm/nccl/library.h"
#include "dev/cuda/blas.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void nccl_opens_and_has_all_that_is_called(void **state)
{
    struct nccl nccl;
    struct err e;
    (void)state;
    int rc = nccl_open(&nccl, &e);
    if (rc == -ENOENT) {
        print_message("skipped: no NCCL here\n");
        skip();
    }
    if (rc)
        fail_msg("%s", e.text);
    assert_true(nccl.version >= NCCL_LEAST);
    print_message("NCCL %d\n", nccl.version);
}

static void cublaslt_opens_and_has_all_that_is_called(void **state)
{
    struct blas_library blas;
    struct err e;
    (void)state;
    int rc = blas_library_open(&blas, &e);
    if (rc == -ENOENT) {
        print_message("skipped: no cuBLASLt here\n");
        skip();
    }
    if (rc)
        fail_msg("%s", e.text);
    print_message("cuBLASLt %zu\n", blas.version);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nccl_opens_and_has_all_that_is_called),
        cmocka_unit_test(cublaslt_opens_and_has_all_that_is_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
