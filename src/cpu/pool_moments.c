/*
 * pool, for moments (docs/moments.md, "State"):
 *
 *   queries            -> running sums of sampled queries, block after block
 *   K, V, mean query   -> mean and variance of a whole block's keys and mean of its values, with weights
 *                         e^(mean query . key)
 *
 * A block's moments are made once, when its last key comes, from all its tokens. So a prompt that is pooled from its
 * start gives the same bits however it is cut.
 */
#include <string.h>

#include "core/block_moments.h"
#include "cpu/entries.h"

prism_block_moments prism_moments_of_cpu(const prism_problem *p, void *memory, int32_t s)
{
    const prism_call *c = p->call;
    prism_arena a = {.base = memory};
    if (c->pooled)
        return c->pooled[s].moments;
    const prism_block_moments all = prism_block_moments_cut(&a, c->n_seq, p->n_kblk, c->n_kv_head, c->d_head);
    return prism_block_moments_seq(all, s, p->n_kblk, c->n_kv_head, c->d_head);
}

size_t prism_moments_bytes_cpu(const prism_problem *p)
{
    prism_arena a = {0};
    prism_block_moments_cut(&a, p->call->n_seq, p->n_kblk, p->call->n_kv_head, p->call->d_head);
    return a.overflow ? SIZE_MAX : a.used;
}

/* --------------------------------------------------------------------------------------------- mean query ---- */

/* Adds the sampled queries at positions [begin, end), over the query heads of KV head h_kv. */
static void add_queries(const prism_tier *k, const prism_problem *p, int32_t s, int32_t h_kv, int32_t q_start,
                        int32_t begin, int32_t end, float *sum, int32_t *n)
{
    const int32_t d = p->call->d_head;
    float row[PRISM_MAX_D_HEAD];
    for (int32_t t = begin + PRISM_MOMENT_SAMPLE - 1 - begin % PRISM_MOMENT_SAMPLE; t < end; t += PRISM_MOMENT_SAMPLE)
        for (int32_t g = 0; g < p->group; g++) {
            prism_load_token(k, &p->call->q, s, t - q_start, h_kv * p->group + g, d, row);
            bool finite;
            k->scale_max(row, d, 1.0f, &finite);
            if (!finite)
                continue;
            k->add_row[PRISM_F32](sum, row, d);
            ++*n;
        }
}

/* Writes the running sums of blocks [first, last]. Blocks before the first sampled query take the sum of the first
 * block that has one. */
static void sum_queries(const prism_tier *k, const prism_problem *p, int32_t s, int32_t h_kv, int32_t n_done,
                        const prism_block_moments *m)
{
    const prism_seq q = prism_problem_seq(p, s);
    const int32_t d = p->call->d_head, n_kv_head = p->call->n_kv_head, block = p->block_size;
    const int32_t first = n_done / block, last = q.n_kblk - 1, known = p->call->q.data ? q.q_start : q.n_kv;
    int32_t n_none = first;
    for (int32_t b = first; b <= last; b++) {
        const int64_t at = (int64_t)b * n_kv_head + h_kv, before = at - n_kv_head;
        const int32_t lo = b * block, from = n_done > known ? n_done : known;
        if (lo >= n_done) { /* else an earlier call began the block */
            if (b > 0)
                memcpy(m->query_sum + at * d, m->query_sum + before * d, (size_t)d * sizeof(float));
            else
                memset(m->query_sum + at * d, 0, (size_t)d * sizeof(float));
            m->n_query[at] = b > 0 ? m->n_query[before] : 0;
        }
        add_queries(k, p, s, h_kv, q.q_start, from > lo ? from : lo, q.n_kv < lo + block ? q.n_kv : lo + block,
                    m->query_sum + at * d, &m->n_query[at]);
        n_none += m->n_query[at] == 0 && n_none == b;
    }
    for (int32_t b = first; b < n_none && n_none <= last; b++) {
        const int64_t to = (int64_t)b * n_kv_head + h_kv, from = (int64_t)n_none * n_kv_head + h_kv;
        memcpy(m->query_sum + to * d, m->query_sum + from * d, (size_t)d * sizeof(float));
        m->n_query[to] = m->n_query[from];
    }
}

/* ------------------------------------------------------------------------------------------------- blocks ---- */

