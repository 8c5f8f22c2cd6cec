#include "product.h"

#include <cblas.h>

const char *lm_products_library(void)
{
    return "BLAS";
}

bool lm_products_have_bf16(void)
{
    return false;
}

bool lm_products_create(int32_t n_thread, lm_products **out, lm_error *err)
{
    (void)n_thread, (void)err;
#ifdef OPENBLAS_VERSION
    openblas_set_num_threads(1); /* of the whole process */
#endif
    *out = NULL; /* BLAS keeps nothing */
    return true;
}

void lm_products_destroy(lm_products *p)
{
    (void)p;
}

void lm_product_f32(lm_products *p, const lm_product_args *a)
{
    const float beta = a->accumulate ? 1.0f : 0.0f;
    (void)p;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)a->n, (int)a->rows, (int)a->cols, 1.0f, a->x,
                (int)a->stride_x, a->w, (int)a->cols, beta, a->y, (int)a->stride_y);
}

bool lm_product_bf16(lm_products *p, int32_t thread, const lm_product_args *a)
{
    (void)p, (void)thread, (void)a;
    return false; /* never called: lm_products_have_bf16() */
}
