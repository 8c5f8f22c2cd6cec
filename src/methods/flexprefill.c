/* FlexPrefill (arXiv 2502.20766): the attention of the last queries gives every head a budget of columns and diagonals
 * of blocks. Heads whose pooled scores agree with this attention add the best pooled block pairs. */
#include "core/arena.h"
#include "core/work.h"
#include "methods/method.h"

static const prism_option_row mass = {
    PRISM_ROW(flex_gamma, 0.9, 0, 1, "mass that columns, diagonals or pooled scores must hold")};
static const prism_option_row tau = {
    PRISM_ROW(flex_tau, 0.1, 0, 1, "a head whose Jensen-Shannon distance is below this is block-sparse")};
static const prism_option_row min_budget = {
    PRISM_ROW(flex_min_budget, 512, 0, INT32_MAX, "least keys that a row keeps, rounded up to blocks")};
static const prism_option_row max_budget = {
    PRISM_ROW(flex_max_budget, 0, 0, INT32_MAX, "most keys that a row keeps; 0: no limit")};
static const prism_option_row *const options[] = {
    &mass, &tau, &min_budget, &max_budget, &prism_option_keep_sink, &prism_option_keep_own, NULL};

typedef struct buffers {
    float *column, *slash, *q_last;
    void *stage; /* probe's scratch, then select_lines' */
} buffers;

static buffers layout(const prism_plan_job *job, prism_arena *a)
{
    const prism_problem *p = job->problem;
    const prism_backend *k = job->ctx->backend;
    const int64_t n_head = (int64_t)p->call->n_seq * p->call->n_head;
    const size_t n = prism_arena_count(a, n_head, prism_key_stride(p), 1, 1);
    const prism_probe_job probe = {.problem = p, .n_query = p->block_size};
    buffers b;
    b.column = prism_arena_take(a, n, sizeof(float));
    b.slash = prism_arena_take(a, n, sizeof(float));
    b.q_last = prism_arena_take(a, prism_arena_count(a, n_head, p->call->d_head, 1, 1), sizeof(float));
    b.stage = prism_arena_take(a,
                               prism_max_bytes(k->probe.bytes(job->ctx, &probe),
                                               k->select_lines.bytes(job->ctx, &(prism_flex_job){.problem = p})),
                               1);
    return b;
}

static size_t scratch_bytes(const prism_plan_job *job)
{
    prism_arena a = {0};
    layout(job, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

/* Upstream's rule for short prompts: up to two blocks, or up to the least budget in whole blocks, is dense. */
static int32_t least_tokens(const prism_plan_job *job)
{
    const int64_t block = job->problem->block_size, least = job->options->flex_min_budget;
    const int64_t budget = (least + block - 1) / block * block, n = (budget > 2 * block ? budget : 2 * block) + 1;
    return n > INT32_MAX ? INT32_MAX : n > job->min_tokens ? (int32_t)n : job->min_tokens;
}

static void select_flexprefill(const prism_plan_job *job)
{
    const prism_backend *k = job->ctx->backend;
    const prism_options *opt = job->options;
    const prism_problem *p = job->problem;
    prism_arena a = {.base = job->scratch};
    const buffers b = layout(job, &a);
    const int32_t min_tokens = least_tokens(job);

    prism_pool(job, true, NULL);
    k->probe.run(job->ctx, &(prism_probe_job){
                           .problem = p,
                           .n_query = p->block_size,
                           .min_tokens = min_tokens,
                           .stride = prism_key_stride(p),
                           .column = b.column,
                           .slash = b.slash,
                           .q_mean = b.q_last,
                           .scratch = b.stage,
                       });
    k->select_lines.run(job->ctx, &(prism_flex_job){
                                  .problem = p,
                                  .min_tokens = min_tokens,
                                  .stride = prism_key_stride(p),
                                  .column = b.column,
                                  .slash = b.slash,
                                  .q_last = b.q_last,
                                  .q_mean = job->q_mean,
                                  .k_mean = job->k_mean,
                                  .gamma = opt->flex_gamma,
                                  .tau = opt->flex_tau,
                                  .min_budget = opt->flex_min_budget,
                                  .max_budget = opt->flex_max_budget,
                                  .keep_sink = opt->keep_sink,
                                  .keep_own = opt->keep_own,
                                  .bits = job->bits,
                                  .scratch = b.stage,
                              });
}

/* An upper bound: counts pooled scores for every head, although only block-sparse heads compute them. */
static double flop_flexprefill(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    (void)o;
    return prism_work_probe(p, q, p->block_size) + prism_work_pool_queries(p, q) +
           prism_work_pool_keys(p, q, n_pooled) + prism_work_blocks(p, q, p->call->d_head);
}

const prism_method_impl prism_method_flexprefill = {
    .name = "flexprefill",
    .text = "columns and diagonals of blocks, or pooled scores, with a budget for each head",
    .flop_text = "2BndH + pooling + at most (n/B)²dH",
    .workspace_text = "4Bn + 8n per head + 12 max(n, (n/B)²) per thread",
    .options = options,
    .needs_means = true,
    .stage = PRISM_STAGE_SELECT_LINES,
    .scratch_bytes = scratch_bytes,
    .select = select_flexprefill,
    .flop = flop_flexprefill,
};
