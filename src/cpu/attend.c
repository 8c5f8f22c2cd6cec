/*
 * attend: exact attention over the listed blocks.
 *
 * Keys and values of one KV head are packed once into the gemm kernel's layout; then every (query head, query block)
 * is a work item, longest first. An item walks its list: logits = Q K^T, online softmax, O = alpha O + P V. Single
 * keys come last: gathered and packed a block's worth at a time, then treated alike.
 */
#include <math.h>
#include <string.h>

#include "core/half.h"
#include "cpu/cpu.h"

static const float log2_e = 1.44269504f, ln_2 = 0.69314718f;

typedef struct attend_scratch {
    float *key;      /* [n_kblk][d x block, panels of keys] */
    float *value;    /* [n_kblk][block x d_pad, panels of dimensions] */
    uint8_t *finite; /* [n_kblk] all values of the block are */
    int32_t *order;  /* [group * n_qblk] work items, longest first */
    int32_t *count;  /* [n_kblk + 2] */
    char *thread;
    size_t thread_bytes;
} attend_scratch;

typedef struct thread_scratch {
    float *query;       /* [block][d] */
    float *logit;       /* [block][block] */
    float *output;      /* [block][d_pad] */
    float *stage;       /* [block][d]: rows on their way into panels */
    float *key, *value; /* a block's worth of single keys, packed as in attend_scratch */
} thread_scratch;

static int32_t padded_dims(const prism_problem *p)
{
    return prism_round_up(p->call->d_head, PRISM_MAX_PANEL);
}

static thread_scratch layout_thread(const prism_problem *p, prism_arena *a)
{
    const size_t block = (size_t)p->block_size, d = (size_t)p->call->d_head, d_pad = (size_t)padded_dims(p);
    thread_scratch t;
    t.query = prism_arena_take(a, block * d, sizeof(float));
    t.logit = prism_arena_take(a, block * block, sizeof(float));
    t.output = prism_arena_take(a, block * d_pad, sizeof(float));
    t.stage = prism_arena_take(a, block * d, sizeof(float));
    t.key = prism_arena_take(a, block * d, sizeof(float));
    t.value = prism_arena_take(a, block * d_pad, sizeof(float));
    return t;
}

static attend_scratch layout(const prism_ctx *ctx, const prism_problem *p, prism_arena *a)
{
    const size_t n_kblk = (size_t)p->n_kblk, block = (size_t)p->block_size;
    attend_scratch s;
    s.key = prism_arena_take(a, n_kblk, block * (size_t)p->call->d_head * sizeof(float));
    s.value = prism_arena_take(a, n_kblk, block * (size_t)padded_dims(p) * sizeof(float));
    s.finite = prism_arena_take(a, n_kblk, 1);
    s.order = prism_arena_take(a, (size_t)p->group * (size_t)p->n_qblk, sizeof *s.order);
    s.count = prism_arena_take(a, n_kblk + 2, sizeof *s.count);
    prism_arena one = {0};
    layout_thread(p, &one);
    s.thread_bytes = one.used;
    s.thread = prism_arena_take(a, (size_t)ctx->n_thread, s.thread_bytes);
    return s;
}

size_t prism_attend_bytes_cpu(const prism_ctx *ctx, const prism_problem *p)
{
    prism_arena a = {0};
    layout(ctx, p, &a);
    const size_t few = prism_attend_few_bytes(ctx, p);
    return a.overflow ? SIZE_MAX : few > a.used ? few : a.used;
}

/* ------------------------------------------------------------------------------------------------- pack ---- */

/* Rows of block v as float32, zero past the end. Returns how many are real. */
static int32_t load_block(const prism_cpu_kernels *k, const prism_problem *p, const prism_tensor *x, int32_t s,
                          int32_t h, int32_t v, int32_t n_kv, float *rows)
{
    const int32_t d = p->call->d_head, begin = v * p->block_size;
    const int32_t n = n_kv - begin < p->block_size ? n_kv - begin : p->block_size;
    for (int32_t j = 0; j < n; j++)
        prism_load_token(k, x, s, begin + j, h, d, rows + (int64_t)j * d);
    memset(rows + (int64_t)n * d, 0, (size_t)(p->block_size - n) * (size_t)d * sizeof *rows);
    return n;
}

