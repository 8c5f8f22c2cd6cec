/* pick_lines, list_lines: MInference's columns and diagonals, and the rows of a plan that they cover. */
#include <math.h>
#include <string.h>

#include "core/lines.h"
#include "cpu/cpu.h"

/* Chooses the k best of x[0 .. n - 1]; the first n_forced are forced. Keys that probe flagged with +inf are forced too,
 * so that none is lost. */
static int32_t pick(float *x, int32_t n, int32_t k, int32_t least, int32_t n_forced, int32_t *index)
{
    int32_t n_inf = 0;
    for (int32_t i = 0; i < n; i++)
        n_inf += x[i] == INFINITY;
    for (int32_t i = 0; i < n && i < n_forced; i++)
        x[i] = INFINITY;
    k = k > least ? k : least;
    return prism_top_k(x, n, k > n_inf ? k : n_inf, index);
}

void prism_pick_lines_cpu(const prism_ctx *ctx, const prism_pick_job *job)
{
    const prism_problem *p = job->problem;
    const prism_lines *out = job->lines;
#pragma omp parallel for num_threads(ctx->n_thread) schedule(dynamic, 1)
    for (int64_t head = 0; head < (int64_t)p->call->n_seq * p->call->n_head; head++) {
        const prism_seq q = prism_problem_seq(p, (int32_t)(head / p->call->n_head));
        if (q.n_q == 0 || q.n_kv < job->min_tokens)
            continue;
        const int64_t at = head * out->stride;
        int32_t n_column = job->n_column, n_slash = job->n_slash;
        if (job->budget > 0) {
            const double all = floor((double)q.n_kv * (double)job->budget);
            n_column = (int32_t)(0.2 * all);
            n_slash = (int32_t)(0.8 * all);
        }
        out->n_column[head] = pick(job->column + at, q.n_kv, n_column, job->min_column, job->n_first, out->column + at);
        out->n_slash[head] = pick(job->slash + at, q.n_kv, n_slash, job->min_slash, job->n_near, out->slash + at);
    }
}

/* ------------------------------------------------------------------------------------------------- list ---- */

static size_t key_words(const prism_problem *p)
{
    return (size_t)p->n_kblk * (size_t)p->block_size / 64;
}

size_t prism_list_lines_bytes_cpu(const prism_ctx *ctx, const prism_list_job *job)
{
    prism_arena a = {0};
    prism_arena_take(&a, (size_t)ctx->n_thread * key_words(job->problem), sizeof(uint64_t));
    return a.overflow ? SIZE_MAX : a.used;
}

/* Marks the keys that query block i of a head reads: the union over its groups of 64 queries. */
static void mark_row(const prism_list_job *job, const prism_seq *q, int64_t head, int32_t i, uint64_t *keys)
{
    const prism_lines *lines = job->lines;
    const int32_t block = job->problem->block_size, begin = (q->first_qblk + i) * block;
    const int64_t at = head * lines->stride;
    for (int32_t end = begin + 64; end <= begin + block; end += 64)
        if (end > q->q_start && end - 64 < q->n_kv)
            prism_lines_mark(lines->column + at, lines->n_column[head], lines->slash + at, lines->n_slash[head], end,
                             keys);
}

static void list_row(const prism_list_job *job, int64_t row, uint64_t *keys)
{
    const prism_problem *p = job->problem;
    const int64_t head = row / p->n_qblk;
    const int32_t i = (int32_t)(row % p->n_qblk);
    const prism_seq q = prism_problem_seq(p, (int32_t)(head / p->call->n_head));
    prism_line_count n = {0, 0};
    int32_t *index = job->plan ? job->plan->index + job->plan->row_ptr[row] : NULL;
    if (i < q.n_qblk) {
        const int32_t own_end = (q.first_qblk + i + 1) * p->block_size, n_key = own_end < q.n_kv ? own_end : q.n_kv;
        const bool all = q.n_kv < job->min_tokens;
        memset(keys, all ? 0xff : 0, (size_t)own_end / 8);
        if (!all)
            mark_row(job, &q, head, i, keys);
        n = prism_lines_split(keys, n_key, p->block_size, index,
                              job->plan ? job->plan->key_index + job->plan->key_ptr[row] : NULL);
    }
    if (!job->plan) {
        job->n_block[row] = n.n_block;
        job->n_key[row] = n.n_key;
    }
}

void prism_list_lines_cpu(const prism_ctx *ctx, const prism_list_job *job)
{
    uint64_t *scratch = job->scratch;
#pragma omp parallel for num_threads(ctx->n_thread) schedule(dynamic, 8)
    for (int64_t row = 0; row < job->problem->n_row; row++)
        list_row(job, row, scratch + (size_t)prism_thread_index() * key_words(job->problem));
}
