/* What the files of the CUDA backend share: the device of a context and of a plan. */
#ifndef PRISM_CUDA_BACKEND_H
#define PRISM_CUDA_BACKEND_H

#include "core/arena.h"
#include "cuda/launch.h"
#include "stages.h"

typedef struct prism_cuda_device {
    int ordinal;
    cudaStream_t stream;
    cudaError_t error; /* the first failure since status() was asked */
    const char *where;
    int32_t attend_kernel; /* PRISM_CU_ATTEND_*, of the last launch; -1 before */
    cudaEvent_t event[PRISM_N_MARK];
} prism_cuda_device;

typedef struct prism_cuda_plan {
    int ordinal;
    void *memory; /* one allocation, cut into what follows */
    int64_t *row_ptr;
    int32_t *index, *work, *ticket, *full;
    int32_t *lengths; /* [3][n_seq_max]: n_q, n_kv, q_start of the last build, where only the device knows them */
    bool has_work;
    cudaStream_t stream;  /* of the last build */
    prism_cu_shape shape; /* of the last build; its arrays are the plan's own */
} prism_cuda_plan;

static inline prism_cuda_device *prism_cuda_of(const prism_ctx *ctx)
{
    return ctx->device;
}

/* Keeps the first failure for status(). true: no failure. */
bool prism_cuda_ok(prism_cuda_device *d, cudaError_t error, const char *where);

/* Makes the context's GPU current; returns the one that was, for prism_cuda_leave(). */
int prism_cuda_enter(int ordinal);
void prism_cuda_leave(int before, int ordinal);

prism_cu_shape prism_cuda_shape(const prism_problem *p);
prism_cu_view prism_cuda_queries(const prism_problem *p, const prism_tensor *x); /* q or o */
prism_cu_view prism_cuda_keys(const prism_problem *p, const prism_tensor *x);    /* k or v */
/* Sequence s of them alone. */
prism_cu_view prism_cuda_view_one(const prism_tensor *x, prism_cu_view view, int32_t s);
prism_cu_attend prism_cuda_attention(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan,
                                     void *scratch);
size_t prism_cuda_attend_bytes(const prism_ctx *ctx, const prism_problem *p);

/* Whether q, k, v and o, as far as given, lie so that 16 bytes of 16-bit numbers can be copied at once. */
bool prism_cuda_copies_by_16(const prism_call *c);

/* What select leaves for fill. */
typedef struct prism_cuda_bits {
    int32_t *count;   /* [n_row] */
    uint32_t *bitmap; /* prism_select_bitmap_words() */
} prism_cuda_bits;
prism_cuda_bits prism_cuda_cut_bits(const prism_problem *p, prism_arena *a);

/* moments.c */
const char *prism_cuda_refuses_moments(const prism_ctx *ctx, const prism_problem *p, const prism_options *o);
bool prism_cuda_pool_moments(const prism_ctx *ctx, const prism_pool_job *job); /* false: it is not asked for */
size_t prism_cuda_select_moments_bytes(const prism_ctx *ctx, const prism_problem *p);
void prism_cuda_select_moments(const prism_ctx *ctx, const prism_moments_job *job);
size_t prism_cuda_moments_bytes(const prism_problem *p);
size_t prism_cuda_attend_corrected_bytes(const prism_ctx *ctx, const prism_problem *p);
void prism_cuda_attend_corrected(const prism_ctx *ctx, const prism_correct_job *job);

/* device.c */
prism_status prism_cuda_open(prism_ctx *ctx, int32_t ordinal);
void prism_cuda_close(prism_ctx *ctx);
void prism_cuda_use_stream(prism_ctx *ctx, void *stream);
prism_status prism_cuda_look(int32_t ordinal, prism_cuda_info *info);
bool prism_cuda_is_readable(const prism_ctx *ctx, const void *data);
prism_status prism_cuda_status(prism_ctx *ctx);
void prism_cuda_mark(const prism_ctx *ctx, prism_mark moment);
double prism_cuda_seconds(const prism_ctx *ctx, prism_mark from, prism_mark to);

/* plan.c */
prism_status prism_cuda_plan_create(prism_ctx *ctx, prism_plan *plan);
void prism_cuda_plan_destroy(prism_plan *plan);
void prism_cuda_plan_begin(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan);
prism_status prism_cuda_plan_fetch(prism_plan *plan);
void prism_cuda_plan_push(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan);
void prism_cuda_plan_look(const prism_plan *plan, prism_cuda_plan_view *view);
void prism_cuda_plan_count(const prism_ctx *ctx, const prism_plan *plan, int64_t *counts);

#endif
