#include "fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expect.h"

static double unit(unsigned long long *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (double)(*state >> 33) / 2147483648.0;
}

static double normal(unsigned long long *state)
{
    const double a = unit(state), b = unit(state);
    return sqrt(-2 * log(1 - a)) * cos(6.283185307179586 * b);
}

/* n rows at positions first ..: noise, and a direction of the head that turns with the position, as RoPE makes it; so
 * that there are diagonals. Some rows of keys are large: columns. */
static void fill(float *x, int n, int d, unsigned long long *state, bool keys)
{
    for (int t = 0; t < n; t++) {
        const double size = keys && unit(state) < 0.01 ? 2.5 : 1;
        for (int j = 0; j < d; j++) {
            const double w = pow(1e4, -2.0 * (j % (d / 2)) / d), turn = j < d / 2 ? cos(t * w) : sin(t * w);
            x[(long)t * d + j] = (float)(size * normal(state) + 0.9 * turn);
        }
    }
}

/* BF16 tensor `name` of a recording, [n_head][4096][d]: head 0, its tokens from 0 on. false if it is not there. */
static bool read_golden(const char *path, const char *name, float *x, int n, int d)
{
    FILE *file = fopen(path, "rb");
    uint64_t n_header = 0;
    char *header = NULL, key[32];
    unsigned long begin = 0, end = 0;
    bool ok = file && fread(&n_header, 8, 1, file) == 1 && (header = calloc(1, n_header + 1)) &&
              fread(header, n_header, 1, file) == 1;
    snprintf(key, sizeof key, "\"%s\":{", name);
    const char *at = ok ? strstr(header, key) : NULL;
    at = at ? strstr(at, "\"data_offsets\":[") : NULL;
    ok = at && sscanf(at, "\"data_offsets\":[%lu,%lu]", &begin, &end) == 2 &&
         !fseek(file, (long)(8 + n_header + begin), SEEK_SET);
    for (long i = 0; ok && i < (long)n * d; i++) {
        uint16_t h;
        ok = fread(&h, 2, 1, file) == 1;
        const uint32_t bits = (uint32_t)h << 16;
        memcpy(&x[i], &bits, 4);
    }
    free(header);
    if (file)
        fclose(file);
    return ok;
}

static double *widen(const float *x, int n_head, int n, int n_max, int d)
{
    double *y = zeros((long)n_head * n * d, sizeof *y);
    for (long h = 0; h < n_head; h++)
        for (long i = 0; i < (long)n * d; i++)
            y[h * n * d + i] = (double)x[h * n_max * d + i];
    return y;
}

static void make_data(rival_fixture *f)
{
    const rival_case *c = &f->c;
    unsigned long long state = c->seed;
    const long q_head = (long)f->n_q * c->d, kv_head = (long)f->n_kv * c->d;
    f->q = zeros(c->n_seq * c->n_head * q_head, sizeof(float));
    f->o = zeros(c->n_seq * c->n_head * q_head, sizeof(float));
    f->k = zeros(c->n_seq * c->n_kv_head * kv_head, sizeof(float));
    f->v = zeros(c->n_seq * c->n_kv_head * kv_head, sizeof(float));
    float *whole = zeros(kv_head, sizeof *whole); /* queries are cut out of a whole prompt */
    for (int s = 0; s < c->n_seq; s++) {
        for (int h = 0; h < c->n_head; h++) {
            fill(whole, f->n_kv, c->d, &state, false);
            if (c->golden && !read_golden(c->golden, "q", whole, f->n_kv, c->d))
                fail_msg("%s: no q", c->golden);
            memcpy(f->q + (s * c->n_head + h) * q_head, whole + (long)c->q_start[s] * c->d,
                   (size_t)c->n_q[s] * (size_t)c->d * sizeof(float));
        }
        for (int h = 0; h < c->n_kv_head; h++) {
            float *k = f->k + (s * c->n_kv_head + h) * kv_head;
            fill(k, f->n_kv, c->d, &state, true);
            fill(f->v + (s * c->n_kv_head + h) * kv_head, f->n_kv, c->d, &state, false);
            if (c->golden && !read_golden(c->golden, "k", k, f->n_kv, c->d))
                fail_msg("%s: no k", c->golden);
        }
    }
    free(whole);
}