/* panel[l][j] = rows[first + j][l] */
static void pack_keys(const float *rows, int32_t block, int32_t d, int32_t width, float *out)
{
    for (int32_t first = 0; first < block; first += width)
        for (int32_t l = 0; l < d; l++)
            for (int32_t j = 0; j < width; j++)
                *out++ = rows[(int64_t)(first + j) * d + l];
}

/* panel[i][j] = rows[i][first + j], zero past d */
static void pack_values(const float *rows, int32_t block, int32_t d, int32_t d_pad, int32_t width, float *out)
{
    for (int32_t first = 0; first < d_pad; first += width)
        for (int32_t i = 0; i < block; i++)
            for (int32_t j = first; j < first + width; j++)
                *out++ = j < d ? rows[(int64_t)i * d + j] : 0.0f;
}

static bool all_finite(const float *x, int64_t n)
{
    uint32_t bad = 0; /* integers, so that the loop vectorises */
    for (int64_t i = 0; i < n; i++)
        bad |= (prism_float_bits(x[i]) & 0x7f800000) == 0x7f800000;
    return !bad;
}

static void pack_block(const prism_ctx *ctx, const prism_problem *p, const prism_seq *q, int32_t s, int32_t h_kv,
                       int32_t v, const attend_scratch *a, float *stage)
{
    const prism_call *c = p->call;
    const int32_t block = p->block_size, d = c->d_head, d_pad = padded_dims(p), width = ctx->cpu->panel;
    load_block(ctx->cpu, p, &c->k, s, h_kv, v, q->n_kv, stage);
    pack_keys(stage, block, d, width, a->key + (int64_t)v * block * d);
    load_block(ctx->cpu, p, &c->v, s, h_kv, v, q->n_kv, stage);
    a->finite[v] = all_finite(stage, (int64_t)block * d);
    pack_values(stage, block, d, d_pad, width, a->value + (int64_t)v * block * d_pad);
}

/* ----------------------------------------------------------------------------------------------- attend ---- */

typedef struct attend_item {
    const prism_problem *p;
    const prism_plan *plan;
    const attend_scratch *a;
    prism_seq q;
    int32_t s, h, i; /* sequence, query head, query block */
} attend_item;

/* P V where some of n values are not finite and rows see n_valid of them: a row must not touch the values after it,
 * for 0 * NaN is NaN. */
static void add_values_by_row(const prism_cpu_kernels *k, float *output, int64_t d_pad, const float *alpha,
                              const float *weight, int64_t ld, const float *value, int32_t n, int32_t m,
                              const int32_t *n_valid)
{
    const int32_t width = k->panel;
    for (int32_t r = 0; r < m; r++)
        for (int32_t j = 0; j < d_pad; j += width)
            k->gemm(output + r * d_pad + j, d_pad, alpha + r, weight + r * ld, ld, value + (int64_t)j * n, 1, width,
                    n_valid[r]);
}

static void load_queries(const prism_cpu_kernels *k, const attend_item *it, prism_range r, float *query)
{
    const prism_call *c = it->p->call;
    const int32_t d = c->d_head;
    for (int32_t t = r.begin; t < r.end; t++, query += d) {
        prism_load_token(k, &c->q, it->s, t, it->h, d, query);
        k->store_row[PRISM_F32](query, query, d, it->p->scale * log2_e);
    }
}

