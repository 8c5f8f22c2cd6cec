/*
 * attend: exact attention over the listed blocks.
 *
 * Keys and values of one KV head are packed once into the layout that the products read (operand.h). Then every row is
 * a work item, longest first. An item walks its list: logits = Q K^T, online softmax, O = alpha O + P V. Single keys
 * come last: they are gathered and packed a block's worth at a time, and then treated like a block. With a correction
 * the walk starts from the contribution of the blocks that are not listed (attend_corrected.h).
 */
#include <math.h>
#include <string.h>

#include "cpu/attend_corrected.h"

static const float ln_2 = 0.69314718f;

typedef struct attend_scratch {
    void *key;             /* [n_kblk][depth x block, panels of keys] */
    void *value;           /* [n_kblk][block x d_pad, panels of dimensions] */
    uint8_t *finite;       /* [n_kblk] all values of the block are finite */
    int32_t *order;        /* [group * n_qblk] work items, longest first */
    int32_t *count;        /* [n_kblk + 2] */
    prism_entries entries; /* for the blocks that are not listed */
    prism_slopes slopes;
    char *thread;
    size_t thread_bytes;
} attend_scratch;

typedef struct thread_scratch {
    void *query;       /* [block][depth] */
    float *logit;      /* [block][block] */
    void *weight;      /* [block][block]; float32 weights take the place of their logits */
    float *output;     /* [block][d_pad] */
    void *stage;       /* [block][depth]: rows on their way into panels */
    void *key, *value; /* a block's worth of single keys, packed as in attend_scratch */
    prism_correct_tile correct;
} thread_scratch;

static thread_scratch layout_thread(const prism_problem *p, const prism_operand *op, bool corrects, prism_arena *a)
{
    const size_t block = (size_t)p->block_size, depth = (size_t)op->depth, d_pad = (size_t)op->d_pad;
    thread_scratch t;
    t.query = prism_arena_take(a, block * depth, op->bytes);
    t.logit = prism_arena_take(a, block * block, sizeof(float));
    t.weight = op->bf16 ? prism_arena_take(a, block * block, op->bytes) : t.logit;
    t.output = prism_arena_take(a, block * d_pad, sizeof(float));
    t.stage = prism_arena_take(a, block * depth, op->bytes);
    t.key = prism_arena_take(a, block * depth, op->bytes);
    t.value = prism_arena_take(a, block * d_pad, op->bytes);
    if (corrects)
        t.correct = prism_correct_layout(p, a);
    return t;
}

static attend_scratch layout(const prism_ctx *ctx, const prism_problem *p, const prism_operand *op, bool corrects,
                             prism_arena *a)
{
    const size_t n_kblk = (size_t)p->n_kblk, block = (size_t)p->block_size;
    attend_scratch s;
    s.key = prism_arena_take(a, n_kblk, block * (size_t)op->depth * op->bytes);
    s.value = prism_arena_take(a, n_kblk, block * (size_t)op->d_pad * op->bytes);
    s.finite = prism_arena_take(a, n_kblk, 1);
    s.order = prism_arena_take(a, (size_t)p->group * (size_t)p->n_qblk, sizeof *s.order);
    s.count = prism_arena_take(a, n_kblk + 2, sizeof *s.count);
    if (corrects) {
        s.entries = prism_entries_layout(p, true, a);
        s.slopes = prism_slopes_layout(p, a);
    }
    prism_arena one = {0};
    layout_thread(p, op, corrects, &one);
    s.thread_bytes = one.used;
    s.thread = prism_arena_take(a, (size_t)ctx->n_thread, s.thread_bytes);
    return s;
}

static size_t blocks_bytes(const prism_ctx *ctx, const prism_problem *p, bool bf16, bool corrects)
{
    const prism_operand op = prism_operand_make(ctx->cpu, p, bf16);
    prism_arena a = {0};
    layout(ctx, p, &op, corrects, &a);
    return a.overflow ? SIZE_MAX : a.used;
}

/* Returns the largest scratch of all the ways that a call of this shape may take, whatever its types. */
size_t prism_attend_bytes_cpu(const prism_ctx *ctx, const prism_attend_job *job)
{
    size_t bytes = prism_attend_few_bytes(ctx, job->problem);
    for (int bf16 = 0; bf16 <= (ctx->cpu->gemm_bf16 != NULL); bf16++) {
        const size_t of_blocks = blocks_bytes(ctx, job->problem, bf16, job->corrects);
        bytes = of_blocks > bytes ? of_blocks : bytes;
    }
    return bytes;
}

/* ------------------------------------------------------------------------------------------------- pack ---- */

