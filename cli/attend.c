/* prism attend: attention over tensors in a file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "lm/safetensors.h"

typedef struct attend_args {
    cli_method_args method;
    const char *in, *out;
    int32_t n_high, n_low, n_rotated, q_start; /* -1: not given */
    double base;
    prism_rope_layout layout;
} attend_args;

/* ------------------------------------------------------------------------------------------------- input ---- */

/* q, k or v: a view of the file where the library reads its type, a float32 copy elsewhere. */
typedef struct operand {
    int32_t n_head, n_token, d;
    prism_tensor view;
    float *copy;
} operand;

static double f8_e4m3(uint8_t x)
{
    const int exponent = x >> 3 & 15, mantissa = x & 7;
    if ((x & 0x7f) == 0x7f)
        return NAN;
    const double value = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return x & 0x80 ? -value : value;
}

static bool widen(const lm_tensor *t, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint8_t byte = ((const uint8_t *)t->data)[t->dtype == LM_F64 ? 0 : i];
        const uint16_t half = (uint16_t)(byte << 8); /* e5m2 is the upper byte of a float16 */
        switch (t->dtype) {
        case LM_F64: out[i] = (float)((const double *)t->data)[i]; break;
        case LM_F8_E4M3: out[i] = (float)f8_e4m3(byte); break;
        case LM_F8_E5M2: lm_to_float(LM_F16, &half, &out[i], 1); break;
        default: return false;
        }
    }
    return true;
}

static bool load_operand(const lm_safetensors *st, const char *path, const char *name, operand *x, lm_error *err)
{
    const lm_tensor *t = lm_safetensors_find(st, name);
    if (!t)
        return lm_fail(err, LM_ERROR_INPUT, "'%s' has no tensor '%s': it must hold q, k and v", path, name);
    char shape[128];
    lm_shape_text(t->n_dim, t->dim, shape, sizeof shape);
    if (t->n_dim != 3 || t->dim[0] < 1 || t->dim[1] < 1 || t->dim[2] < 1 || t->dim[0] > INT32_MAX ||
        t->dim[1] > INT32_MAX || t->dim[2] > PRISM_MAX_D_HEAD)
        return lm_fail(err, LM_ERROR_INPUT, "'%s': %s has shape %s, it must be [head][token][d] with d up to %d", path,
                       name, shape, PRISM_MAX_D_HEAD);
    *x = (operand){.n_head = (int32_t)t->dim[0], .n_token = (int32_t)t->dim[1], .d = (int32_t)t->dim[2]};
    const int64_t n = t->dim[0] * t->dim[1] * t->dim[2];
    const void *data = t->data;
    prism_dtype dtype = t->dtype == LM_F16 ? PRISM_F16 : t->dtype == LM_BF16 ? PRISM_BF16 : PRISM_F32;
    if (dtype == PRISM_F32 && t->dtype != LM_F32) {
        x->copy = malloc((size_t)n * sizeof *x->copy);
        if (!x->copy)
            return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %s as float32", name);
        if (!widen(t, x->copy, n))
            return lm_fail(err, LM_ERROR_INPUT, "'%s': %s is %s, and must be of a float type", path, name,
                           lm_dtype_name(t->dtype));
        data = x->copy;
    }
    x->view = prism_tensor_head_major((void *)(uintptr_t)data, dtype, x->n_token, x->n_head, x->d);
    return true;
}

static bool check_shapes(const operand *q, const operand *k, const operand *v, const char *path, lm_error *err)
{
    if (k->n_head != v->n_head || k->n_token != v->n_token || k->d != v->d)
        return lm_fail(err, LM_ERROR_INPUT, "'%s': k is [%d][%d][%d] but v is [%d][%d][%d]", path, k->n_head,
                       k->n_token, k->d, v->n_head, v->n_token, v->d);
    if (q->d != k->d || q->n_head % k->n_head)
        return lm_fail(err, LM_ERROR_INPUT, "'%s': q has %d heads of %d, k has %d of %d: they do not go together", path,
                       q->n_head, q->d, k->n_head, k->d);
    return true;
}

/* ------------------------------------------------------------------------------------------------ attend ---- */

typedef struct attend_job {
    operand q, k, v;
    prism_call call;
    prism_bands bands;
    prism_plan *plan;
    void *workspace;
    float *out;
    uint8_t *mask;
    size_t mask_bytes;
    prism_stats stats;
    prism_plan_view view;
} attend_job;

static bool choose_bands(const attend_args *args, int32_t d, int32_t block_size, prism_bands *bands)
{
    prism_rope rope;
    const int32_t n_rotated = args->n_rotated >= 0 ? args->n_rotated : d / 2 * 2;
    if (prism_rope_init(&rope, d) || (n_rotated && prism_rope_add(&rope, args->layout, 0, n_rotated, args->base)))
        return false;
    return !(args->n_high >= 0 ? prism_bands_split(bands, &rope, args->n_high, args->n_low)
                               : prism_bands_auto(bands, &rope, block_size));
}

