#include "node.h"

#include "fake_ggml.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void node_codes(void)
{
    ggml.op = (ggml_op_codes){.none = FAKE_NONE,
                              .view = FAKE_VIEW,
                              .reshape = FAKE_RESHAPE,
                              .permute = FAKE_PERMUTE,
                              .transpose = FAKE_TRANSPOSE,
                              .cont = FAKE_CONT,
                              .scale = FAKE_SCALE,
                              .rms_norm = FAKE_RMS_NORM,
                              .mul_mat = FAKE_MUL_MAT,
                              .rope = FAKE_ROPE,
                              .flash_attn_ext = FAKE_FLASH_ATTN_EXT};
}

static size_t row_bytes(int type, int64_t n)
{
    return type == GGML_TYPE_F32 ? 4 * (size_t)n : type == GGML_TYPE_Q8_0 ? (size_t)n / 32 * 34 : 2 * (size_t)n;
}

static size_t unit_bytes(int type)
{
    return type == GGML_TYPE_F32 ? 4 : type == GGML_TYPE_Q8_0 ? 34 : 2;
}

static void shape_tensor(ggml_tensor *t, int type, int64_t a, int64_t b, int64_t c, int64_t d)
{
    *t = (ggml_tensor){.type = type, .ne = {a, b, c, d}, .op = ggml.op.none};
    t->nb[0] = unit_bytes(type);
    t->nb[1] = row_bytes(type, a);
    t->nb[2] = t->nb[1] * (size_t)b;
    t->nb[3] = t->nb[2] * (size_t)c;
}

/* [d][head][token][stream] in memory, axes 1 and 2 swapped in the view, as llama.cpp's permute does. */
static void swap_axes(ggml_tensor *t)
{
    const int64_t ne = t->ne[1];
    const size_t nb = t->nb[1];
    t->ne[1] = t->ne[2];
    t->nb[1] = t->nb[2];
    t->ne[2] = ne;
    t->nb[2] = nb;
}

static int cell_of(const node_sequence *s, int i)
{
    return s->cell ? s->cell[i] : i;
}

static void mix(double *x, int d, int n)
{
    double y[PRISM_MAX_D_HEAD];
    for (int from = 0; n && from < d; from += n) {
        for (int i = 0; i < n; i++) {
            y[i] = 0;
            for (int j = 0; j < n; j++)
                y[i] += (__builtin_popcount((unsigned)(i & j)) & 1 ? -1 : 1) * x[from + j] / sqrt(n);
        }
        memcpy(x + from, y, (size_t)n * sizeof *x);
    }
}

/* Writes d values and replaces them by what was stored. */
static void store(int type, char *to, double *x, int d)
{
    for (int i = 0; i < d && type != GGML_TYPE_Q8_0; i++) {
        const prism_dtype dtype = type == GGML_TYPE_F32 ? PRISM_F32 : type == GGML_TYPE_F16 ? PRISM_F16 : PRISM_BF16;
        value_encode(dtype, x[i], to + (size_t)i * unit_bytes(type));
        x[i] = value_round(dtype, x[i]);
    }
    for (int i = 0; i < d && type == GGML_TYPE_Q8_0; i += 32, to += 34) {
        double most = 0;
        for (int j = 0; j < 32; j++)
            most = fmax(most, fabs(x[i + j]));
        const double factor = value_round(PRISM_F16, most / 127);
        value_encode(PRISM_F16, factor, to);
        for (int j = 0; j < 32; j++) {
            const double q = factor > 0 ? fmin(127, fmax(-127, nearbyint(x[i + j] / factor))) : 0;
            ((int8_t *)to)[2 + j] = (int8_t)q;
            x[i + j] = q * factor;
        }
    }
}

/* Keys gather around a direction for each stretch of 100 positions, so that blocks differ and selection has a choice.
 */
static void token_value(uint64_t seed, int kind, int head, int position, int d, double *x)
{
    rng direction = {seed * 1000003 + (uint64_t)(kind == 2 ? 50 : position / 100 * 7 + head)};
    rng noise = {seed * 7919 + (uint64_t)((kind * 64 + head) * 1000000 + position)};
    for (int i = 0; i < d; i++)
        x[i] = (kind == 2 ? 0 : 1.5) * rng_normal(&direction) + rng_normal(&noise);
}

