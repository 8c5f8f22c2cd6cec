/*
 * Against the authors' own code: block masks and outputs recorded from it (tests/golden/pack.py).
 *
 *   test_golden FILE ...      packed files, or the full recordings
 *
 * Selection equals the float64 masks except for blocks whose probability lies within 1e-5 of the row's cut, and at
 * least 99.4 % of the authors' blocks (their arithmetic is bf16). Outputs over the authors' plan are within bf16
 * rounding.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cases.h"

enum { n_head = 4, n_kv_head = 2, n_token = 4096, d_head = 128, block = 128, n_blk = n_token / block };

static int n_fail;

static void fail_if(bool bad, const char *what)
{
    if (bad) {
        printf("FAIL: %s\n", what);
        n_fail++;
    }
}

/* ----------------------------------------------------------------------------------------- safetensors ---- */

typedef struct recording {
    const char *path, *header, *data;
} recording;

static recording recording_open(const char *path)
{
    recording r = {.path = path};
    struct stat st;
    const int fd = open(path, O_RDONLY);
    uint64_t n;
    const char *map = fd >= 0 && !fstat(fd, &st) ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (!map || map == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    memcpy(&n, map, 8);
    r.header = strndup(map + 8, n);
    r.data = map + 8 + n;
    return r;
}

/* The bytes of a tensor, NULL if the file lacks it. The files are our own: no more parsing than they need. */
static const void *find(const recording *r, const char *name, size_t *bytes)
{
    char key[64];
    unsigned long begin, end;
    snprintf(key, sizeof key, "\"%s\":{", name);
    const char *at = strstr(r->header, key);
    at = at ? strstr(at, "\"data_offsets\":[") : NULL;
    if (!at || sscanf(at, "\"data_offsets\":[%lu,%lu]", &begin, &end) != 2)
        return NULL;
    *bytes = end - begin;
    return r->data + begin;
}

/* Masks come one byte a block or one bit a block. */
static void read_mask(const recording *r, const char *name, uint8_t mask[n_head][n_blk][n_blk])
{
    size_t bytes;
    const uint8_t *x = find(r, name, &bytes);
    if (!x) {
        printf("%s lacks %s\n", r->path, name);
        exit(2);
    }
    for (size_t i = 0; i < n_head * n_blk * n_blk; i++)
        ((uint8_t *)mask)[i] = bytes == n_head * n_blk * n_blk ? x[i] : x[i / 8] >> i % 8 & 1;
}

/* ------------------------------------------------------------------------------------------- selection ---- */

typedef struct agreement {
    long n, differ, outside;
} agreement;

/* Of head h: blocks where ours and theirs differ, and how many of these lie further than 1e-5 from the cut, the
 * smallest probability that is kept, in both bands. */
static void compare(const oracle_seq *s, const oracle_rule *rule, int h, uint8_t ours[n_blk][n_blk],
                    uint8_t theirs[n_blk][n_blk], const double *q_mean, const double *k_mean, agreement *sum)
{
    for (int i = 0; i < n_blk; i++) {
        bool near[n_blk] = {false}, keep[n_blk];
        for (int band = 0; band < 2; band++) {
            double x[n_blk], cut = 2;
            oracle_logits(s, rule, band, h, i, q_mean, k_mean, x);
            oracle_softmax(x, i + 1);
            oracle_topp(x, i + 1, rule->top_p[band], keep);
            for (int v = 0; v <= i; v++)
                cut = keep[v] && x[v] < cut ? x[v] : cut;
            for (int v = 0; v <= i; v++)
                near[v] |= fabs(x[v] - cut) <= 1e-5;
        }
        for (int v = 0; v <= i; v++) {
            const bool differ = ours[i][v] != theirs[i][v];
            sum->n++;
            sum->differ += differ;
            sum->outside += differ && !near[v];
        }
    }
}

static void report(const char *what, const agreement *a)
{
    printf("  %-28s %5ld blocks, %3ld differ (%.3f %% equal), %ld of them away from the cut\n", what, a->n, a->differ,
           100.0 - 100.0 * (double)a->differ / (double)a->n, a->outside);
}

static double *widen(const void *x, prism_dtype dtype, long n)
{
    double *y = malloc((size_t)n * sizeof *y);
    for (long i = 0; y && i < n; i++)
        y[i] = value_decode(dtype, (const char *)x + (size_t)i * prism_dtype_bytes(dtype));
    return y;
}

static prism_options options_for(double p, const prism_bands *bands)
{
    prism_options o;
    prism_options_init(&o);
    o.calibration = PRISM_CALIBRATION_GLOBAL; /* the goldens', which is the paper's */
    o.top_p = (float)p;
    o.bands = bands;
    o.min_tokens = 0;
    return o;
}

static prism_bands paper_bands(void)
{
    prism_rope rope;
    prism_bands bands;
    prism_rope_init(&rope, d_head);
    prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, d_head, 1e6);
    prism_bands_split(&bands, &rope, 64, 96);
    return bands;
}

