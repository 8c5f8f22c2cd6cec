/* MInference's vertical-slash pattern (arXiv 2407.02490): the last 64 queries tell which keys and which distances
 * matter. Every row reads these keys and, for each of these distances, the 64 keys at that distance from its 64
 * queries. */
#include "core/arena.h"
#include "core/work.h"
#include "methods/method.h"

static const prism_option_row vertical = {
    PRISM_ROW(minference_vertical, 1000, 0, INT32_MAX, "columns (single keys) kept, at least 30")};
static const prism_option_row slash = {
    PRISM_ROW(minference_slash, 6096, 0, INT32_MAX, "diagonals (distances) kept, at least 50")};
static const prism_option_row budget = {
    PRISM_ROW(minference_budget, 0, 0, 1,
              "above 0: 0.2 and 0.8 of this part of the keys replace minference_vertical and minference_slash")};
static const prism_option_row *const options[] = {&vertical, &slash, &budget, NULL};

/* Upstream's constants: probing queries; forced first keys and shortest distances; least columns and diagonals. */
enum { n_asked = 64, n_first = 30, n_near = 100, min_column = 30, min_slash = 50 };

typedef struct buffers {
    float *column, *slash;
    prism_lines lines;
    void *stage; /* probe's scratch, then list_lines' */
} buffers;

static buffers layout(const prism_plan_job *job, prism_arena *a)
{
    const prism_problem *p = job->problem;
    const prism_backend *k = job->ctx->backend;
    const int64_t n_head = (int64_t)p->call->n_seq * p->call->n_head, stride = prism_key_stride(p);
    const size_t n = prism_arena_count(a, n_head, stride, 1, 1);
    const prism_probe_job probe = {.problem = p, .n_query = n_asked};
    buffers b;
    b.column = prism_arena_take(a, n, sizeof(float));
    b.slash = prism_arena_take(a, n, sizeof(float));
    b.lines.stride = stride;
    b.lines.column = prism_arena_take(a, n, sizeof(int32_t));
    b.lines.slash = prism_arena_take(a, n, sizeof(int32_t));
    b.lines.n_column = prism_arena_take(a, (size_t)n_head, sizeof(int32_t));
    b.lines.n_slash = prism_arena_take(a, (size_t)n_head, sizeof(int32_t));
    b.stage = prism_arena_take(a,
                               prism_max_bytes(k->probe.bytes(job->ctx, &probe),
                                               k->list_lines.bytes(job->ctx, &(prism_list_job){.problem = p})),
                               1);
    return b;
}

static size_t scratch_bytes(const prism_plan_job *job)
{
    prism_arena a = {0};
    layout(job, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

static void list_minference(const prism_plan_job *job, prism_plan *plan)
{
    prism_arena a = {.base = job->scratch};
    const buffers b = layout(job, &a);
    job->ctx->backend->list_lines.run(job->ctx, &(prism_list_job){
                                                .problem = job->problem,
                                                .min_tokens = job->min_tokens,
                                                .lines = &b.lines,
                                                .n_block = job->n_block,
                                                .n_key = job->n_key,
                                                .plan = plan,
                                                .scratch = b.stage,
                                            });
}

static void select_minference(const prism_plan_job *job)
{
    const prism_backend *k = job->ctx->backend;
    prism_arena a = {.base = job->scratch};
    buffers b = layout(job, &a);
    k->probe.run(job->ctx, &(prism_probe_job){
                           .problem = job->problem,
                           .n_query = n_asked,
                           .min_tokens = job->min_tokens,
                           .stride = b.lines.stride,
                           .column = b.column,
                           .slash = b.slash,
                           .scratch = b.stage,
                       });
    k->pick_lines(job->ctx, &(prism_pick_job){
                                .problem = job->problem,
                                .min_tokens = job->min_tokens,
                                .column = b.column,
                                .slash = b.slash,
                                .n_column = job->options->minference_vertical,
                                .n_slash = job->options->minference_slash,
                                .budget = job->options->minference_budget,
                                .n_first = n_first,
                                .n_near = n_near,
                                .min_column = min_column,
                                .min_slash = min_slash,
                                .lines = &b.lines,
                            });
    list_minference(job, NULL);
}

static double flop_minference(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    (void)n_pooled;
    return prism_work_probe(p, q, n_asked);
}

const prism_method_impl prism_method_minference = {
    .name = "minference",
    .text = "vertical and slash lines found by the last queries; lists single keys, too",
    .flop_text = "128 ndH",
    .workspace_text = "256n + 16n per head; a plan lists up to 4 bytes a single key",
    .options = options,
    .stage = PRISM_STAGE_LIST_LINES,
    .scratch_bytes = scratch_bytes,
    .select = select_minference,
    .list = list_minference,
    .flop = flop_minference,
};