static void store_outputs(const prism_cpu_kernels *k, const attend_item *it, prism_range r, const float *output,
                          int64_t d_pad, const prism_softmax *state)
{
    const prism_call *c = it->p->call;
    for (int32_t t = r.begin; t < r.end; t++, output += d_pad, state++) {
        prism_store_token(k, &c->o, it->s, t, it->h, c->d_head, output, 1.0f / state->sum);
        if (c->lse.data)
            *(float *)prism_tensor_at(&c->lse, it->s, t, it->h) = (state->max + log2f(state->sum)) * ln_2;
    }
}

/* Rows of the listed tokens as float32, zero from n to n_row. */
static void gather_rows(const prism_cpu_kernels *k, const attend_item *it, const prism_tensor *x, const int32_t *token,
                        int32_t n, int32_t n_row, float *rows)
{
    const int32_t d = it->p->call->d_head, h_kv = it->h / it->p->group;
    for (int32_t j = 0; j < n; j++)
        prism_load_token(k, x, it->s, token[j], h_kv, d, rows + (int64_t)j * d);
    memset(rows + (int64_t)n * d, 0, (size_t)(n_row - n) * (size_t)d * sizeof *rows);
}

/* At most a block's worth of single keys. They ascend, so a query sees a prefix of them. */
static void attend_keys(const prism_cpu_kernels *k, const attend_item *it, const thread_scratch *t, prism_range rows,
                        const int32_t *key, int32_t n, prism_softmax *state, float *alpha)
{
    const prism_problem *p = it->p;
    const int32_t block = p->block_size, d = p->call->d_head, d_pad = padded_dims(p), m = rows.end - rows.begin;
    const int32_t n_row = prism_round_up(n, k->panel), first = it->q.q_start + rows.begin;
    int32_t n_valid[PRISM_MAX_BLOCK];
    for (int32_t r = 0, seen = 0; r < m; r++) {
        while (seen < n && key[seen] <= first + r)
            seen++;
        n_valid[r] = seen;
    }
    gather_rows(k, it, &p->call->k, key, n, n_row, t->stage);
    pack_keys(t->stage, n_row, d, k->panel, t->key);
    k->gemm(t->logit, block, NULL, t->query, d, t->key, m, n_row, d);
    k->softmax(t->logit, block, m, n_row, n_valid, state, alpha);
    gather_rows(k, it, &p->call->v, key, n, n_row, t->stage);
    pack_values(t->stage, n_row, d, d_pad, k->panel, t->value);
    if (n_valid[0] < n && !all_finite(t->stage, (int64_t)n * d))
        add_values_by_row(k, t->output, d_pad, alpha, t->logit, block, t->value, n_row, m, n_valid);
    else
        k->gemm(t->output, d_pad, alpha, t->logit, block, t->value, m, d_pad, n_row);
}

static void attend_tile(const prism_cpu_kernels *k, const attend_item *it, const thread_scratch *t)
{
    const prism_problem *p = it->p;
    const int32_t block = p->block_size, d = p->call->d_head, d_pad = padded_dims(p), own = it->q.first_qblk + it->i;
    const prism_range rows = prism_seq_rows(&it->q, it->i, block);
    const int32_t m = rows.end - rows.begin;
    const int64_t row = prism_problem_row(p, it->s, it->h, it->i);
    const prism_plan_row list = prism_plan_get_row(it->plan, row);
    prism_softmax state[PRISM_MAX_BLOCK];
    float alpha[PRISM_MAX_BLOCK];
    int32_t n_before[PRISM_MAX_BLOCK], n_own[PRISM_MAX_BLOCK]; /* keys a row sees of an earlier block, of its own */
    for (int32_t r = 0; r < m; r++) {
        state[r] = (prism_softmax){-INFINITY, 0};
        n_before[r] = block;
        n_own[r] = it->q.q_start + rows.begin + r - own * block + 1;
    }
    load_queries(k, it, rows, t->query);
    memset(t->output, 0, (size_t)m * (size_t)d_pad * sizeof(float));
    for (int64_t n = 0; n < list.n; n++) {
        const int32_t v = list.index ? list.index[n] : (int32_t)n;
        const int32_t *n_valid = v == own ? n_own : n_before;
        const float *value = it->a->value + (int64_t)v * block * d_pad;
        k->gemm(t->logit, block, NULL, t->query, d, it->a->key + (int64_t)v * block * d, m, block, d);
        k->softmax(t->logit, block, m, block, n_valid, state, alpha);
        if (v == own && !it->a->finite[v])
            add_values_by_row(k, t->output, d_pad, alpha, t->logit, block, value, block, m, n_valid);
        else
            k->gemm(t->output, d_pad, alpha, t->logit, block, value, m, d_pad, block);
    }
    const prism_plan_keys keys = prism_plan_get_keys(it->plan, row);
    for (int64_t n = 0; n < keys.n; n += block)
        attend_keys(k, it, t, rows, keys.index + n, (int32_t)(keys.n - n < block ? keys.n - n : block), state, alpha);
    store_outputs(k, it, rows, t->output, d_pad, state);
}