static prism_call call_for(int heads, int kv_heads, prism_tensor q, prism_tensor k)
{
    prism_call call;
    prism_call_init(&call);
    call.n_head = heads;
    call.n_kv_head = kv_heads;
    call.d_head = d_head;
    call.n_q = call.n_kv = n_token;
    call.q = q;
    call.k = k;
    return call;
}

/* Plans of `heads` heads, the first of which is head `first` of the recording, against both recorded masks. */
static void check_plan(const recording *r, prism_isa isa, prism_call *call, int first, const double *q_mean,
                       const double *k_mean, const char *what)
{
    const prism_bands bands = paper_bands();
    prism_ctx *ctx = context_new(isa, 2);
    for (int p = 90; p <= 95; p += 5) {
        uint8_t float64[n_head][n_blk][n_blk], authors[n_head][n_blk][n_blk];
        char name[32];
        snprintf(name, sizeof name, "mask_float64_p%d", p);
        read_mask(r, name, float64);
        snprintf(name, sizeof name, "mask_authors_p%d", p);
        read_mask(r, name, authors);
        int dims[2][PRISM_MAX_D_HEAD];
        const prism_options o = options_for(p / 100.0, &bands);
        const oracle_rule rule = rule_of(&o, dims);
        runner run = runner_new(ctx, &o, call);
        if (runner_plan(&run, &o, call))
            fail_if(true, prism_last_error(ctx));
        const oracle_seq s = {.n_head = n_head,
                              .n_kv_head = n_kv_head,
                              .d = d_head,
                              .n_q = n_token,
                              .block = block,
                              .scale = 1 / sqrt(d_head)};
        agreement exact = {0, 0, 0}, own = {0, 0, 0};
        for (int h = 0; h < call->n_head; h++) {
            uint8_t(*ours)[n_blk] = (uint8_t(*)[n_blk])runner_mask_row(&run, 0, h, 0);
            compare(&s, &rule, first + h, ours, float64[first + h], q_mean, k_mean, &exact);
            compare(&s, &rule, first + h, ours, authors[first + h], q_mean, k_mean, &own);
        }
        char line[64];
        snprintf(line, sizeof line, "%s p %.2f float64", what, p / 100.0);
        report(line, &exact);
        snprintf(line, sizeof line, "%s p %.2f authors", what, p / 100.0);
        report(line, &own);
        fail_if(exact.outside > 0, "a block away from the cut differs from the float64 mask");
        if (call->n_head == n_head) /* a share of one head's 528 blocks is too coarse to judge */
            fail_if((double)own.differ > 0.006 * (double)own.n, "less than 99.4 % of the authors' blocks");
        runner_free(&run);
    }
    prism_destroy(ctx);
}

/* ------------------------------------------------------------------------------------------------ output ---- */

/*
 * Attention over the authors' own plan against their output. Their kernel rounds each weight p to bf16 before P V (2^-8
 * relative, half a step of 8 bits) and the result once more; scores and sums are float32 on both sides. So a component
 * is within 2^-8 (sum p |v| + |o|), and 2^-12 of slack for all float32 roundings.
 */
static void check_output(const recording *r, prism_call *call, int first, int heads, int step, const void *q,
                         const void *k, const void *v)
{
    size_t bytes;
    const char *want = find(r, "out_p95", &bytes);
    uint8_t authors[n_head][n_blk][n_blk];
    read_mask(r, "mask_authors_p95", authors);
    prism_ctx *ctx = context_new(PRISM_ISA_AUTO, 2);
    const prism_bands bands = paper_bands();
    const prism_options o = options_for(0.95, &bands);
    float *out = malloc((size_t)heads * n_token * d_head * sizeof *out);
    call->o = prism_tensor_head_major(out, PRISM_F32, n_token, heads, d_head);
    runner run = runner_new(ctx, &o, call);
    fail_if(prism_plan_from_mask(ctx, call, block, authors[first][0], (size_t)heads * n_blk * n_blk, run.plan) ||
                runner_attend(&run, call),
            prism_last_error(ctx));
    double worst = 0, error = 0;
    const int group = heads / call->n_kv_head;
    for (int h = 0; h < heads; h++) {
        double *dq = widen((const uint16_t *)q + (long)h * n_token * d_head, PRISM_BF16, (long)n_token * d_head);
        double *dk =
            widen((const uint16_t *)k + (long)(h / group) * n_token * d_head, PRISM_BF16, (long)n_token * d_head);
        double *dv =
            widen((const uint16_t *)v + (long)(h / group) * n_token * d_head, PRISM_BF16, (long)n_token * d_head);
        for (long i = 0; i < (long)n_token * d_head; i++)
            dv[i] = fabs(dv[i]);
        for (int t = 0; t < n_token; t += 8) {
            double magnitude[d_head];
            const oracle_seq s = {1, 1, d_head, 1, t, block, 1 / sqrt(d_head), dq + (long)t * d_head, dk, dv};
            oracle_attend(&s, authors[first + h][t / block], magnitude, NULL);
            for (int j = 0; j < d_head; j++) {
                const long at = ((long)h * (n_token / step) + t / step) * d_head + j;
                const double theirs = value_decode(PRISM_BF16, want + at * 2);
                const double off = fabs((double)out[((long)h * n_token + t) * d_head + j] - theirs);
                const double bound = 0x1p-8 * (magnitude[j] + fabs(theirs)) + 0x1p-12 * magnitude[j];
                worst = fmax(worst, off / bound);
                error = fmax(error, off);
            }
        }
        free(dq);
        free(dk);
        free(dv);
    }
    printf("  output: off by at most %.4g, %.3f of the bound\n", error, worst);
    fail_if(!(worst <= 1), "an output is further from the authors' than bf16 rounding explains");
    runner_free(&run);
    prism_destroy(ctx);
    free(out);
}