/* Computes the weights of a block's tokens: e^(*factor * scale * mean query . key), divided by their sum. Returns the
 * logarithm of the number of keys that the tilted moments stand for. */
static float weigh(const prism_tier *k, const prism_problem *p, const prism_block_keys *x, const float *query,
                   float *weight, float *factor)
{
    const int32_t d = p->call->d_head;
    float row[PRISM_MAX_D_HEAD], mean = 0, square = 0, sum = 0, tilt = 0, max = -INFINITY;
    for (int32_t i = 0; i < x->n; i++) {
        prism_load_token(k, &p->call->k, x->s, x->first + x->token[i], x->h_kv, d, row);
        k->dot_rows(&weight[i], row, d, query, 1, d);
        weight[i] *= p->scale;
        mean += weight[i];
    }
    mean /= (float)x->n;
    for (int32_t i = 0; i < x->n; i++) {
        weight[i] -= mean;
        square += weight[i] * weight[i];
    }
    const float deviation = sqrtf(square / (float)x->n);
    *factor = deviation > PRISM_MOMENT_TILT ? PRISM_MOMENT_TILT / deviation : 1.0f;
    for (int32_t i = 0; i < x->n; i++) {
        weight[i] *= *factor;
        max = fmaxf(max, weight[i]);
    }
    for (int32_t i = 0; i < x->n; i++) {
        const float t = weight[i];
        weight[i] = expf(t - max);
        sum += weight[i];
        tilt += weight[i] * t;
    }
    for (int32_t i = 0; i < x->n; i++)
        weight[i] /= sum;
    return logf(sum) + max - tilt / sum;
}

/* Computes mean = sum of weight[i] * token i. */
static void weighted_mean(const prism_tier *k, const prism_tensor *x, const prism_block_keys *of, int32_t d,
                          const float *weight, float *mean)
{
    float row[PRISM_MAX_D_HEAD];
    memset(mean, 0, (size_t)d * sizeof *mean);
    for (int32_t i = 0; i < of->n; i++) {
        prism_load_token(k, x, of->s, of->first + of->token[i], of->h_kv, d, row);
        k->sum_rows(mean, 1.0f, &weight[i], row, d, 1, d);
    }
}

static void weighted_variance(const prism_tier *k, const prism_tensor *x, const prism_block_keys *of, int32_t d,
                              const float *weight, const float *mean, float *variance)
{
    float row[PRISM_MAX_D_HEAD], sum[PRISM_MAX_D_HEAD] = {0};
    for (int32_t i = 0; i < of->n; i++) {
        prism_load_token(k, x, of->s, of->first + of->token[i], of->h_kv, d, row);
        for (int32_t j = 0; j < d; j++)
            row[j] = (row[j] - mean[j]) * (row[j] - mean[j]);
        k->sum_rows(sum, 1.0f, &weight[i], row, d, 1, d);
    }
    prism_moment_group_means(sum, d, variance);
}

static void mean_query(const prism_tier *k, const prism_block_moments *m, int64_t at, int32_t d, float *query)
{
    k->store_row[PRISM_F32](query, m->query_sum + at * d, d, m->n_query[at] ? 1.0f / (float)m->n_query[at] : 0.0f);
}

static void make_moments(const prism_tier *k, const prism_pool_job *job, int32_t s, int32_t h_kv, int32_t b,
                         const prism_block_moments *m)
{
    const prism_problem *p = job->problem;
    const prism_call *c = p->call;
    const int32_t d = c->d_head;
    const int64_t at = (int64_t)b * c->n_kv_head + h_kv;
    float query[PRISM_MAX_D_HEAD], weight[PRISM_MAX_BLOCK], factor;
    const prism_block_keys x = prism_block_keys_of(k, p, s, h_kv, b);
    mean_query(k, m, at, d, query);
    m->log_count[at] = weigh(k, p, &x, query, weight, &factor);
    weighted_mean(k, &c->k, &x, d, weight, m->key + at * d);
    weighted_variance(k, &c->k, &x, d, weight, m->key + at * d, m->variance + at * prism_moment_groups(d));
    if (job->reads_values)
        weighted_mean(k, &c->v, &x, d, weight, m->value + at * d);
}

/* -------------------------------------------------------------------------------------------- covariances ---- */

