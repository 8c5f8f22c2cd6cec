/* The stages of the CUDA backend: what the kernel table asks for, as launches of this directory's kernels. */
#include "cuda/host/host.h"

#include <math.h>
#include <string.h>

#include "core/options.h"

enum {
    max_key_blocks = 24 * 1024
}; /* whose counts fit the least shared memory, where rows are put in order of length */

/* --------------------------------------------------------------------------------- calls as the kernels see them ----
 */

static const int32_t cu_dtype[] = {
    [PRISM_F32] = PRISM_CU_F32, [PRISM_F16] = PRISM_CU_F16, [PRISM_BF16] = PRISM_CU_BF16};

prism_cu_shape prism_cuda_shape(const prism_problem *p)
{
    const prism_call *c = p->call;
    prism_cu_shape s = {.n_seq = c->n_seq,
                        .n_head = c->n_head,
                        .n_kv_head = c->n_kv_head,
                        .d_head = c->d_head,
                        .dtype = cu_dtype[c->q.dtype],
                        .n_qblk = p->n_qblk,
                        .n_kblk = p->n_kblk};
    if (p->device_lengths) {
        s.n_q = c->n_q, s.n_kv = c->n_kv, s.q_start = c->n_kv - c->n_q;
        s.n_q_of = c->n_q_of, s.n_kv_of = c->n_kv_of, s.q_start_of = c->q_start_of;
        return s;
    }
    const prism_seq q = prism_problem_seq(p, 0); /* alike for all */
    s.n_q = q.n_q, s.n_kv = q.n_kv, s.q_start = q.q_start;
    return s;
}

/* Tokens that exist: what the copy engine is told, which fills what lies past them with zeros. Where rows are packed
 * the host cannot see their number, but the caller may have said how far the memory goes; 0: unknown, the engine is not
 * used.
 */
static int64_t tokens_of(const prism_tensor *x, int32_t n_head, int32_t d, int32_t n_token)
{
    if (!x->row_start)
        return n_token;
    const int64_t last = x->n_element - (n_head - 1) * x->stride_head - d;
    return x->n_element > 0 && x->stride_token > 0 && last >= 0 ? last / x->stride_token + 1 : 0;
}

static prism_cu_view view_of(const prism_tensor *x, int32_t n_head, int32_t d, int32_t n_token)
{
    return (prism_cu_view){.data = x->data,
                           .stride_seq = x->stride_seq,
                           .stride_token = x->stride_token,
                           .stride_head = x->stride_head,
                           .row_start = x->row_start,
                           .page_table = x->page_table,
                           .stride_table = x->stride_table,
                           .stride_page = x->stride_page,
                           .page_size = x->page_size,
                           .n_page = x->n_page,
                           .n_token = tokens_of(x, n_head, d, n_token)};
}

prism_cu_view prism_cuda_queries(const prism_problem *p, const prism_tensor *x)
{
    return view_of(x, p->call->n_head, p->call->d_head, p->call->n_q);
}

prism_cu_view prism_cuda_keys(const prism_problem *p, const prism_tensor *x)
{
    return view_of(x, p->call->n_kv_head, p->call->d_head, p->call->n_kv);
}

prism_cu_view prism_cuda_view_one(const prism_tensor *x, prism_cu_view view, int32_t s)
{
    if (view.page_table)
        view.page_table += s * view.stride_table;
    else if (view.row_start)
        view.row_start += s;
    else if (view.data)
        view.data = (char *)view.data + s * view.stride_seq * (x->dtype == PRISM_F32 ? 4 : 2);
    return view;
}

static void set_bits(uint32_t bits[8], const int16_t *dim, int32_t n)
{
    memset(bits, 0, 8 * sizeof *bits);
    for (int32_t j = 0; j < n; j++)
        bits[dim[j] / 32] |= UINT32_C(1) << dim[j] % 32;
}