/* Length of a row in blocks, at most n_kblk. A single key costs about as much as two of a block: it is packed anew for
 * every row. */
static int32_t item_length(const prism_problem *p, const prism_plan *plan, int64_t row, int32_t n_kblk)
{
    const int64_t n = prism_plan_get_row(plan, row).n + 2 * prism_plan_get_keys(plan, row).n / p->block_size;
    return (int32_t)(n < n_kblk ? n : n_kblk);
}

/* Work items of one KV head (g * n_qblk + i), by falling list length: a counting sort. */
static void sort_items(const prism_problem *p, const prism_plan *plan, const prism_seq *q, int32_t s, int32_t h_kv,
                       const attend_scratch *a)
{
    const int32_t n_item = p->group * q->n_qblk, max = q->n_kblk;
    memset(a->count, 0, ((size_t)max + 2) * sizeof *a->count);
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t item = 0; item < n_item; item++) {
            const int32_t h = h_kv * p->group + item / q->n_qblk;
            const int32_t n = item_length(p, plan, prism_problem_row(p, s, h, item % q->n_qblk), max);
            if (pass == 0)
                a->count[max - n + 1]++;
            else
                a->order[a->count[max - n]++] = item;
        }
        for (int32_t n = 0; pass == 0 && n <= max; n++)
            a->count[n + 1] += a->count[n];
    }
}

static void attend_kv_head(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, int32_t s,
                           int32_t h_kv, const attend_scratch *a)
{
    const prism_seq q = prism_problem_seq(p, s);
    sort_items(p, plan, &q, s, h_kv, a);
#pragma omp parallel num_threads(ctx->n_thread)
    {
        prism_arena arena = {.base = a->thread + (size_t)prism_thread_index() * a->thread_bytes};
        const thread_scratch t = layout_thread(p, &arena);
#pragma omp for schedule(static)
        for (int32_t v = 0; v < q.n_kblk; v++)
            pack_block(ctx, p, &q, s, h_kv, v, a, t.stage);
#pragma omp for schedule(dynamic, 1)
        for (int32_t n = 0; n < p->group * q.n_qblk; n++) {
            const int32_t item = a->order[n];
            const attend_item it = {p, plan, a, q, s, h_kv * p->group + item / q.n_qblk, item % q.n_qblk};
            attend_tile(ctx->cpu, &it, &t);
        }
    }
}

void prism_attend_cpu(const prism_ctx *ctx, const prism_problem *p, const prism_plan *plan, void *scratch)
{
    prism_arena arena = {.base = scratch};
    const attend_scratch a = layout(ctx, p, &arena);
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        if (prism_attend_few_fits(p, &q, plan))
            prism_attend_few(ctx, p, s, scratch);
        else
            for (int32_t h_kv = 0; h_kv < p->call->n_kv_head && q.n_q > 0; h_kv++)
                attend_kv_head(ctx, p, plan, s, h_kv, &a);
    }
}