static void fill_cache(node *n, int s)
{
    const node_shape *p = &n->shape;
    const node_sequence *q = &p->sequence[s];
    const int n_kv = q->n_old + q->n_new;
    const size_t bytes = (size_t)p->n_kv_head * (size_t)n_kv * (size_t)p->d * sizeof(double);
    n->k_of[s] = malloc(bytes);
    n->v_of[s] = malloc(bytes);
    for (int h = 0; h < p->n_kv_head; h++)
        for (int i = 0; i < n_kv; i++) {
            const size_t to =
                (size_t)q->stream * n->k.nb[3] + (size_t)cell_of(q, i) * n->k.nb[1] + (size_t)h * n->k.nb[2];
            double *k = n->k_of[s] + ((size_t)h * (size_t)n_kv + (size_t)i) * (size_t)p->d;
            double *v = n->v_of[s] + ((size_t)h * (size_t)n_kv + (size_t)i) * (size_t)p->d;
            token_value(q->seed, 1, h, i, p->d, k);
            token_value(q->seed, 2, h, i, p->d, v);
            mix(k, p->d, p->n_mixed);
            store(p->type, (char *)n->k.data + to, k, p->d);
            store(p->type, (char *)n->v.data + to, v, p->d);
            mix(k, p->d, p->n_mixed);
        }
}

static void fill_queries(node *n, int s)
{
    const node_shape *p = &n->shape;
    const node_sequence *q = &p->sequence[s];
    n->q_of[s] = malloc((size_t)p->n_head * (size_t)q->n_new * (size_t)p->d * sizeof(double));
    for (int h = 0; h < p->n_head; h++)
        for (int i = 0; i < q->n_new; i++) {
            double *x = n->q_of[s] + ((size_t)h * (size_t)q->n_new + (size_t)i) * (size_t)p->d;
            token_value(q->seed, 0, h, q->n_old + i, p->d, x);
            mix(x, p->d, p->n_mixed);
            store(GGML_TYPE_F32,
                  (char *)n->q.data + (size_t)q->stream * n->q.nb[3] + (size_t)(n->first_row[s] + i) * n->q.nb[1] +
                      (size_t)h * n->q.nb[2],
                  x, p->d);
            mix(x, p->d, p->n_mixed);
        }
}

static void fill_mask(node *n, int s)
{
    const node_sequence *q = &n->shape.sequence[s];
    for (int i = 0; i < q->n_new; i++) {
        uint16_t *row = (uint16_t *)((char *)n->mask.data + (size_t)q->stream * n->mask.nb[3] +
                                     (size_t)(n->first_row[s] + i) * n->mask.nb[1]);
        for (int j = 0; j <= q->n_old + i; j++)
            row[cell_of(q, j)] = 0;
    }
}

/* permute <- view <- [reshape <- matrix product <-] rope */
static void make_graph(node *n)
{
    const node_shape *p = &n->shape;
    const int n_row = (int)n->q.ne[1] * p->n_stream;
    shape_tensor(&n->rope, GGML_TYPE_F32, p->d, p->n_head, n_row, 1);
    n->rope.op = p->no_rope ? 99 : ggml.op.rope;
    n->rope.op_params[1] = p->d;
    n->rope.op_params[2] = 2;
    const float base = 1e6f, one = 1;
    memcpy(&n->rope.op_params[5], &base, sizeof base);
    memcpy(&n->rope.op_params[6], &one, sizeof one);
    n->turned = n->rope;
    n->turned.op = ggml.op.reshape;
    n->turned.src[0] = &n->rope;
    if (p->n_mixed) {
        shape_tensor(&n->matrix, GGML_TYPE_F32, p->n_mixed, p->n_mixed, 1, 1);
        float *x = n->matrix.data = malloc((size_t)(p->n_mixed * p->n_mixed) * sizeof *x);
        for (int i = 0; i < p->n_mixed * p->n_mixed; i++)
            x[i] = (float)((__builtin_popcount((unsigned)(i / p->n_mixed & i % p->n_mixed)) & 1 ? -1 : 1) /
                           sqrt(p->n_mixed));
        shape_tensor(&n->mixed, GGML_TYPE_F32, p->n_mixed, (int64_t)p->d * p->n_head * n_row / p->n_mixed, 1, 1);
        n->mixed.op = ggml.op.mul_mat;
        n->mixed.src[0] = &n->matrix;
        n->mixed.src[1] = &n->rope;
        n->turned.src[0] = &n->mixed;
    }
    n->q_view = n->turned;
    n->q_view.op = ggml.op.view;
    n->q_view.src[0] = &n->turned;
    n->q.op = ggml.op.permute;
    n->q.src[0] = &n->q_view;
}

