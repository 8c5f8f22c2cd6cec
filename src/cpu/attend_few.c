/*
 * attend for a few queries against many keys (decoding, full plan). Reading K and V dominates, so nothing is packed.
 * The keys of a KV head are cut into parts, which are work items for all threads. Each part leaves a softmax state and
 * an unnormalised output for every query of the group; then the parts are merged. Parts have a fixed size, so that the
 * result does not depend on the number of threads.
 */
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"

enum { few_rows = 16, few_tokens = 64, part_tokens = 2048 };

static const float log2_e = 1.44269504f, ln_2 = 0.69314718f;

bool prism_attend_few_fits(const prism_problem *p, const prism_seq *q, const prism_plan *plan)
{
    return plan->full && q->n_q > 0 && (int64_t)p->group * q->n_q <= few_rows;
}

static int32_t part_count(int32_t n_kv)
{
    return (n_kv - 1) / part_tokens + 1;
}

/* What a part leaves behind. */
typedef struct part {
    prism_softmax *state; /* [few_rows] */
    float *output;        /* [few_rows][d] */
} part;

/* What a thread works with. */
typedef struct few_scratch {
    float *query;  /* [few_rows][d] */
    float *rows;   /* [few_tokens][d] */
    float *weight; /* [few_rows][few_tokens] */
} few_scratch;

static part layout_part(int32_t d, prism_arena *a)
{
    part x;
    x.state = prism_arena_take(a, few_rows, sizeof *x.state);
    x.output = prism_arena_take(a, (size_t)few_rows * (size_t)d, sizeof(float));
    return x;
}

static few_scratch layout_thread(int32_t d, prism_arena *a)
{
    few_scratch t;
    t.query = prism_arena_take(a, (size_t)few_rows * (size_t)d, sizeof(float));
    t.rows = prism_arena_take(a, (size_t)few_tokens * (size_t)d, sizeof(float));
    t.weight = prism_arena_take(a, few_rows * few_tokens, sizeof(float));
    return t;
}

static size_t part_bytes(int32_t d)
{
    prism_arena a = {0};
    layout_part(d, &a);
    return a.used;
}

static size_t thread_bytes(int32_t d)
{
    prism_arena a = {0};
    layout_thread(d, &a);
    return a.used;
}

static part get_part(void *scratch, int32_t d, int32_t item)
{
    prism_arena a = {.base = (char *)scratch + (size_t)item * part_bytes(d)};
    return layout_part(d, &a);
}

size_t prism_attend_few_bytes(const prism_ctx *ctx, const prism_problem *p)
{
    const int32_t d = p->call->d_head;
    const size_t n_part = (size_t)p->n_kblk * (size_t)p->block_size / part_tokens + 1;
    return part_bytes(d) * n_part * (size_t)p->call->n_kv_head + thread_bytes(d) * (size_t)ctx->n_thread;
}

static void load_group(const prism_tier *k, const prism_problem *p, const prism_seq *q, int32_t s, int32_t h_kv,
                       float *query)
{
    const prism_call *c = p->call;
    for (int32_t g = 0; g < p->group; g++)
        for (int32_t t = 0; t < q->n_q; t++, query += c->d_head) {
            prism_load_token(k, &c->q, s, t, h_kv * p->group + g, c->d_head, query);
            k->store_row[PRISM_F32](query, query, c->d_head, p->scale * log2_e);
        }
}

/* Attends to keys [begin, begin + n) for every query of the group. */
static void attend_keys(const prism_tier *k, const prism_problem *p, const prism_seq *q, int32_t s, int32_t h_kv,
                        int32_t begin, int32_t n, const few_scratch *t, const part *x)
{
    const prism_call *c = p->call;
    const int32_t d = c->d_head, m = p->group * q->n_q;
    int32_t n_valid[few_rows];
    float alpha[few_rows];
    for (int32_t j = 0; j < n; j++)
        prism_load_token(k, &c->k, s, begin + j, h_kv, d, t->rows + (int64_t)j * d);
    for (int32_t r = 0; r < m; r++) {
        const int32_t seen = q->q_start + r % q->n_q + 1 - begin;
        n_valid[r] = seen < 0 ? 0 : seen < n ? seen : n;
        k->dot_rows(t->weight + r * few_tokens, t->rows, d, t->query + r * d, n_valid[r], d);
    }
    k->softmax(t->weight, few_tokens, m, few_tokens, n_valid, x->state, alpha);
    for (int32_t j = 0; j < n; j++)
        prism_load_token(k, &c->v, s, begin + j, h_kv, d, t->rows + (int64_t)j * d);
    for (int32_t r = 0; r < m; r++)
        k->sum_rows(x->output + r * d, alpha[r], t->weight + r * few_tokens, t->rows, d, n_valid[r], d);
}

