#include "cuda/takes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "stages.h"

enum { F32 = 1 << PRISM_CU_F32, F16 = 1 << PRISM_CU_F16, BF16 = 1 << PRISM_CU_BF16 };
enum { LATEST = 1 << 20 };

typedef struct row {
    const char *name, *file;
    uint32_t stages;  /* bit PRISM_STAGE_*: stages that launch this kernel */
    bool spare;       /* another row takes what this one does not */
    int precision;    /* bits of attention's products; 0: this kernel is for any */
    const char *what; /* begins a refusal: "<what> needs ..." */
    int32_t capability[2];
    uint32_t dtypes;
    int32_t d_head[6]; /* ends at 0; {-n}: 1 to n */
    int32_t block[2];
    int32_t max_blocks; /* 0: no limit */
    bool positive_scale, pieces, plain_queries, whole_blocks, extents, tiled_pages;
} row;

#define ATTEND (1u << PRISM_STAGE_ATTEND)
#define SELECT (1u << PRISM_STAGE_SELECT)
#define MOMENTS (1u << PRISM_STAGE_SELECT_MOMENTS)
#define CORRECT (1u << PRISM_STAGE_CORRECT)
/* What the kernels of attention with tensor cores have in common. */
#define TENSOR_CORES                                                                                                   \
    .dtypes = F16 | BF16, .positive_scale = true, .pieces = true, .plain_queries = true, .whole_blocks = true
/* What the kernels of moments have in common. */
#define BLOCKS_OF_128 .dtypes = F16 | BF16, .d_head = {64, 128}, .block = {128}, .pieces = true

static const row rows[PRISM_N_CU_KERNEL] = {
    [PRISM_CU_ATTEND_SM90] = {"sm90", "attend/attend_sm90.cu", ATTEND, true, 16, "attention", {90, 90}, TENSOR_CORES,
                              .d_head = {64, 128, 256}, .block = {64, 128}, .extents = true, .tiled_pages = true},
    [PRISM_CU_ATTEND_SM80] = {"sm80", "attend/attend_sm80.cu", ATTEND, true, 16, "attention", {80, LATEST},
                              TENSOR_CORES, .d_head = {64, 128}, .block = {64, 128}},
    [PRISM_CU_ATTEND_ANY] = {"any", "attend/attend_any.cu", ATTEND, false, 16, "attention", {80, LATEST},
                             F32 | F16 | BF16, .d_head = {-256}, .block = {64, 128}},
    [PRISM_CU_ATTEND_FP8] = {"fp8", "attend/attend_fp8.cu", ATTEND, false, 8, "precision fp8", {90, 90}, TENSOR_CORES,
                             .d_head = {64, 128}, .block = {128}},
    [PRISM_CU_SELECT] = {"pool, select", "pool.cu`, `select/select.cu", SELECT, false, 0, "selection", {80, LATEST},
                         F32 | F16 | BF16, .d_head = {64, 96, 128, 192, 256}, .block = {64, 128}},
    [PRISM_CU_FILL] = {"fill", "fill.cu", SELECT | MOMENTS, false, 0, "a list of blocks", {80, LATEST},
                       F32 | F16 | BF16, .d_head = {-256}, .block = {64, 128}, .max_blocks = PRISM_CU_FILL_MAX_BLOCKS},
    [PRISM_CU_POOL_MOMENTS] = {"pool_moments", "moments/pool_moments.cu", MOMENTS | CORRECT, false, 0,
                               "pooling of moments", {80, LATEST}, BLOCKS_OF_128},
    [PRISM_CU_SELECT_MOMENTS] = {"select_moments", "moments/select_moments.cu", MOMENTS, false, 0,
                                 "selection by moments", {90, 90}, BLOCKS_OF_128, .positive_scale = true,
                                 .max_blocks = PRISM_CU_MOMENTS_MAX_BLOCKS},
    [PRISM_CU_CORRECT] = {"correct", "moments/correct_moments.cu", CORRECT, false, 0, "correction by moments",
                          {90, 90}, BLOCKS_OF_128, .positive_scale = true,
                          .max_blocks = PRISM_CU_MOMENTS_MAX_BLOCKS},
};

static const char *const stage_name[PRISM_N_STAGE] = {[PRISM_STAGE_ATTEND] = "attend",
                                                      [PRISM_STAGE_CORRECT] = "correct",
                                                      [PRISM_STAGE_SELECT] = "select",
                                                      [PRISM_STAGE_SELECT_MOMENTS] = "select_moments"};

/* ----------------------------------------------------------------------------------------------------- text ---- */

typedef struct text {
    char *at;
    size_t left;
} text;