static void pack_block(const prism_operand *op, const prism_problem *p, const prism_seq *q, int32_t s, int32_t h_kv,
                       int32_t v, const attend_scratch *a, void *stage)
{
    const prism_call *c = p->call;
    const int32_t block = p->block_size, begin = v * block, n = q->n_kv - begin < block ? q->n_kv - begin : block;
    prism_operand_load_rows(op, &c->k, s, begin, n, block, h_kv, stage);
    prism_operand_pack_keys(op, stage, block, prism_operand_at(op, a->key, (int64_t)v * block * op->depth));
    prism_operand_load_rows(op, &c->v, s, begin, n, block, h_kv, stage);
    a->finite[v] = prism_operand_all_finite(op, stage, block);
    prism_operand_pack_values(op, stage, block, prism_operand_at(op, a->value, (int64_t)v * block * op->d_pad));
}

/* ----------------------------------------------------------------------------------------------- attend ---- */

typedef struct attend_item {
    const prism_problem *p;
    const prism_plan *plan;
    const prism_attend_job *correct; /* NULL: none */
    const prism_operand *op;
    const attend_scratch *a;
    prism_seq q;
    int32_t s, h, i; /* sequence, query head, query block */
} attend_item;

/* Turns m rows of logits into weights. */
static void weigh(const prism_operand *op, const thread_scratch *t, int32_t ld, int32_t m, int32_t n,
                  const int32_t *n_valid, prism_softmax *state, float *alpha)
{
    if (op->bf16)
        op->k->softmax_bf16(t->weight, t->logit, ld, m, n, op->scale, n_valid, state, alpha);
    else
        op->k->softmax(t->logit, ld, m, n, n_valid, state, alpha);
}

/* Computes O = alpha O + P V where a token that a row does not see may have values that are not finite: 0 times such a
 * value is NaN. Goes from the last row to the first, and clears the values that a row does not see before it adds. */
static void add_values_by_row(const prism_operand *op, const thread_scratch *t, int32_t ld, const void *value,
                              int32_t n, int32_t m, const int32_t *n_valid, const float *alpha)
{
    int32_t left = n;
    if (value != t->value)
        memcpy(t->value, value, (size_t)n * (size_t)op->d_pad * op->bytes);
    for (int32_t r = m - 1; r >= 0; r--) {
        while (left > n_valid[r])
            prism_operand_clear_value(op, t->value, n, --left);
        prism_operand_product(op, t->output + (int64_t)r * op->d_pad, op->d_pad, alpha + r,
                              prism_operand_at(op, t->weight, (int64_t)r * ld), ld, t->value, 1, op->d_pad, n);
    }
}

static void load_queries(const attend_item *it, prism_range r, void *query)
{
    const prism_operand *op = it->op;
    for (int32_t t = r.begin; t < r.end; t++)
        prism_operand_load(op, &it->p->call->q, it->s, t, it->h, op->q_factor,
                           prism_operand_at(op, query, (int64_t)(t - r.begin) * op->depth));
}

static void store_outputs(const attend_item *it, prism_range r, const float *output, const prism_softmax *state)
{
    const prism_call *c = it->p->call;
    for (int32_t t = r.begin; t < r.end; t++, output += it->op->d_pad, state++) {
        prism_store_token(it->op->k, &c->o, it->s, t, it->h, c->d_head, output, 1.0f / state->sum);
        if (c->lse.data)
            *(float *)prism_tensor_at(&c->lse, it->s, t, it->h) = (state->max + log2f(state->sum)) * ln_2;
    }
}

/* Loads the rows of n listed tokens, then zero rows up to n_row. */
static void gather_rows(const attend_item *it, const prism_tensor *x, const int32_t *token, int32_t n, int32_t n_row,
                        void *rows)
{
    const prism_operand *op = it->op;
    for (int32_t j = 0; j < n_row; j++)
        prism_operand_load_rows(op, x, it->s, j < n ? token[j] : 0, j < n, 1, it->h / it->p->group,
                                prism_operand_at(op, rows, (int64_t)j * op->depth));
}

/* Attends to at most a block's worth of single keys. They ascend, so a query sees a prefix of the list. */
static void attend_keys(const attend_item *it, const thread_scratch *t, prism_range rows, const int32_t *key, int32_t n,
                        prism_softmax *state, float *alpha)
{
    const prism_problem *p = it->p;
    const prism_operand *op = it->op;
    const int32_t block = p->block_size, m = rows.end - rows.begin, first = it->q.q_start + rows.begin;
    const int32_t n_row = prism_round_up(n, op->panel);
    int32_t n_valid[PRISM_MAX_BLOCK];
    for (int32_t r = 0, seen = 0; r < m; r++) {
        while (seen < n && key[seen] <= first + r)
            seen++;
        n_valid[r] = seen;
    }
    gather_rows(it, &p->call->k, key, n, n_row, t->stage);
    prism_operand_pack_keys(op, t->stage, n_row, t->key);
    prism_operand_product(op, t->logit, block, NULL, t->query, op->depth, t->key, m, n_row, op->depth);
    weigh(op, t, block, m, n_row, n_valid, state, alpha);
    gather_rows(it, &p->call->v, key, n, n_row, t->stage);
    prism_operand_pack_values(op, t->stage, n_row, t->value);
    if (n_valid[0] < n && !prism_operand_all_finite(op, t->stage, n))
        add_values_by_row(op, t, block, t->value, n_row, m, n_valid, alpha);
    else
        prism_operand_product(op, t->output, op->d_pad, alpha, t->weight, block, t->value, m, op->d_pad, n_row);
}