bool prism_cuda_copies_by_16(const prism_call *c)
{
    const prism_tensor *const all[] = {&c->q, &c->k, &c->v, &c->o};
    for (int i = 0; i < 4; i++) {
        const prism_tensor *x = all[i];
        if (x->data && ((uintptr_t)x->data % 16 != 0 || x->stride_seq % 8 != 0 || x->stride_token % 8 != 0 ||
                        x->stride_head % 8 != 0 || x->stride_page % 8 != 0))
            return false;
    }
    return true;
}

static const char *refuses_fp8(const prism_ctx *ctx, const prism_problem *p)
{
    const prism_call *c = p->call;
    int major = 0, minor = 0;
    const int ordinal = prism_cuda_of(ctx)->ordinal;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal) ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal) || major != 9 || minor != 0)
        return "precision fp8 needs an H100 or H200";
    if ((c->d_head != 64 && c->d_head != 128) || p->block_size != 128)
        return "precision fp8 needs d_head 64 or 128 and blocks of 128";
    if (c->q.dtype == PRISM_F32)
        return "precision fp8 needs queries, keys and values of 16 bits";
    if (!(p->scale > 0))
        return "precision fp8 needs a softmax scale above 0";
    if (!prism_cuda_copies_by_16(c))
        return "precision fp8 needs strides of a multiple of 8 and data aligned to 16 bytes";
    if (c->q.page_table || c->o.page_table)
        return "precision fp8 takes no paged queries or outputs";
    return NULL;
}