static int attend(const attend_args *args, prism_ctx *ctx, attend_job *j)
{
    prism_options options = args->method.options;
    prism_call *c = &j->call;
    size_t bytes;
    options.bands = &j->bands;
    prism_call_init(c);
    c->n_head = j->q.n_head;
    c->n_kv_head = j->k.n_head;
    c->d_head = j->q.d;
    c->n_q = j->q.n_token;
    c->n_kv = j->k.n_token;
    c->q_start = args->q_start;
    c->q = j->q.view;
    c->k = j->k.view;
    c->v = j->v.view;
    if (!choose_bands(args, c->d_head, options.block_size, &j->bands))
        return cli_fail(EXIT_USAGE,
                        "a head of %d dimensions cannot be split so: check --high-dims, --low-dims and "
                        "--rope-dims (even, at most %d)",
                        c->d_head, c->d_head);
    prism_status status = prism_plan_create(ctx, c, options.block_size, 0, &j->plan);
    if (!status)
        status = prism_workspace_bytes(ctx, &options, c, &bytes);
    if (status)
        return cli_fail_prism(ctx, status, EXIT_INPUT);
    const size_t n_out = (size_t)c->n_head * (size_t)c->n_q * (size_t)c->d_head;
    j->out = calloc(n_out, sizeof *j->out);
    if (posix_memalign(&j->workspace, 64, bytes))
        j->workspace = NULL;
    if (!j->out || !j->workspace)
        return cli_fail(EXIT_RUN, "out of memory: %zu bytes of workspace, %zu of output", bytes, n_out * sizeof(float));
    c->o = prism_tensor_head_major(j->out, PRISM_F32, c->n_q, c->n_head, c->d_head);
    j->stats.struct_size = sizeof j->stats;
    status = prism_attention(ctx, &options, c, j->plan, j->workspace, bytes, &j->stats);
    return status ? cli_fail_prism(ctx, status, EXIT_INPUT) : EXIT_DONE;
}

static int export_mask(attend_job *j)
{
    j->view.struct_size = sizeof j->view;
    prism_plan_read(j->plan, &j->view);
    j->mask_bytes = (size_t)j->view.n_row * (size_t)j->view.n_kblk;
    j->mask = malloc(j->mask_bytes);
    if (!j->mask || prism_plan_mask(j->plan, j->mask, j->mask_bytes))
        return cli_fail(EXIT_RUN, "out of memory for a mask of %zu bytes", j->mask_bytes);
    return EXIT_DONE;
}

static int write_result(const attend_args *args, const attend_job *j)
{
    lm_error err;
    const prism_call *c = &j->call;
    const lm_tensor tensors[] = {
        {"mask", LM_U8, 3, {c->n_head, j->view.n_qblk, j->view.n_kblk}, j->mask, j->mask_bytes},
        {"out",
         LM_F32,
         3,
         {c->n_head, c->n_q, c->d_head},
         j->out,
         (size_t)c->n_head * (size_t)c->n_q * (size_t)c->d_head * sizeof(float)},
    };
    const char *const method[] = {"method", prism_method_name(args->method.options.method)};
    return lm_safetensors_write(args->out, tensors, 2, method, 1, &err) ? EXIT_DONE : cli_fail_lm(&err);
}

static int64_t count_not_finite(const attend_job *j)
{
    int64_t n = 0;
    const int64_t n_out = (int64_t)j->call.n_head * j->call.n_q * j->call.d_head;
    for (int64_t i = 0; i < n_out; i++)
        n += !isfinite(j->out[i]);
    return n;
}

static int print_result(const attend_args *args, const attend_job *j)
{
    const int64_t n_bad = count_not_finite(j);
    if (n_bad)
        cli_note("%lld outputs are not finite: q, k or v hold NaN or infinite values", (long long)n_bad);
    const prism_stats *s = &j->stats;
    const char *name = prism_method_name(args->method.options.method);
    if (args->method.json) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "method", name);
        cJSON_AddNumberToObject(o, "density", s->density);
        cJSON_AddNumberToObject(o, "blocks_selected", (double)s->n_selected);
        cJSON_AddNumberToObject(o, "blocks_causal", (double)s->n_causal);
        cJSON_AddNumberToObject(o, "selection_seconds", s->select_seconds);
        cJSON_AddNumberToObject(o, "attention_seconds", s->attend_seconds);
        cJSON_AddNumberToObject(o, "not_finite_outputs", (double)n_bad);
        cJSON_AddNumberToObject(o, "high_dims", j->bands.n_high);
        cJSON_AddNumberToObject(o, "low_dims", j->bands.n_low);
        return cli_print_json(o);
    }
    FILE *out = cli_is_stdout(args->out) ? stderr : stdout;
    fprintf(out, "%s: %d heads, %d queries, %d keys, d = %d\n", name, j->call.n_head, j->call.n_q, j->call.n_kv,
            j->call.d_head);
    fprintf(out, "  density    %.4f   (%lld of %lld blocks)\n", s->density, (long long)s->n_selected,
            (long long)s->n_causal);
    fprintf(out, "  selection  %.4f s\n  attention  %.4f s\n", s->select_seconds, s->attend_seconds);
    return EXIT_DONE;
}