/* Adds sum of weight * (value - mean value) (key - mean key) over the tokens of a block to sum [value][key]. */
static void add_covariance(const prism_tier *k, const prism_call *c, const prism_block_keys *x, const float *weight,
                           const float *mean_key, const float *mean_value, float *sum)
{
    enum { strip = 16 };
    const int32_t d = c->d_head;
    float key[strip * PRISM_MAX_D_HEAD], value[PRISM_MAX_D_HEAD], weighted[PRISM_MAX_D_HEAD][strip];
    for (int32_t first = 0; first < x->n; first += strip) {
        const int32_t n = x->n - first < strip ? x->n - first : strip;
        for (int32_t i = 0; i < n; i++) {
            const int32_t t = x->first + x->token[first + i];
            prism_load_token(k, &c->k, x->s, t, x->h_kv, d, key + i * d);
            prism_load_token(k, &c->v, x->s, t, x->h_kv, d, value);
            for (int32_t l = 0; l < d; l++) {
                key[i * d + l] -= mean_key[l];
                weighted[l][i] = weight[first + i] * (value[l] - mean_value[l]);
            }
        }
        for (int32_t e = 0; e < d; e++)
            k->sum_rows(sum + (int64_t)e * d, 1.0f, weighted[e], key, d, n, d);
    }
}

/* Whether a block's moments are finite. Then its tokens are. */
static bool is_finite_block(const prism_tier *k, const prism_block_moments *m, int64_t at, int32_t d)
{
    float row[PRISM_MAX_D_HEAD];
    bool key, value;
    memcpy(row, m->key + at * d, (size_t)d * sizeof *row);
    k->scale_max(row, d, 1.0f, &key);
    memcpy(row, m->value + at * d, (size_t)d * sizeof *row);
    k->scale_max(row, d, 1.0f, &value);
    return key && value;
}

/* Sums the covariances and mean queries of a slot's blocks. */
static void make_slot(const prism_tier *k, const prism_problem *p, int32_t s, int32_t h_kv, int32_t slot,
                      const prism_block_moments *m)
{
    const prism_call *c = p->call;
    const int32_t d = c->d_head;
    float *sum = m->covariance + ((int64_t)slot * c->n_kv_head + h_kv) * prism_moment_slot_floats(d);
    memset(sum, 0, (size_t)prism_moment_slot_floats(d) * sizeof *sum);
    for (int32_t b = prism_moment_slot_begin(slot); b < prism_moment_slot_end(slot); b++) {
        const int64_t at = (int64_t)b * c->n_kv_head + h_kv;
        float query[PRISM_MAX_D_HEAD], weight[PRISM_MAX_BLOCK], factor;
        if (!is_finite_block(k, m, at, d))
            continue;
        const prism_block_keys x = prism_block_keys_of(k, p, s, h_kv, b);
        mean_query(k, m, at, d, query);
        weigh(k, p, &x, query, weight, &factor);
        add_covariance(k, c, &x, weight, m->key + at * d, m->value + at * d, sum);
        k->sum_rows(sum + (int64_t)d * d, 1.0f, &factor, query, d, 1, d);
    }
}

void prism_pool_moments_cpu(const prism_ctx *ctx, const prism_pool_job *job, int32_t s, int32_t n_done)
{
    const prism_problem *p = job->problem;
    const prism_block_moments m = prism_moments_of_cpu(p, job->moments, s);
    const int32_t whole = prism_problem_seq(p, s).n_kv / p->block_size;
#pragma omp parallel for num_threads(ctx->n_thread) schedule(static)
    for (int32_t h = 0; h < p->call->n_kv_head; h++)
        sum_queries(ctx->cpu, p, s, h, n_done, &m);
#pragma omp parallel for collapse(2) num_threads(ctx->n_thread) schedule(static)
    for (int32_t b = n_done / p->block_size; b < whole; b++)
        for (int32_t h = 0; h < p->call->n_kv_head; h++)
            make_moments(ctx->cpu, job, s, h, b, &m);
    if (!job->reads_values)
        return;
    const int32_t first = prism_moment_slot(n_done / p->block_size), end = prism_moment_slot(whole);
#pragma omp parallel for collapse(2) num_threads(ctx->n_thread) schedule(dynamic, 1)
    for (int32_t slot = end - 1; slot >= first; slot--)
        for (int32_t h = 0; h < p->call->n_kv_head; h++)
            make_slot(ctx->cpu, p, s, h, slot, &m);
}