static void fill(node *n, const node_shape *shape)
{
    const node_shape *p = &n->shape;
    n->shape = *shape;
    int rows[NODE_MAX_GROUP] = {0}, most = 0;
    for (int s = 0; s < p->n_sequence; s++) {
        n->first_row[s] = rows[p->sequence[s].stream];
        rows[p->sequence[s].stream] += p->sequence[s].n_new;
    }
    for (int i = 0; i < p->n_stream; i++)
        most = most > rows[i] ? most : rows[i];
    shape_tensor(&n->q, GGML_TYPE_F32, p->d, p->n_head, most, p->n_stream);
    n->q.data = calloc(1, n->q.nb[3] * (size_t)p->n_stream);
    shape_tensor(&n->out, GGML_TYPE_F32, p->d, p->n_head, most, p->n_stream);
    n->out.data = malloc(n->out.nb[3] * (size_t)p->n_stream);
    memset(n->out.data, 0xFF, n->out.nb[3] * (size_t)p->n_stream); /* NaN where nothing is written */
    swap_axes(&n->q);
    shape_tensor(&n->mask, GGML_TYPE_F16, p->n_cell, most, 1, p->n_stream);
    uint16_t *mask = n->mask.data = malloc(n->mask.nb[3] * (size_t)p->n_stream);
    for (int64_t i = 0; i < (int64_t)p->n_cell * most * p->n_stream; i++)
        mask[i] = 0xFC00;
    for (int s = 0; s < p->n_sequence; s++) {
        fill_cache(n, s);
        fill_queries(n, s);
        fill_mask(n, s);
    }
    make_graph(n);
    n->out.op = ggml.op.flash_attn_ext;
    const float scale = 1 / sqrtf((float)p->d);
    memcpy(&n->out.op_params[0], &scale, sizeof scale);
    n->out.src[0] = &n->q;
    n->out.src[1] = &n->k;
    n->out.src[2] = &n->v;
    n->out.src[3] = &n->mask;
}

void node_make(node *n, const node_shape *p)
{
    memset(n, 0, sizeof *n);
    shape_tensor(&n->k, p->type, p->d, p->n_kv_head, p->n_cell, p->n_stream);
    n->v = n->k;
    const size_t bytes = n->k.nb[3] * (size_t)p->n_stream;
    n->k.data = malloc(bytes);
    n->v.data = malloc(bytes);
    memset(n->k.data, 0x7F, bytes); /* NaN in float16 and bfloat16: cells that nobody wrote must not count */
    memset(n->v.data, 0x7F, bytes);
    shape_tensor(&n->k_cache, p->type, (int64_t)p->d * p->n_kv_head, p->n_cell, p->n_stream, 1);
    strcpy(n->k_cache.name, "cache_k_l3");
    n->k_cache.data = n->k.data;
    n->k.view_src = &n->k_cache;
    swap_axes(&n->k);
    swap_axes(&n->v);
    fill(n, p);
}

static void free_call(node *n)
{
    for (int s = 0; s < n->shape.n_sequence; s++) {
        free(n->q_of[s]);
        free(n->k_of[s]);
        free(n->v_of[s]);
    }
    free(n->q.data);
    free(n->out.data);
    free(n->mask.data);
    free(n->matrix.data);
    n->matrix.data = NULL;
}

void node_rewrite(node *n, const node_shape *shape)
{
    free_call(n);
    fill(n, shape);
}

void node_free(node *n)
{
    free_call(n);
    free(n->k.data);
    free(n->v.data);
}

double node_error(const node *n, int s)
{
    const node_shape *p = &n->shape;
    const node_sequence *q = &p->sequence[s];
    const oracle_seq seq = {.n_head = p->n_head,
                            .n_kv_head = p->n_kv_head,
                            .d = p->d,
                            .n_q = q->n_new,
                            .q_start = q->n_old,
                            .block = 128,
                            .scale = 1 / sqrt(p->d),
                            .q = n->q_of[s],
                            .k = n->k_of[s],
                            .v = n->v_of[s]};
    double *want = malloc((size_t)p->n_head * (size_t)q->n_new * (size_t)p->d * sizeof *want), worst = 0;
    oracle_attend(&seq, NULL, want, NULL);
    for (int h = 0; h < p->n_head; h++)
        for (int i = 0; i < q->n_new; i++)
            for (int j = 0; j < p->d; j++) {
                const float got = *(const float *)((const char *)n->out.data + (size_t)q->stream * n->out.nb[3] +
                                                   (size_t)(n->first_row[s] + i) * n->out.nb[2] +
                                                   (size_t)h * n->out.nb[1] + (size_t)j * 4);
                const double error = fabs(got - want[(h * q->n_new + i) * p->d + j]);
                worst = error <= worst ? worst : isnan(error) ? INFINITY : error;
            }
    free(want);
    return worst;
}