/* Blocks that wait for a tier which attends over several at once. */
enum { max_batch = 64, strip_rows = 32 };
typedef struct batch {
    int32_t n;
    prism_key_block block[max_batch];
} batch;

/* Attends to the batch and empties it. n_valid: as in prism_tile_bf16. */
static void attend_batch(const attend_item *it, const thread_scratch *t, int32_t m, const int32_t *n_valid,
                         prism_softmax *state, batch *b)
{
    const prism_operand *op = it->op;
    const prism_tile_bf16 tile = {.query = t->query,
                                  .block = b->block,
                                  .n_block = b->n,
                                  .m = m,
                                  .n = it->p->block_size,
                                  .depth = op->depth,
                                  .d_pad = op->d_pad,
                                  .scale = op->scale,
                                  .n_valid = n_valid,
                                  .logit = t->logit,
                                  .output = t->output,
                                  .state = state};
    if (b->n > 0)
        op->k->attend_bf16(&tile);
    b->n = 0;
}

/* Attends to one listed block, step by step. n_valid: how many of its keys each row sees. */
static void attend_block(const attend_item *it, const thread_scratch *t, int32_t v, int32_t m, const int32_t *n_valid,
                         prism_softmax *state, float *alpha)
{
    const prism_operand *op = it->op;
    const int32_t block = it->p->block_size;
    const void *key = prism_operand_at(op, it->a->key, (int64_t)v * block * op->depth);
    const void *value = prism_operand_at(op, it->a->value, (int64_t)v * block * op->d_pad);
    prism_operand_product(op, t->logit, block, NULL, t->query, op->depth, key, m, block, op->depth);
    weigh(op, t, block, m, block, n_valid, state, alpha);
    if (n_valid[0] < block && !it->a->finite[v])
        add_values_by_row(op, t, block, value, block, m, n_valid, alpha);
    else
        prism_operand_product(op, t->output, op->d_pad, alpha, t->weight, block, value, m, op->d_pad, block);
}

/* Attends to the listed blocks. A tier that attends over several at once gets the row's own block alone: the tokens of
 * other rows there decide how its values are added, and no row's bits may depend on those tokens. */
static void attend_list(const attend_item *it, const thread_scratch *t, prism_plan_row list, int32_t m,
                        const int32_t *n_own, prism_softmax *state, float *alpha)
{
    const prism_operand *op = it->op;
    const int32_t block = it->p->block_size, own = it->q.first_qblk + it->i;
    const bool in_batches = op->bf16 && op->k->attend_bf16;
    const int32_t m_pad = prism_round_up(m, strip_rows);
    int32_t n_before[PRISM_MAX_BLOCK];
    batch waiting = {.n = 0};
    for (int32_t r = 0; r < m; r++)
        n_before[r] = block;
    for (int64_t n = 0; n < list.n; n++) {
        const int32_t v = list.index ? list.index[n] : (int32_t)n;
        if (in_batches && (v == own || waiting.n == max_batch))
            attend_batch(it, t, m_pad, NULL, state, &waiting);
        if (!in_batches || (v == own && !it->a->finite[v])) {
            attend_block(it, t, v, m, v == own ? n_own : n_before, state, alpha);
            continue;
        }
        waiting.block[waiting.n++] =
            (prism_key_block){prism_operand_at(op, it->a->key, (int64_t)v * block * op->depth),
                              prism_operand_at(op, it->a->value, (int64_t)v * block * op->d_pad)};
        if (v == own)
            attend_batch(it, t, m_pad, n_own, state, &waiting);
    }
    attend_batch(it, t, m_pad, NULL, state, &waiting);
}