rival_fixture *fixture_new(const rival_case *c, prism_isa isa)
{
    rival_fixture *f = zeros(1, sizeof *f);
    f->c = *c;
    for (int s = 0; s < c->n_seq; s++) {
        f->n_q = c->n_q[s] > f->n_q ? c->n_q[s] : f->n_q;
        f->n_kv = c->q_start[s] + c->n_q[s] > f->n_kv ? c->q_start[s] + c->n_q[s] : f->n_kv;
    }
    make_data(f);
    prism_call_init(&f->call);
    f->call.n_seq = c->n_seq;
    f->call.n_head = c->n_head;
    f->call.n_kv_head = c->n_kv_head;
    f->call.d_head = c->d;
    f->call.n_q = f->n_q;
    f->call.n_kv = f->n_kv;
    f->call.q = prism_tensor_head_major(f->q, PRISM_F32, f->n_q, c->n_head, c->d);
    f->call.k = prism_tensor_head_major(f->k, PRISM_F32, f->n_kv, c->n_kv_head, c->d);
    f->call.v = prism_tensor_head_major(f->v, PRISM_F32, f->n_kv, c->n_kv_head, c->d);
    f->call.o = prism_tensor_head_major(f->o, PRISM_F32, f->n_q, c->n_head, c->d);
    for (int s = 0; s < c->n_seq; s++) {
        const int n_q = c->n_q[s], n_kv = c->q_start[s] + n_q;
        f->n_q_of[s] = n_q;
        f->n_kv_of[s] = n_kv;
        f->q_start_of[s] = c->q_start[s];
        f->dq[s] = widen(f->q + (long)s * c->n_head * f->n_q * c->d, c->n_head, n_q, f->n_q, c->d);
        f->dk[s] = widen(f->k + (long)s * c->n_kv_head * f->n_kv * c->d, c->n_kv_head, n_kv, f->n_kv, c->d);
        f->dv[s] = widen(f->v + (long)s * c->n_kv_head * f->n_kv * c->d, c->n_kv_head, n_kv, f->n_kv, c->d);
        f->seq[s] = (rival_seq){c->n_head, c->n_kv_head,   c->d,     n_q,      c->q_start[s],
                                c->block,  1 / sqrt(c->d), f->dq[s], f->dk[s], f->dv[s]};
    }
    f->call.n_q_of = f->n_q_of;
    f->call.n_kv_of = f->n_kv_of;
    f->call.q_start_of = f->q_start_of;
    prism_config config;
    prism_config_init(&config);
    config.n_thread = 2;
    config.isa = isa;
    if (prism_create(&config, &f->ctx)) { /* a tier that this machine lacks */
        fixture_free(f);
        return NULL;
    }
    return f;
}

void fixture_free(rival_fixture *f)
{
    for (int s = 0; s < MAX_SEQ; s++)
        free(f->dq[s]), free(f->dk[s]), free(f->dv[s]);
    free(f->q), free(f->k), free(f->v), free(f->o), free(f->workspace);
    prism_plan_destroy(f->plan);
    prism_destroy(f->ctx);
    free(f);
}

void fixture_run(rival_fixture *f, const prism_options *options, prism_stats *stats)
{
    free(f->workspace);
    prism_plan_destroy(f->plan);
    f->plan = NULL;
    assert_ok(prism_workspace_bytes(f->ctx, options, &f->call, &f->workspace_bytes));
    f->workspace = aligned_alloc(64, (f->workspace_bytes + 63) / 64 * 64);
    assert_non_null(f->workspace);
    memset(f->workspace, 0xa5, f->workspace_bytes);
    assert_ok(prism_plan_create(f->ctx, &f->call, options->block_size, 0, &f->plan));
    *stats = (prism_stats){.struct_size = sizeof *stats};
    const prism_status status =
        prism_attention(f->ctx, options, &f->call, f->plan, f->workspace, f->workspace_bytes, stats);
    if (status)
        fail_msg("%s: %s", prism_status_name(status), prism_last_error(f->ctx));
    f->view = (prism_plan_view){.struct_size = sizeof f->view};
    assert_ok(prism_plan_read(f->plan, &f->view));
}

void fixture_row(const rival_fixture *f, int s, int h, int i, uint8_t *reads)
{
    const prism_plan_view *v = &f->view;
    const int64_t row = ((int64_t)s * f->c.n_head + h) * v->n_qblk + i;
    const int n_kv = n_keys(&f->seq[s]);
    memset(reads, DROPPED, (size_t)n_kv);
    for (int64_t t = v->row_ptr[row]; t < v->row_ptr[row + 1]; t++) {
        const int begin = (v->index ? v->index[t] : (int)(t - v->row_ptr[row])) * v->block_size;
        for (int c = begin; c < begin + v->block_size && c < n_kv; c++)
            reads[c] = KEPT;
    }
    for (int64_t t = v->key_ptr ? v->key_ptr[row] : 0; v->key_ptr && t < v->key_ptr[row + 1]; t++) {
        const int c = v->key_index[t];
        assert_true(c >= 0 && c < n_kv && reads[c] == DROPPED); /* in range, in no listed block, not twice */
        assert_true(t == v->key_ptr[row] || c > v->key_index[t - 1]);
        reads[c] = KEPT;
    }
}

prism_options rival_options(prism_method method, int block)
{
    prism_options o;
    prism_options_init(&o);
    o.method = method;
    o.block_size = block;
    o.min_tokens = 0;
    return o;
}

rival_params params_of(const prism_options *o)
{
    return (rival_params){
        .vertical = o->minference_vertical,
        .slash = o->minference_slash,
        .budget = (double)o->minference_budget,
        .gamma = (double)o->flex_gamma,
        .tau = (double)o->flex_tau,
        .min_budget = o->flex_min_budget,
        .max_budget = o->flex_max_budget,
        .stride = o->xattn_stride,
        .threshold = (double)o->xattn_threshold,
        .alpha = (double)o->flash_alpha,
        .sink = o->flash_sink,
        .window = o->flash_window,
        .last = o->flash_last,
    };
}