__attribute__((format(printf, 2, 3))) static void put(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(t->at, t->left, format, args);
    va_end(args);
    const size_t used = n < 0 ? 0 : (size_t)n < t->left ? (size_t)n : t->left - 1;
    t->at += used, t->left -= used;
}

/* "64, 96 or 128"; the list ends at 0. */
static void put_numbers(text *t, const int32_t *number, int most)
{
    for (int i = 0; i < most && number[i]; i++)
        put(t, "%s%d", i == 0 ? "" : i + 1 < most && number[i + 1] ? ", " : " or ", abs(number[i]));
}

static void put_stages(text *t, uint32_t stages)
{
    for (int i = 0, n = 0; i < PRISM_N_STAGE; i++)
        if (stages >> i & 1)
            put(t, "%s%s", n++ ? ", " : "", stage_name[i]);
}

/* ---------------------------------------------------------------------------------------------------- needs ---- */

/* What a row may need of a call. The needs before NEED_GPU are the same in all rows. A refusal names the first need
 * that the call does not fit. */
typedef enum need {
    NEED_ONE_TYPE,
    NEED_STRIDE_DIM,
    NEED_PLAIN_LSE,
    NEED_GPU,
    NEED_DTYPE,
    NEED_D_HEAD,
    NEED_BLOCK,
    NEED_N_BLOCK,
    NEED_SCALE,
    NEED_PIECES,
    NEED_PLAIN_QUERIES,
    NEED_WHOLE_BLOCKS,
    NEED_EXTENTS,
    NEED_PAGES,
    N_NEED
} need;

static bool has(const int32_t *number, int most, int32_t x)
{
    for (int i = 0; i < most; i++)
        if (number[i] == x)
            return true;
    return false;
}

static bool fits_pages(const prism_cu_ask *a)
{
    const int tile = prism_cu_sm90_tile(a->d_head, a->block_size), page = a->k_page;
    return page == a->v_page &&
           (page == 0 || (page >= 8 && page < tile && tile % page == 0) || (page >= tile && page % tile == 0));
}

static bool fits(const row *r, need n, const prism_cu_ask *a)
{
    switch (n) {
    case NEED_ONE_TYPE: return !(a->dtypes & (a->dtypes - 1));
    case NEED_STRIDE_DIM: return !a->stride_dim;
    case NEED_PLAIN_LSE: return !a->paged_lse;
    case NEED_GPU: return a->capability >= r->capability[0] && a->capability <= r->capability[1];
    case NEED_DTYPE: return !(a->dtypes & ~r->dtypes);
    case NEED_D_HEAD: return r->d_head[0] < 0 ? a->d_head <= -r->d_head[0] : has(r->d_head, 6, a->d_head);
    case NEED_BLOCK: return has(r->block, 2, a->block_size);
    case NEED_N_BLOCK: return !r->max_blocks || a->n_kblk <= r->max_blocks;
    case NEED_SCALE: return !r->positive_scale || a->scale > 0;
    case NEED_PIECES: return !r->pieces || !a->odd;
    case NEED_PLAIN_QUERIES: return !r->plain_queries || !a->paged_queries;
    case NEED_WHOLE_BLOCKS: return !r->whole_blocks || !a->single_keys;
    case NEED_EXTENTS: return !r->extents || !a->endless;
    default: return !r->tiled_pages || fits_pages(a);
    }
}

/* Writes what fits; nothing where everything does. */
static void say(const row *r, need n, text *t)
{
    switch (n) {
    case NEED_ONE_TYPE: put(t, "q, k, v and o of one type"); break;
    case NEED_STRIDE_DIM: put(t, "stride_dim 1"); break;
    case NEED_PLAIN_LSE: put(t, "lse that is not paged"); break;
    case NEED_GPU:
        put(t, "compute capability %d.%d%s", r->capability[0] / 10, r->capability[0] % 10,
            r->capability[1] == LATEST ? " or later" : " (H100, H200)");
        break;
    case NEED_DTYPE: put(t, "%s or bfloat16", r->dtypes & F32 ? "float32, float16" : "float16"); break;
    case NEED_D_HEAD:
        put(t, "d_head %s", r->d_head[0] < 0 ? "up to " : "");
        put_numbers(t, r->d_head, 6);
        break;
    case NEED_BLOCK:
        put(t, "blocks of ");
        put_numbers(t, r->block, 2);
        break;
    case NEED_N_BLOCK: put(t, r->max_blocks ? "at most %d key blocks" : "", r->max_blocks); break;
    case NEED_SCALE: put(t, "%s", r->positive_scale ? "a softmax scale above 0" : ""); break;
    case NEED_PIECES: put(t, "%s", r->pieces ? "strides of a multiple of 8 and data aligned to 16 bytes" : ""); break;
    case NEED_PLAIN_QUERIES: put(t, "%s", r->plain_queries ? "q and o that are not paged" : ""); break;
    case NEED_WHOLE_BLOCKS: put(t, "%s", r->whole_blocks ? "a plan without single keys" : ""); break;
    case NEED_EXTENTS: put(t, "%s", r->extents ? "n_element of ragged tensors" : ""); break;
    default:
        put(t, "%s", r->tiled_pages ? "k and v with pages of one size, 8, 16, 32, 64 or a multiple of 128 tokens (with "
                                      "blocks of 64 or d_head 256: 8, 16, 32 or a multiple of 64), or without pages"
                                    : "");
    }
}