static void attend_tile(const attend_item *it, const thread_scratch *t)
{
    const prism_problem *p = it->p;
    const prism_operand *op = it->op;
    const int32_t block = p->block_size, own = it->q.first_qblk + it->i;
    const prism_range rows = prism_seq_rows(&it->q, it->i, block);
    const int32_t m = rows.end - rows.begin, m_pad = prism_round_up(m, strip_rows);
    const int64_t row = prism_problem_row(p, it->s, it->h, it->i);
    const prism_plan_row list = prism_plan_get_row(it->plan, row);
    prism_softmax state[PRISM_MAX_BLOCK];
    float alpha[PRISM_MAX_BLOCK];
    int32_t n_own[PRISM_MAX_BLOCK]; /* keys a row sees of its own block */
    for (int32_t r = 0; r < m_pad; r++) {
        state[r] = (prism_softmax){-INFINITY, 0};
        n_own[r] = it->q.q_start + rows.begin + r - own * block + 1;
    }
    load_queries(it, rows, t->query);
    memset(prism_operand_at(op, t->query, (int64_t)m * op->depth), 0,
           (size_t)(m_pad - m) * (size_t)op->depth * op->bytes);
    memset(t->output, 0, (size_t)m_pad * (size_t)op->d_pad * sizeof(float));
    if (it->correct)
        prism_correct_start(op->k, it->correct, it->s, it->h, rows, own, list, &it->a->entries, &it->a->slopes,
                            &t->correct, state, t->output);
    attend_list(it, t, list, m, n_own, state, alpha);
    const prism_plan_keys keys = prism_plan_get_keys(it->plan, row);
    for (int64_t n = 0; n < keys.n; n += block)
        attend_keys(it, t, rows, keys.index + n, (int32_t)(keys.n - n < block ? keys.n - n : block), state, alpha);
    store_outputs(it, rows, t->output, state);
}

/* Returns the length of a row in blocks, at most n_kblk. A single key costs about as much as two keys of a block,
 * because every row packs it again. */
static int32_t item_length(const prism_problem *p, const prism_plan *plan, int64_t row, int32_t n_kblk)
{
    const int64_t n = prism_plan_get_row(plan, row).n + 2 * prism_plan_get_keys(plan, row).n / p->block_size;
    return (int32_t)(n < n_kblk ? n : n_kblk);
}

/* Sorts the work items of one KV head (g * n_qblk + i) by falling list length, with a counting sort. */
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

static void attend_kv_head(const prism_ctx *ctx, const attend_item *of, int32_t h_kv)
{
    const prism_problem *p = of->p;
    const prism_seq *q = &of->q;
    const attend_scratch *a = of->a;
    const int32_t n_strip =
        of->correct && q->n_kblk > 1 ? prism_entry_strips(p) : 0; /* nothing comes before a single block */
    const prism_block_moments moments =
        n_strip ? prism_moments_of_cpu(p, of->correct->moments, of->s) : (prism_block_moments){0};
    const int32_t n_slot = n_strip && of->correct->variances ? prism_moment_slot(q->n_kv / p->block_size) : 0;
    sort_items(p, of->plan, q, of->s, h_kv, a);
#pragma omp parallel num_threads(ctx->n_thread)
    {
        prism_arena arena = {.base = a->thread + (size_t)prism_thread_index() * a->thread_bytes};
        const thread_scratch t = layout_thread(p, of->op, of->correct != NULL, &arena);
#pragma omp for schedule(static)
        for (int32_t v = 0; v < q->n_kblk; v++)
            pack_block(of->op, p, q, of->s, h_kv, v, a, t.stage);
#pragma omp for schedule(static)
        for (int32_t strip = 0; strip < n_strip; strip++)
            prism_entries_pack(ctx->cpu, p, &moments, of->correct->variances, of->s, h_kv, strip, &a->entries,
                               t.correct.stage);
#pragma omp for schedule(static)
        for (int32_t slot = 0; slot < n_slot; slot++)
            prism_slopes_pack(ctx->cpu, p, &moments, h_kv, slot, &a->slopes, t.correct.stage);
#pragma omp for schedule(dynamic, 1)
        for (int32_t n = 0; n < p->group * q->n_qblk; n++) {
            attend_item it = *of;
            it.h = h_kv * p->group + a->order[n] / q->n_qblk;
            it.i = a->order[n] % q->n_qblk;
            attend_tile(&it, &t);
        }
    }
}

void prism_attend_cpu(const prism_ctx *ctx, const prism_attend_job *job)
{
    const prism_problem *p = job->problem;
    prism_arena arena = {.base = job->scratch};
    const prism_operand op = prism_operand_make(ctx->cpu, p, prism_operand_fits_bf16(ctx->cpu, p->call));
    const attend_scratch a = layout(ctx, p, &op, job->corrects, &arena);
    for (int32_t s = 0; s < p->call->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        const attend_item of = {.p = p,
                                .plan = job->plan,
                                .correct = job->corrects && !job->plan->full ? job : NULL,
                                .op = &op,
                                .a = &a,
                                .q = q,
                                .s = s};
        if (prism_attend_few_fits(p, &q, job->plan))
            prism_attend_few(ctx, p, s, job->scratch);
        else
            for (int32_t h_kv = 0; h_kv < p->call->n_kv_head && q.n_q > 0; h_kv++)
                attend_kv_head(ctx, &of, h_kv);
    }
}