/* ------------------------------------------------------------------------------------------------ files ---- */

static double *means_of(const recording *r, const char *stored, const void *x, int heads)
{
    size_t bytes;
    const void *mean = find(r, stored, &bytes);
    const long n = (long)heads * n_blk * d_head;
    if (mean)
        return widen(mean, PRISM_F32, n);
    double *rows = widen(x, PRISM_BF16, (long)heads * n_token * d_head), *out = malloc((size_t)n * sizeof *out);
    for (int h = 0; h < heads; h++)
        oracle_means(rows + (long)h * n_token * d_head, 0, n_token, d_head, block, out + (long)h * n_blk * d_head);
    free(rows);
    return out;
}

/* A packed file has the means of all heads: a gather index repeats each of them over its block. */
static void check_all_by_means(const recording *r, prism_isa isa, const double *q_mean, const double *k_mean)
{
    static int32_t gather[n_token];
    size_t bytes;
    for (int t = 0; t < n_token; t++)
        gather[t] = t / block;
    prism_tensor q = prism_tensor_head_major((void *)find(r, "q_mean", &bytes), PRISM_F32, n_blk, n_head, d_head);
    prism_tensor k = prism_tensor_head_major((void *)find(r, "k_mean", &bytes), PRISM_F32, n_blk, n_kv_head, d_head);
    for (int i = 0; i < 2; i++) {
        prism_tensor *x = i ? &k : &q;
        x->page_table = gather;
        x->stride_table = n_token;
        x->page_size = 1;
        x->n_page = n_blk;
        x->stride_page = d_head;
    }
    prism_call call = call_for(n_head, n_kv_head, q, k);
    check_plan(r, isa, &call, 0, q_mean, k_mean, "all heads");
}

static void check_file(const char *path)
{
    const recording r = recording_open(path);
    size_t bytes;
    const int32_t *head = find(&r, "head", &bytes); /* packed files hold one head */
    const void *q = find(&r, "q", &bytes), *k = find(&r, "k", &bytes), *v = find(&r, "v", &bytes);
    const int first = head ? *head : 0, heads = head ? 1 : n_head, kv_heads = head ? 1 : n_kv_head;
    double *q_mean = means_of(&r, "q_mean", q, n_head), *k_mean = means_of(&r, "k_mean", k, n_kv_head);
    prism_call call = call_for(heads, kv_heads, prism_tensor_head_major((void *)q, PRISM_BF16, n_token, heads, d_head),
                               prism_tensor_head_major((void *)k, PRISM_BF16, n_token, kv_heads, d_head));
    for (int isa = PRISM_ISA_C; isa < PRISM_N_ISA; isa++) {
        prism_ctx *probe = context_new((prism_isa)isa, 1);
        if (!probe)
            continue;
        prism_destroy(probe);
        printf("%s, tier %d\n", strrchr(path, '/') ? strrchr(path, '/') + 1 : path, isa);
        check_plan(&r, (prism_isa)isa, &call, first, q_mean, k_mean, head ? "one head " : "all heads");
        if (head)
            check_all_by_means(&r, (prism_isa)isa, q_mean, k_mean);
    }
    if (v) {
        call.v = prism_tensor_head_major((void *)v, PRISM_BF16, n_token, kv_heads, d_head);
        check_output(&r, &call, first, heads, head ? 8 : 1, q, k, v);
    }
    free(q_mean);
    free(k_mean);
    free((void *)r.header);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        check_file(argv[i]);
    return n_fail > 0 || argc < 2;
}