/* Folds part b into part a. */
static void merge(const part *a, const part *b, int32_t m, int32_t d)
{
    for (int32_t r = 0; r < m; r++) {
        const float max = fmaxf(a->state[r].max, b->state[r].max), base = max == -INFINITY ? 0.0f : max;
        const float wa = exp2f(a->state[r].max - base), wb = exp2f(b->state[r].max - base);
        a->state[r] = (prism_softmax){max, wa * a->state[r].sum + wb * b->state[r].sum};
        for (int32_t j = 0; j < d; j++)
            a->output[r * d + j] = wa * a->output[r * d + j] + wb * b->output[r * d + j];
    }
}

static void store_group(const prism_tier *k, const prism_problem *p, const prism_seq *q, int32_t s, int32_t h_kv,
                        const part *x)
{
    const prism_call *c = p->call;
    for (int32_t r = 0; r < p->group * q->n_q; r++) {
        const int32_t h = h_kv * p->group + r / q->n_q, t = r % q->n_q;
        prism_store_token(k, &c->o, s, t, h, c->d_head, x->output + r * c->d_head, 1.0f / x->state[r].sum);
        if (c->lse.data)
            *(float *)prism_tensor_at(&c->lse, s, t, h) = (x->state[r].max + log2f(x->state[r].sum)) * ln_2;
    }
}

static void attend_part(const prism_ctx *ctx, const prism_problem *p, const prism_seq *q, int32_t s, int32_t h_kv,
                        int32_t begin, const few_scratch *t, const part *x)
{
    const int32_t d = p->call->d_head, m = p->group * q->n_q;
    const int32_t end = q->n_kv - begin < part_tokens ? q->n_kv : begin + part_tokens;
    load_group(ctx->cpu, p, q, s, h_kv, t->query);
    memset(x->output, 0, (size_t)m * (size_t)d * sizeof(float));
    for (int32_t r = 0; r < m; r++)
        x->state[r] = (prism_softmax){-INFINITY, 0};
    for (int32_t at = begin; at < end; at += few_tokens)
        attend_keys(ctx->cpu, p, q, s, h_kv, at, end - at < few_tokens ? end - at : few_tokens, t, x);
}

void prism_attend_few(const prism_ctx *ctx, const prism_problem *p, int32_t s, void *scratch)
{
    const prism_call *c = p->call;
    const prism_seq q = prism_problem_seq(p, s);
    const int32_t d = c->d_head, n_part = part_count(q.n_kv), n_item = c->n_kv_head * n_part;
    char *threads = (char *)scratch + (size_t)n_item * part_bytes(d);
#pragma omp parallel for num_threads(ctx->n_thread) schedule(dynamic, 1)
    for (int32_t item = 0; item < n_item; item++) {
        prism_arena arena = {.base = threads + (size_t)prism_thread_index() * thread_bytes(d)};
        const few_scratch t = layout_thread(d, &arena);
        const part x = get_part(scratch, d, item);
        attend_part(ctx, p, &q, s, item / n_part, item % n_part * part_tokens, &t, &x);
    }
    for (int32_t h_kv = 0; h_kv < c->n_kv_head; h_kv++) {
        const part x = get_part(scratch, d, h_kv * n_part);
        for (int32_t j = 1; j < n_part; j++) {
            const part y = get_part(scratch, d, h_kv * n_part + j);
            merge(&x, &y, p->group * q.n_q, d);
        }
        store_group(ctx->cpu, p, &q, s, h_kv, &x);
    }
}