static const char *refuses(const prism_ctx *ctx, const prism_problem *p, const prism_options *o)
{
    const prism_call *c = p->call;
    const int32_t d = c->d_head;
    if (c->q.data && c->k.data && c->q.dtype != c->k.dtype)
        return "queries and keys must be of one type";
    if (c->o.data && c->v.data && (c->v.dtype != c->q.dtype || c->o.dtype != c->q.dtype))
        return "queries, keys, values and outputs must be of one type";
    const prism_tensor *const x[] = {&c->q, &c->k, &c->v, &c->o};
    for (int i = 0; i < 4; i++)
        if (x[i]->data && x[i]->stride_dim != 1)
            return "stride_dim must be 1";
    if (c->lse.data && c->lse.page_table)
        return "lse must not be paged";
    const char *fp8 = p->precision == PRISM_PRECISION_FP8 ? refuses_fp8(ctx, p) : NULL;
    if (fp8)
        return fp8;
    if (!o || o->method == PRISM_METHOD_DENSE)
        return NULL;
    const char *sentence = prism_cuda_refuses_moments(ctx, p, o);
    if (sentence || o->method == PRISM_METHOD_MOMENTS)
        return sentence;
    if (o->method != PRISM_METHOD_PRISM && o->method != PRISM_METHOD_MEANPOOL)
        return "this method is not computed there; prism, moments, meanpool and dense are";
    if (d != 64 && d != 96 && d != 128 && d != 192 && d != 256)
        return "blocks can be chosen for d_head 64, 96, 128, 192 and 256; others take method dense";
    if (p->n_kblk > max_key_blocks)
        return "more than 24576 key blocks";
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------ pool ---- */

/* What pool.cu writes: means of queries, or images of keys; then energies. */
typedef struct cuda_means {
    void *mean;
    float *energy;
} cuda_means;

static cuda_means cut_means(const prism_problem *p, bool keys, prism_arena *a)
{
    const prism_call *c = p->call;
    const prism_cu_shape shape = prism_cuda_shape(p);
    cuda_means x;
    x.mean = keys ? prism_arena_take(a, (size_t)prism_key_image_bytes(&shape), 1)
                  : prism_arena_take(a, prism_arena_count(a, p->n_row, c->d_head, 1, 1), sizeof(float));
    x.energy = prism_arena_take(
        a, keys ? prism_arena_count(a, c->n_seq, c->n_kv_head, p->n_kblk, 4) : prism_arena_count(a, p->n_row, 4, 1, 1),
        sizeof(float));
    return x;
}

static size_t means_bytes(const prism_problem *p, bool keys)
{
    prism_arena a = {0};
    cut_means(p, keys, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

static cuda_means means_in(const void *memory, const prism_problem *p, bool keys)
{
    prism_arena a = {.base = (char *)memory};
    return memory ? cut_means(p, keys, &a) : (cuda_means){0};
}

/* Sequence s alone, its keys only: sums of the caller's are one buffer a sequence. */
static prism_cu_pool keys_of(const prism_problem *p, const prism_cu_pool *all, int32_t s, prism_pooled *pooled)
{
    const prism_seq q = prism_problem_seq(p, s);
    const prism_cu_shape *shape = &all->shape;
    prism_cu_pool one = *all;
    const int64_t first = (int64_t)s * p->n_kblk * shape->n_kv_head;
    one.shape.n_seq = 1;
    one.shape.n_qblk = 0;
    one.shape.n_q = q.n_q, one.shape.n_kv = q.n_kv, one.shape.q_start = q.q_start;
    one.k = prism_cuda_view_one(&p->call->k, one.k, s);
    if (one.k_image) {
        one.k_image = (char *)one.k_image + s * prism_key_image_bytes(&one.shape);
        one.k_energy += first * 4;
    }
    one.k_sum = pooled->key_sum;
    one.n_done = pooled->n_token;
    return one;
}

static void pool(const prism_ctx *ctx, const prism_pool_job *job)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_problem *p = job->problem;
    const cuda_means q = means_in(job->q_mean, p, false), k = means_in(job->k_mean, p, true);
    prism_cu_pool a = {.shape = prism_cuda_shape(p),
                       .q = prism_cuda_queries(p, &p->call->q),
                       .k = prism_cuda_keys(p, &p->call->k),
                       .q_split = q.mean,
                       .k_image = k.mean,
                       .q_energy = q.energy,
                       .k_energy = k.energy,
                       .block_size = p->block_size};
    if (job->bands) {
        set_bits(a.high, job->bands->high, job->bands->n_high);
        set_bits(a.low, job->bands->low, job->bands->n_low);
    }
    a.shape.dtype = cu_dtype[p->call->k.dtype];
    if (prism_cuda_pool_moments(ctx, job) && !job->q_mean)
        return; /* keys and their moments are all that is wanted */
    const int before = prism_cuda_enter(device->ordinal);
    for (int32_t s = 0; job->pooled && s < p->call->n_seq; s++) {
        const prism_cu_pool one = keys_of(p, &a, s, &job->pooled[s]);
        if (one.shape.n_q > 0 && prism_cuda_ok(device, prism_pool_cuda(&one, device->stream), "pooling keys"))
            job->pooled[s].n_token = one.shape.n_kv;
    }
    if (job->pooled)
        a.shape.n_kblk = 0; /* done */
    if (!job->q_mean)
        a.shape.n_qblk = 0;
    if (a.shape.n_kblk || a.shape.n_qblk)
        prism_cuda_ok(device, prism_pool_cuda(&a, device->stream), "pooling");
    prism_cuda_leave(before, device->ordinal);
}

/* ---------------------------------------------------------------------------------------------------- select ---- */

prism_cuda_bits prism_cuda_cut_bits(const prism_problem *p, prism_arena *a)
{
    const prism_cu_shape shape = prism_cuda_shape(p);
    prism_cuda_bits x;
    x.count = prism_arena_take(a, (size_t)p->n_row, sizeof *x.count);
    x.bitmap = prism_arena_take(a, (size_t)prism_select_bitmap_words(&shape, p->block_size), sizeof *x.bitmap);
    return x;
}

static size_t bits_bytes(const prism_problem *p)
{
    prism_arena a = {0};
    prism_cuda_cut_bits(p, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

static size_t select_bytes(const prism_ctx *ctx, const prism_problem *p)
{
    const prism_cu_shape shape = prism_cuda_shape(p);
    (void)ctx;
    return (size_t)prism_select_scratch_bytes(&shape);
}

static void select_blocks(const prism_ctx *ctx, const prism_select_job *job)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_problem *p = job->problem;
    const cuda_means q = means_in(job->q_mean, p, false), k = means_in(job->k_mean, p, true);
    prism_arena arena = {.base = job->bits};
    const prism_cuda_bits bits = prism_cuda_cut_bits(p, &arena);
    prism_cu_select a = {.shape = prism_cuda_shape(p),
                         .q_split = q.mean,
                         .k_image = k.mean,
                         .q_energy = q.energy,
                         .k_energy = k.energy,
                         .block_size = p->block_size,
                         .n_band = job->bands ? 2 : 1,
                         .causal_calibration = job->calibration == PRISM_CALIBRATION_CAUSAL,
                         .keep_sink = job->keep_sink,
                         .keep_own = job->keep_own,
                         .min_tokens = job->min_tokens,
                         .scale = p->scale,
                         .top_p = {job->top_p[0], job->top_p[1]},
                         .scratch = job->scratch,
                         .bitmap = bits.bitmap,
                         .count = bits.count};
    if (job->bands) {
        set_bits(a.high, job->bands->high, job->bands->n_high);
        set_bits(a.low, job->bands->low, job->bands->n_low);
    } else {
        memset(a.high, 0xff, sizeof a.high);
    }
    const int before = prism_cuda_enter(device->ordinal);
    prism_cuda_ok(device, prism_select_cuda(&a, device->stream), "choosing blocks");
    prism_cuda_leave(before, device->ordinal);
}

static bool fill(const prism_ctx *ctx, const prism_problem *p, const void *bits, prism_plan *plan, int64_t *n_selected)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    prism_cuda_plan *d = plan->device;
    prism_arena arena = {.base = (char *)bits};
    const prism_cuda_bits x = prism_cuda_cut_bits(p, &arena);
    const prism_cu_select a = {.shape = prism_cuda_shape(p),
                               .block_size = p->block_size,
                               .bitmap = x.bitmap,
                               .count = x.count,
                               .row_ptr = d->row_ptr,
                               .index = d->index,
                               .work = d->work,
                               .capacity = plan->n_index_max,
                               .full = d->full};
    *n_selected = -1; /* known to the device only */
    const int before = prism_cuda_enter(device->ordinal);
    d->has_work = prism_cuda_ok(device, prism_plan_emit_cuda(&a, device->stream), "listing blocks");
    prism_cuda_leave(before, device->ordinal);
    return true;
}

/* ---------------------------------------------------------------------------------------------------- attend ---- */

/* Scratch of attention: parts of split rows, and K and V in 8 bits where those are wanted. */
typedef struct attend_layout {
    size_t parts_bytes;
    void *parts, *image;
} attend_layout;

static attend_layout cut_attend(const prism_ctx *ctx, const prism_problem *p, prism_arena *a)
{
    const prism_cu_shape shape = prism_cuda_shape(p);
    const int ordinal = prism_cuda_of(ctx)->ordinal, before = prism_cuda_enter(ordinal);
    attend_layout x = {.parts_bytes = prism_attend_scratch_bytes(&shape, p->block_size)};
    prism_cuda_leave(before, ordinal);
    x.parts = prism_arena_take(a, x.parts_bytes, 1);
    if (p->precision == PRISM_PRECISION_FP8)
        x.image = prism_arena_take(a, prism_fp8_image_bytes(&shape), 1);
    return x;
}

size_t prism_cuda_attend_bytes(const prism_ctx *ctx, const prism_problem *p)
{
    prism_arena a = {0};
    cut_attend(ctx, p, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

prism_cu_attend prism_cuda_attention(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan,
                                     void *scratch)
{
    const prism_cuda_plan *d = plan->device;
    const prism_call *c = p->call;
    prism_arena arena = {.base = scratch};
    const attend_layout x = cut_attend(ctx, p, &arena);
    const bool listed = !plan->full || plan->path == PRISM_PATH_DENSE_OVERFLOW;
    return (prism_cu_attend){.shape = prism_cuda_shape(p),
                             .q = prism_cuda_queries(p, &c->q),
                             .k = prism_cuda_keys(p, &c->k),
                             .v = prism_cuda_keys(p, &c->v),
                             .o = prism_cuda_queries(p, &c->o),
                             .lse = c->lse.data,
                             .lse_stride_seq = c->lse.stride_seq,
                             .lse_stride_token = c->lse.stride_token,
                             .lse_stride_head = c->lse.stride_head,
                             .lse_row_start = c->lse.row_start,
                             .row_ptr = listed ? d->row_ptr : NULL,
                             .index = listed ? d->index : NULL,
                             .work = listed && d->has_work ? d->work : NULL,
                             .ticket = d->ticket,
                             .scale = p->scale,
                             .block_size = p->block_size,
                             .full = listed ? d->full : NULL,
                             .scratch = x.parts,
                             .scratch_bytes = x.parts_bytes,
                             .image = x.image};
}

static void attend(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, void *scratch)
{
    prism_cuda_device *device = prism_cuda_of(ctx);
    const prism_cu_attend a = prism_cuda_attention(ctx, p, plan, scratch);
    const int before = prism_cuda_enter(device->ordinal);
    prism_cuda_ok(device, prism_attend_cuda(&a, device->stream, &device->attend_kernel), "attention");
    prism_cuda_leave(before, device->ordinal);
}

static const char *attend_name(const prism_ctx *ctx)
{
    static const char *const names[] = {[PRISM_CU_ATTEND_SM90] = "sm90",
                                        [PRISM_CU_ATTEND_SM80] = "sm80",
                                        [PRISM_CU_ATTEND_ANY] = "any",
                                        [PRISM_CU_ATTEND_FP8] = "fp8"};
    const int32_t kernel = prism_cuda_of(ctx)->attend_kernel;
    return kernel < 0 ? "" : names[kernel];
}

/* ----------------------------------------------------------------------------------------------------- table ---- */

static const prism_device_backend device_half = {
    .open = prism_cuda_open,
    .close = prism_cuda_close,
    .set_stream = prism_cuda_use_stream,
    .describe = prism_cuda_look,
    .is_readable = prism_cuda_is_readable,
    .status = prism_cuda_status,
    .attend_name = attend_name,
    .plan_create = prism_cuda_plan_create,
    .plan_destroy = prism_cuda_plan_destroy,
    .plan_begin = prism_cuda_plan_begin,
    .plan_fetch = prism_cuda_plan_fetch,
    .plan_push = prism_cuda_plan_push,
    .plan_view = prism_cuda_plan_look,
    .plan_counts = prism_cuda_plan_count,
};

static const prism_backend cuda_backend = {
    .name = "cuda",
    .device = PRISM_DEVICE_CUDA,
    .min_tokens = 4096,
    .refuses = refuses,
    .means_bytes = means_bytes,
    .pool = pool,
    .bits_bytes = bits_bytes,
    .select_bytes = select_bytes,
    .select = select_blocks,
    .fill = fill,
    .attend_bytes = prism_cuda_attend_bytes,
    .attend = attend,
    .select_moments_bytes = prism_cuda_select_moments_bytes,
    .select_moments = prism_cuda_select_moments,
    .moments_bytes = prism_cuda_moments_bytes,
    .attend_corrected_bytes = prism_cuda_attend_corrected_bytes,
    .attend_corrected = prism_cuda_attend_corrected,
    .mark = prism_cuda_mark,
    .seconds = prism_cuda_seconds,
    .other = &device_half,
};

PRISM_API prism_cuda_plugin_entry prism_cuda_plugin_backend;
const prism_backend *prism_cuda_plugin_backend(uint32_t version)
{
    return version == PRISM_CUDA_PLUGIN_VERSION ? &cuda_backend : NULL;
}
