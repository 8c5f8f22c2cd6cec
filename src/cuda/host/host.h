/* What the host files of the CUDA backend share: the device of a context and of a plan, and a call as kernels see it.
 * Order of the files: call, gpu, plan_memory; moments_stages; attend_stages, select_stages; backend (the table). */
#ifndef PRISM_CUDA_HOST_H
#define PRISM_CUDA_HOST_H

#include "core/arena.h"
#include "cuda/gpu_facts.h"
#include "cuda/launch.h"
#include "stages.h"

typedef struct prism_cuda_device {
    int ordinal;
    const prism_cu_gpu *gpu;
    cudaStream_t stream;
    cudaError_t error; /* the first failure since the last prism_cuda_status() */
    const char *where;
    int32_t attend_kernel; /* a prism_cu_kernel: of the last attention; -1 before the first */
    cudaEvent_t event[PRISM_N_MARK];
    char sentence[256]; /* of the last refusal */
} prism_cuda_device;

typedef struct prism_cuda_plan {
    int ordinal;
    void *memory; /* one allocation of device memory, cut into the next six */
    int64_t *row_ptr;
    int32_t *index, *order, *ticket, *full;
    int32_t *lengths; /* [3][n_seq]: n_q, n_kv, q_start of the last build; only where the host does not know them */
    bool has_order;
    cudaStream_t stream;     /* of the last build */
    prism_cu_shape shape;    /* of the last build; its arrays are `lengths` */
    int32_t host_lengths[]; /* [3 * n_seq_max]: where plan_fetch copies `lengths` */
} prism_cuda_plan;

static inline prism_cuda_device *prism_cuda_of(const prism_ctx *ctx)
{
    return ctx->device;
}

/* Bytes that a layout function has counted; SIZE_MAX: more than a size_t holds. */
static inline size_t prism_cuda_counted(const prism_arena *a)
{
    return a->overflow ? SIZE_MAX : a->used;
}

/* call.c: a call as kernels see it */
prism_cu_shape prism_cuda_shape(const prism_problem *p);
prism_cu_view prism_cuda_queries(const prism_problem *p, const prism_tensor *x); /* q or o */
prism_cu_view prism_cuda_keys(const prism_problem *p, const prism_tensor *x);    /* k or v */
/* What the call asks of kernels. A tensor without data does not count. */
prism_cu_ask prism_cuda_ask(const prism_ctx *ctx, const prism_problem *p);
/* Narrows a shape to sequence s. */
prism_cu_shape prism_cuda_shape_one(const prism_problem *p, int32_t s);
/* Narrows the view of tensor x to sequence s. */
prism_cu_view prism_cuda_view_one(const prism_tensor *x, prism_cu_view view, int32_t s);

/* What selection leaves for fill. */
typedef struct prism_cuda_bits {
    int32_t *count;   /* [n_row] */
    uint32_t *bitmap; /* prism_select_bitmap_words() */
} prism_cuda_bits;
prism_cuda_bits prism_cuda_cut_bits(const prism_problem *p, prism_arena *a);

/* moments_stages.c */
size_t prism_cuda_moments_bytes(const prism_problem *p);
/* The arguments of the kernels of moments. memory: prism_cuda_moments_bytes(), or NULL: the caller keeps moments. */
prism_cu_moments prism_cuda_moments_of(const prism_problem *p, void *memory);
bool prism_cuda_pool_moments(const prism_ctx *ctx, const prism_pool_job *job); /* false: the job wants no moments */
size_t prism_cuda_select_moments_bytes(const prism_ctx *ctx, const prism_moments_job *job);
void prism_cuda_select_moments(const prism_ctx *ctx, const prism_moments_job *job);

/* attend_stages.c */
size_t prism_cuda_attend_bytes(const prism_ctx *ctx, const prism_attend_job *job);
void prism_cuda_attend(const prism_ctx *ctx, const prism_attend_job *job);
const char *prism_cuda_attend_name(const prism_ctx *ctx);

/* select_stages.c */
size_t prism_cuda_means_bytes(const prism_problem *p, bool keys);
void prism_cuda_pool(const prism_ctx *ctx, const prism_pool_job *job);
size_t prism_cuda_bits_bytes(const prism_problem *p);
size_t prism_cuda_select_bytes(const prism_ctx *ctx, const prism_select_job *job);
void prism_cuda_select(const prism_ctx *ctx, const prism_select_job *job);
bool prism_cuda_fill(const prism_ctx *ctx, const prism_problem *p, const void *bits, prism_plan *plan,
                     int64_t *n_selected);

/* gpu.c: the device of a context */
prism_status prism_cuda_open(prism_ctx *ctx, int32_t ordinal);
void prism_cuda_close(prism_ctx *ctx);
void prism_cuda_use_stream(prism_ctx *ctx, void *stream);
prism_status prism_cuda_look(int32_t ordinal, prism_cuda_info *info);
bool prism_cuda_is_readable(const prism_ctx *ctx, const void *data);
prism_status prism_cuda_status(prism_ctx *ctx);
void prism_cuda_mark(const prism_ctx *ctx, prism_mark mark);
double prism_cuda_seconds(const prism_ctx *ctx, prism_mark from, prism_mark to);
/* Keeps the first failure for prism_cuda_status(). true: no failure. */
bool prism_cuda_ok(prism_cuda_device *d, cudaError_t error, const char *where);
/* Makes GPU `ordinal` current; returns the GPU that was current, for prism_cuda_leave(). */
int prism_cuda_enter(int ordinal);
void prism_cuda_leave(int before, int ordinal);

/* plan_memory.c: the device's side of a plan */
prism_status prism_cuda_plan_create(prism_ctx *ctx, prism_plan *plan);
void prism_cuda_plan_destroy(prism_plan *plan);
void prism_cuda_plan_begin(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan);
prism_status prism_cuda_plan_fetch(prism_plan *plan);
void prism_cuda_plan_push(const prism_ctx *ctx, const prism_problem *p, prism_plan *plan);
void prism_cuda_plan_count(const prism_ctx *ctx, const prism_plan *plan, int64_t *counts);

#endif