/* The first need of a row that the call does not fit; N_NEED: the row takes the call. */
static need misfit(const row *r, const prism_cu_ask *ask)
{
    for (int n = 0; n < N_NEED; n++)
        if (!fits(r, n, ask))
            return n;
    return N_NEED;
}

/* The row computes products of the bits that the call wants. */
static bool is_asked(const row *r, const prism_cu_ask *ask)
{
    return !r->precision || r->precision == (ask->fp8 ? 8 : 16);
}

/* ------------------------------------------------------------------------------------------------- questions ---- */

static void ask_tensor(prism_cu_ask *ask, const prism_cu_view *x)
{
    if (!x->data)
        return;
    const int64_t strides = x->stride_seq | x->stride_token | x->stride_head | (x->page_table ? x->stride_page : 0);
    ask->odd |= (uintptr_t)x->data % 16 != 0 || strides % 8 != 0;
    ask->endless |= x->row_start && x->n_token <= 0;
}

void prism_cu_ask_tensors(prism_cu_ask *ask, const prism_cu_shape *shape, const prism_cu_view *q,
                          const prism_cu_view *k, const prism_cu_view *v, const prism_cu_view *o)
{
    ask->d_head = shape->d_head, ask->n_kblk = shape->n_kblk;
    ask->k_page = k->page_table ? k->page_size : 0, ask->v_page = v->page_table ? v->page_size : 0;
    ask->paged_queries = q->page_table || o->page_table;
    ask_tensor(ask, q), ask_tensor(ask, k), ask_tensor(ask, v), ask_tensor(ask, o);
}

bool prism_cu_takes(prism_cu_kernel kernel, const prism_cu_ask *ask)
{
    return is_asked(&rows[kernel], ask) && misfit(&rows[kernel], ask) == N_NEED;
}

prism_cu_kernel prism_cu_attend_kernel(const prism_cu_ask *ask, int from)
{
    for (int i = from; i < PRISM_N_CU_KERNEL; i++)
        if (rows[i].stages & ATTEND && prism_cu_takes(i, ask))
            return i;
    return PRISM_N_CU_KERNEL;
}

const char *prism_cu_kernel_name(prism_cu_kernel kernel)
{
    return rows[kernel].name;
}

const char *prism_cu_refuses(int stage, const prism_cu_ask *ask, char *out, size_t size)
{
    text t = {out, size};
    uint32_t stages = 0;
    for (int i = 0; i < PRISM_N_CU_KERNEL; i++) {
        const row *r = &rows[i];
        stages |= r->stages;
        const need n = r->stages >> stage & 1 && !r->spare && is_asked(r, ask) ? misfit(r, ask) : N_NEED;
        if (n < N_NEED) {
            put(&t, "%s needs ", r->what);
            say(r, n, &t);
            return out;
        }
    }
    if (stages >> stage & 1)
        return NULL;
    put(&t, "the method needs a stage that is missing there; the stages are ");
    put_stages(&t, stages);
    return out;
}

/* ----------------------------------------------------------------------------------------------------- table ---- */

static void put_needs(text *t, const row *r, int from, int to)
{
    for (int n = from; n < to; n++) {
        const text before = *t;
        put(t, "%s", n > from ? "; " : "");
        const size_t empty = t->left;
        say(r, n, t);
        if (t->left == empty)
            *before.at = 0, *t = before;
    }
}

void prism_cu_takes_markdown(int kernel, char *out, size_t size)
{
    text t = {out, size};
    if (kernel < 0) {
        put(&t, "Every kernel needs ");
        put_needs(&t, rows, 0, NEED_GPU);
        put(&t, ".\n\n| stage | kernel | file in src/cuda | what it needs |\n|---|---|---|---|\n");
        return;
    }
    const row *r = &rows[kernel];
    put(&t, "| ");
    put_stages(&t, r->stages);
    put(&t, " | %s | `%s` | ", r->name, r->file);
    put_needs(&t, r, NEED_GPU, N_NEED);
    put(&t, " |\n");
}
