#include "blas.h"

#include <stdio.h>

#include "../library.h"

/* Of cublas_api.h and library_types.h; the values are frozen by binary compatibility. */
enum { OP_N = 0, OP_T = 1 };
enum { R_32F = 0, R_16F = 2, R_16BF = 14 };
enum { COMPUTE_32F = 68, ALGORITHM_DEFAULT = -1 };

static struct {
    bool loaded;
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, cudaStream_t stream);
    int (*gemm)(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int type_a,
                int ld_a, const void *b, int type_b, int ld_b, const void *beta, void *c, int type_c, int ld_c,
                int compute, int algorithm);
    const char *(*status_name)(int status);
    int (*property)(int which, int *value);
} cublas;

static bool load(lm_error *err)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", NULL};
    static const lm_symbol symbols[] = {
        {"cublasCreate_v2", &cublas.create},          {"cublasDestroy_v2", &cublas.destroy},
        {"cublasSetStream_v2", &cublas.set_stream},   {"cublasGemmEx", &cublas.gemm},
        {"cublasGetStatusName", &cublas.status_name}, {"cublasGetProperty", &cublas.property},
    };
    if (!cublas.loaded)
        cublas.loaded = lm_library_load("cuBLAS", names, symbols, sizeof symbols / sizeof *symbols, err);
    return cublas.loaded;
}

bool lm_blas_create(lm_blas *blas, bool bf16, cudaStream_t stream, lm_error *err)
{
    *blas = (lm_blas){.bf16 = bf16};
    if (!load(err))
        return false;
    int status = cublas.create(&blas->handle);
    if (!status)
        status = cublas.set_stream(blas->handle, stream);
    return !status || lm_fail(err, LM_ERROR_RUN, "cuBLAS does not start: %s", cublas.status_name(status));
}

void lm_blas_destroy(lm_blas *blas)
{
    if (blas->handle)
        cublas.destroy(blas->handle);
    *blas = (lm_blas){0};
}

const char *lm_blas_product(const lm_blas *blas, const void *w, int64_t rows, int64_t cols, const void *x, int32_t n,
                            float *y, bool accumulate)
{
    if (!blas->handle)
        return "cuBLAS is not found";
    /* cuBLAS counts columns first: what it calls W [cols][rows], x [cols][n], y [rows][n] */
    const float alpha = 1, beta = accumulate ? 1 : 0;
    const int type = blas->bf16 ? R_16BF : R_16F;
    const int status = cublas.gemm(blas->handle, OP_T, OP_N, (int)rows, n, (int)cols, &alpha, w, type, (int)cols, x,
                                   type, (int)cols, &beta, y, R_32F, (int)rows, COMPUTE_32F, ALGORITHM_DEFAULT);
    return status ? cublas.status_name(status) : NULL;
}

bool lm_blas_describe(char *text, size_t n, lm_error *err)
{
    int version[3] = {0};
    if (!load(err))
        return false;
    for (int i = 0; i < 3; i++)
        cublas.property(i, &version[i]);
    snprintf(text, n, "cuBLAS %d.%d.%d", version[0], version[1], version[2]);
    return true;
}