static int attend_file(const attend_args *args)
{
    lm_error err;
    lm_safetensors *st = NULL;
    prism_ctx *ctx = NULL;
    attend_job j = {0};
    if (args->method.device.kind != PRISM_DEVICE_CPU)
        return cli_fail(EXIT_USAGE, "attend works on the CPU; run, eval and bench take --device cuda");
    int code = cli_create_context(&args->method.device, args->method.n_thread, &ctx);
    if (code)
        return code;
    if (!lm_safetensors_open(args->in, &st, &err) || !load_operand(st, args->in, "q", &j.q, &err) ||
        !load_operand(st, args->in, "k", &j.k, &err) || !load_operand(st, args->in, "v", &j.v, &err) ||
        !check_shapes(&j.q, &j.k, &j.v, args->in, &err))
        code = cli_fail_lm(&err);
    if (!code)
        code = attend(args, ctx, &j);
    if (!code && args->out)
        code = export_mask(&j);
    if (!code && args->out)
        code = write_result(args, &j);
    if (!code)
        code = print_result(args, &j);
    free(j.q.copy);
    free(j.k.copy);
    free(j.v.copy);
    free(j.out);
    free(j.mask);
    free(j.workspace);
    prism_plan_destroy(j.plan);
    lm_safetensors_close(st);
    prism_destroy(ctx);
    return code;
}

/* --------------------------------------------------------------------------------------------- arguments ---- */

#define AT(field) .offset = offsetof(attend_args, field)

static const char *const layouts[] = {[PRISM_ROPE_HALF_SPLIT] = "half-split", [PRISM_ROPE_INTERLEAVED] = "interleaved"};

static const cli_option rows[] = {
    {"in", "FILE", "safetensors file with q, k, v", CLI_TEXT, AT(in)},
    {"out", "FILE", "write mask and out to FILE; - is stdout", CLI_TEXT, AT(out)},
    {"high-dims", "N", "dimensions of the high-frequency band, with", CLI_INT, AT(n_high), .max = PRISM_MAX_D_HEAD},
    {"low-dims", "N", "dimensions of the low-frequency band (chosen from the frequencies)", CLI_INT, AT(n_low),
     .max = PRISM_MAX_D_HEAD},
    {"rope-base", "R", "base of the rotary frequencies (1e6)", CLI_NUMBER, AT(base), .min = 1.000001,
     .max = 1e300},
    {"rope-dims", "N", "rotated dimensions, from the first (all)", CLI_INT, AT(n_rotated), .max = PRISM_MAX_D_HEAD},
    {"rope-layout", "L", "half-split (default) or interleaved pairs", CLI_CHOICE, AT(layout), .choices = layouts,
     .max = 2},
    {"q-start", "P", "position of the first query (n_kv - n_q)", CLI_INT, AT(q_start), .max = INT32_MAX},
};

static const cli_command command = {
    .name = "attend",
    .intro = "usage: prism attend --in X.safetensors [--out Y.safetensors] [options]\n\n"
             "Causal attention over post-RoPE tensors q [head][n_q][d], k and v [kv head][n_kv][d] of X, any float\n"
             "type; the n_q queries are the last of the n_kv positions. Y gets mask, u8 [head][query block][key\n"
             "block], and out, f32 [head][n_q][d]. Density and seconds are printed.\n\n",
    .end = "\nThe paper's setting is -o min_tokens=0 --calibration global.\n"
           "example: prism attend --in qkv.safetensors --out result.safetensors --top-p 0.9\n",
    .own = rows,
    .n_own = sizeof rows / sizeof *rows,
};

int cli_attend(int argc, char **argv)
{
    attend_args args = {.n_high = -1, .n_low = -1, .n_rotated = -1, .q_start = -1, .base = 1e6};
    bool helped = false;
    cli_method_args_init(&args.method);
    int code = cli_parse(&command, argc, argv, &args, &args.method, &helped);
    if (code || helped)
        return code;
    if (!args.in)
        return cli_fail(EXIT_USAGE, "no input: give a safetensors file with --in");
    if ((args.n_high < 0) != (args.n_low < 0))
        return cli_fail(EXIT_USAGE, "--high-dims and --low-dims go together");
    if (args.method.json && cli_is_stdout(args.out))
        return cli_fail(EXIT_USAGE, "--json and --out %s both write to standard output", args.out);
    code = cli_check_named(&args.method, 1U << args.method.options.method);
    if (!code)
        code = cli_check_output(args.out, (const char *const[]){args.in, NULL});
    return code ? code : attend_file(&args);
}
