#include "product.h"

#include <assert.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

/* What a primitive was made for. */
typedef struct shape {
    int64_t n, rows, cols, stride_x, stride_y;
    bool accumulate;
} shape;

/* One thread's primitive, made anew when the shape changes, and its scratch. */
typedef struct worker {
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    shape made_for;
    dnnl_memory_t x, w, y, scratch;
    void *scratch_data;
} worker;

struct lm_products {
    dnnl_engine_t engine;
    int32_t n_thread;
    worker workers[];
};

const char *lm_products_library(void)
{
    return "oneDNN " TEXT(DNNL_VERSION_MAJOR) "." TEXT(DNNL_VERSION_MINOR) "." TEXT(DNNL_VERSION_PATCH);
}

bool lm_products_have_bf16(void)
{
    /* Values climb with the instruction sets; AVX-VNNI alone lies between them and has no bfloat16. */
    const int isa = (int)dnnl_get_effective_cpu_isa();
    return (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

static void forget(worker *t)
{
    dnnl_primitive_destroy(t->primitive);
    dnnl_memory_destroy(t->x);
    dnnl_memory_destroy(t->w);
    dnnl_memory_destroy(t->y);
    dnnl_memory_destroy(t->scratch);
    free(t->scratch_data);
    *t = (worker){.stream = t->stream};
}

void lm_products_destroy(lm_products *p)
{
    if (!p)
        return;
    for (int32_t i = 0; i < p->n_thread; i++) {
        forget(&p->workers[i]);
        dnnl_stream_destroy(p->workers[i].stream);
    }
    dnnl_engine_destroy(p->engine);
    free(p);
}

bool lm_products_create(int32_t n_thread, lm_products **out, lm_error *err)
{
    lm_products *p = calloc(1, sizeof *p + (size_t)n_thread * sizeof p->workers[0]);
    *out = NULL;
    bool ok = p && dnnl_engine_create(&p->engine, dnnl_cpu, 0) == dnnl_success;
    if (p)
        p->n_thread = n_thread;
    for (int32_t i = 0; ok && i < n_thread; i++)
        ok = dnnl_stream_create(&p->workers[i].stream, p->engine, dnnl_stream_default_flags) == dnnl_success;
    if (!ok) {
        lm_products_destroy(p);
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for products of matrices");
    }
    *out = p;
    return true;
}

void lm_product_f32(lm_products *p, const lm_product_args *a)
{
    (void)p;
    const dnnl_status_t status = dnnl_sgemm('N', 'T', a->n, a->rows, a->cols, 1.0f, a->x, a->stride_x, a->w, a->cols,
                                            a->accumulate ? 1.0f : 0.0f, a->y, a->stride_y);
    assert(status == dnnl_success);
    (void)status;
}

/* A matrix whose rows are stride elements apart, or, of columns, whose columns are. */
static dnnl_memory_desc_t matrix(int64_t rows, int64_t cols, int64_t stride, bool of_columns, dnnl_data_type_t type)
{
    dnnl_memory_desc_t d;
    const dnnl_dims_t dims = {rows, cols}, strides = {of_columns ? 1 : stride, of_columns ? stride : 1};
    dnnl_memory_desc_init_by_strides(&d, 2, dims, type, strides);
    return d;
}

static bool make(const lm_products *p, worker *t, const shape *s)
{
    const dnnl_memory_desc_t x = matrix(s->n, s->cols, s->stride_x, false, dnnl_bf16),
                             w = matrix(s->cols, s->rows, s->cols, true, dnnl_bf16),
                             y = matrix(s->n, s->rows, s->stride_y, false, dnnl_f32);
    dnnl_matmul_desc_t op;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t desc = NULL;
    forget(t);
    bool ok = !dnnl_matmul_desc_init(&op, &x, &w, NULL, &y) && !dnnl_primitive_attr_create(&attr) &&
              !dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) &&
              !dnnl_post_ops_create(&post) && (!s->accumulate || !dnnl_post_ops_append_sum(post, 1.0f)) &&
              !dnnl_primitive_attr_set_post_ops(attr, post) &&
              !dnnl_primitive_desc_create(&desc, &op, attr, p->engine, NULL) &&
              !dnnl_primitive_create(&t->primitive, desc);
    if (ok) {
        const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
        const size_t bytes = dnnl_memory_desc_get_size(scratch);
        t->scratch_data = aligned_alloc(64, (bytes + 64) / 64 * 64);
        ok = t->scratch_data && !dnnl_memory_create(&t->x, &x, p->engine, DNNL_MEMORY_NONE) &&
             !dnnl_memory_create(&t->w, &w, p->engine, DNNL_MEMORY_NONE) &&
             !dnnl_memory_create(&t->y, &y, p->engine, DNNL_MEMORY_NONE) &&
             !dnnl_memory_create(&t->scratch, scratch, p->engine, t->scratch_data);
        t->made_for = *s;
    }
    dnnl_primitive_desc_destroy(desc);
    dnnl_post_ops_destroy(post);
    dnnl_primitive_attr_destroy(attr);
    return ok;
}

static bool same(const shape *a, const shape *b)
{
    return a->n == b->n && a->rows == b->rows && a->cols == b->cols && a->stride_x == b->stride_x &&
           a->stride_y == b->stride_y && a->accumulate == b->accumulate;
}

bool lm_product_bf16(lm_products *p, int32_t thread, const lm_product_args *a)
{
    worker *t = &p->workers[thread];
    const shape s = {a->n, a->rows, a->cols, a->stride_x, a->stride_y, a->accumulate};
    if ((!t->primitive || !same(&s, &t->made_for)) && !make(p, t, &s))
        return false;
    dnnl_memory_set_data_handle_v2(t->x, (void *)a->x, t->stream);
    dnnl_memory_set_data_handle_v2(t->w, (void *)a->w, t->stream);
    dnnl_memory_set_data_handle_v2(t->y, a->y, t->stream);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, t->x},
                                    {DNNL_ARG_WEIGHTS, t->w},
                                    {DNNL_ARG_DST, t->y},
                                    {DNNL_ARG_SCRATCHPAD, t->scratch}};
    return !dnnl_primitive_execute(t->primitive, t->stream, 4, args) && !dnnl_stream_wait(t->stream);
}
