/* Every attention kernel of cuda/launch.h by itself, judged by the oracle: shapes, batches, pages, single keys, states,
 * split rows, numbers that are not finite, and which kernel prism_attend_cuda() chooses. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch_case.h"

typedef struct kernel {
    const char *name;
    launch_function *run;
    bool (*takes)(const prism_cu_attend *a, bool padded);
} kernel;

static bool tensor_cores(const prism_cu_attend *a, bool padded)
{
    return a->shape.dtype != PRISM_CU_F32 && a->scale > 0 && !a->key_ptr && !padded;
}

static bool sm90_takes(const prism_cu_attend *a, bool padded)
{
    const int d = a->shape.d_head, tile = d == 256 ? 64 : a->block_size, page = a->k.page_table ? a->k.page_size : tile;
    return launch_compute() == 90 && tensor_cores(a, padded) && (d == 64 || d == 128 || d == 256) && page >= 8 &&
           (page < tile ? tile % page == 0 : page % tile == 0);
}

static bool sm80_takes(const prism_cu_attend *a, bool padded)
{
    return tensor_cores(a, padded) && (a->shape.d_head == 64 || a->shape.d_head == 128);
}

static bool any_takes(const prism_cu_attend *a, bool padded)
{
    (void)a;
    (void)padded;
    return true;
}

static int32_t chosen;

static cudaError_t run_chosen(const prism_cu_attend *a, cudaStream_t stream)
{
    return prism_attend_cuda(a, stream, &chosen);
}

/* The order is the order of choice. */
static const kernel kernels[] = {{"sm90", prism_attend_sm90, sm90_takes},
                                 {"sm80", prism_attend_sm80, sm80_takes},
                                 {"any", prism_attend_any, any_takes},
                                 {"cuda", run_chosen, any_takes}};
enum { n_kernel = sizeof kernels / sizeof kernels[0] };

/* ||o - want|| / ||want||: weights and output are rounded to the dtype. In float32, scores of 20 in units of log2 are
 * rounded once each. */
static const double tolerance[] = {[PRISM_F32] = 1e-5, [PRISM_F16] = 8e-4, [PRISM_BF16] = 6e-3};
/* Of a log-sum-exp: sums of products of 16 bits in float32, and exponentials of the special function unit. */
static const double lse_tolerance = 2e-3;

static void compare(const launch *l, const char *name, const char *what, const launch_answer *want)
{
    for (int s = 0; s < l->c->s.n_seq; s++) {
        launch_answer got = launch_read(l, s);
        ck_ok(launch_same_kind(got.out, want[s].out, got.n_out, l->spec.s.dtype == PRISM_F16), "%s %s%s: sequence %d: not finite, or the reverse", name,
              l->name, what, s);
        const double e = launch_distance(got.out, want[s].out, got.n_out);
        ck_ok(e < tolerance[l->c->s.dtype], "%s %s%s: sequence %d: off by %.2e", name, l->name, what, s, e);
        double worst = 0;
        for (long i = 0; i < got.n_lse; i++)
            if (isfinite(want[s].lse[i]))
                worst = fmax(worst, fabs(got.lse[i] - want[s].lse[i]));
        ck_ok(launch_same_kind(got.lse, want[s].lse, got.n_lse, false) && worst < lse_tolerance,
              "%s %s%s: sequence %d: lse off by %.2e", name, l->name, what, s, worst);
        launch_answer_free(&got);
    }
    ck_ok(case_gaps_untouched(l->c), "%s %s%s: wrote outside the output", name, l->name, what);
    ck_ok(l->ticket[0] == 0 && l->ticket[1] == 0, "%s %s%s: ticket", name, l->name, what);
}

static bool untouched(const launch *l)
{
    const unsigned char *o = l->c->o.memory.data;
    for (size_t i = 0; i < l->c->o.memory.bytes; i++)
        if (o[i] != guard_poison)
            return false;
    return true;
}

/* Every kernel on one case: it computes what it takes, and says so of what it does not take. */
static void check(launch *l, const char *what)
{
    const bool padded = l->c->s.kv_layout == PADDED;
    launch_answer want[MAX_SEQ];
    int first = -1;
    for (int s = 0; s < l->c->s.n_seq; s++)
        want[s] = launch_expect(l, s);
    for (int k = 0; k < n_kernel; k++) {
        if (k == PRISM_CU_ATTEND_SM90 && launch_compute() != 90)
            continue;
        const bool takes = kernels[k].takes(&l->a, padded);
        const cudaError_t error = launch_run(l, kernels[k].run), wanted = takes ? cudaSuccess : cudaErrorNotSupported;
        first = first < 0 && takes ? k : first;
        if (!ck_ok(error == wanted, "%s %s%s: error %d", kernels[k].name, l->name, what, error))
            continue;
        if (takes)
            compare(l, kernels[k].name, what, want);
        else
            ck_ok(untouched(l), "%s %s%s: refused, but wrote", kernels[k].name, l->name, what);
    }
    ck_ok(chosen == first, "%s%s: kernel %d was chosen, not %d", l->name, what, chosen, first);
    for (int s = 0; s < l->c->s.n_seq; s++)
        launch_answer_free(&want[s]);
}

static void check_spec(const launch_spec *spec, rng *r)
{
    launch *l = launch_new(spec, r);
    check(l, "");
    launch_free(l);
}

/* ----------------------------------------------------------------------------------------------- series ---- */

typedef struct line {
    int n_q, n_kv, n_head, n_kv_head;
    launch_spec spec;
} line;

static const line lines[] = {
    {1024, 1024, 4, 1, {.density = 0}},
    {1000, 1000, 4, 2, {.density = 0}},
    {700, 1000, 2, 2, {.density = 0.5}},
    {1537, 2049, 6, 2, {.density = 0.3, .empty = 0.2, .init = true}},
    {2048, 2048, 8, 1, {.density = 0.1, .init = true}},
    {1, 1, 2, 1, {.density = 0}},
    {5, 133, 2, 1, {.init = true}},
    {128, 4096, 2, 1, {.density = 0.5, .split = true}},
    {15, 9000, 8, 1, {.init = true, .split = true}},
    {300, 6000, 2, 1, {.density = 0.6, .empty = 0.3, .init = true, .split = true}},
    {200, 331, 4, 2, {.s = {.n_beyond = 169}, .density = 0.5}},
    {1000, 1500, 4, 2, {.density = 0.3, .full = FLAG_SET}},
    {1000, 1500, 4, 2, {.density = 0.3, .full = FLAG_CLEAR}},
    {1000, 3500, 2, 2, {.density = 0.3, .full = FLAG_SET, .split = true}},
};

static launch_spec spec_of(const line *x, int d, prism_dtype dtype, int block)
{
    launch_spec spec = x->spec;
    launch_lengths(&spec, x->n_q, x->n_kv, x->n_head, x->n_kv_head);
    spec.s.d = d;
    spec.s.dtype = dtype;
    spec.s.block = block;
    return spec;
}

static void check_shapes(int d, prism_dtype dtype, int block, rng *r)
{
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const launch_spec spec = spec_of(&lines[i], d, dtype, block);
        check_spec(&spec, r);
    }
}

/* What is not finite in V, K and Q, in a query's own block and elsewhere: it reaches the rows that see it alone. */
static void check_poison(int d, prism_dtype dtype, int block, rng *r)
{
    static const struct {
        char where;
        double what;
        const char *name;
    } poisons[] = {{'v', NAN, " NaN in v"},        {'v', INFINITY, " Inf in v"}, {'v', -INFINITY, " -Inf in v"},
                   {'k', NAN, " NaN in k"}, {'q', NAN, " NaN in q"}};
    for (size_t i = 0; i < sizeof poisons / sizeof *poisons; i++)
        for (int split = 0; split < 2; split++) {
            const line x = {333, split ? 5000 : 1000, 2, 1, {.density = 0.7, .split = split}};
            const launch_spec spec = spec_of(&x, d, dtype, block);
            launch *l = launch_new(&spec, r);
            const int n = poisons[i].where == 'q' ? x.n_q : x.n_kv, at[] = {n - 1, n - 70, n - 200, 130, 0};
            for (int t = 0; t < 5; t++)
                for (int h = 0; h < (poisons[i].where == 'q' ? 2 : 1); h++)
                    case_poke(l->c, poisons[i].where, 0, h, at[t], at[t] * 7 % d, poisons[i].what);
            check(l, poisons[i].name);
            launch_free(l);
        }
}

/* Ragged batches with lengths on the device, keys packed or in pages; memory between them is NaN. */
static void check_batches(int d, prism_dtype dtype, int block, const int *pages, int n_page, int n_head, int n_kv_head,
                          rng *r)
{
    static const int lengths[2][3][2] = {{{300, 700}, {515, 515}, {1, 2100}}, {{300, 3000}, {40, 40}, {7, 9000}}};
    for (int i = 0; i <= n_page; i++) {
        const bool last = i == n_page;
        const int page = pages[last ? n_page - 1 : i];
        launch_spec spec = {.density = 0.5};
        launch_lengths(&spec, 1, 1, n_head, n_kv_head);
        spec.s.d = d, spec.s.dtype = dtype, spec.s.block = block;
        spec.s.n_seq = 3;
        spec.s.n_beyond = 77;
        spec.s.q_layout = spec.s.o_layout = RAGGED;
        spec.s.kv_layout = page ? PAGED : RAGGED;
        spec.s.page_size = page;
        for (int s = 0; s < 3; s++) {
            spec.s.n_q[s] = lengths[last][s][0];
            spec.s.q_start[s] = lengths[last][s][1] - lengths[last][s][0];
        }
        if (last) {
            spec.split = n_head == 4;
            spec.init = true;
            spec.empty = 0.1;
        }
        check_spec(&spec, r);
    }
}

/* Other dimensions, odd strides, scales of either sign, single keys: without tensor cores. */
static void check_everything_else(prism_dtype dtype, rng *r)
{
    static const int dims[] = {1, 33, 96, 192, 256};
    static const float scales[] = {-0.2f, 0, 3};
    for (int i = 0; i < 5; i++) {
        const line x = {200, 333, 4, 2, {.density = 0.5}};
        launch_spec spec = spec_of(&x, dims[i], dtype, 128);
        if (dims[i] % 2)
            spec.s.q_layout = spec.s.kv_layout = spec.s.o_layout = PADDED;
        check_spec(&spec, r);
    }
    for (int i = 0; i < 3; i++) {
        const line x = {200, 333, 4, 2, {.density = 0.5, .init = true, .has_scale = true, .scale = scales[i]}};
        const launch_spec spec = spec_of(&x, 128, dtype, 128);
        check_spec(&spec, r);
    }
    for (int block = 64; block <= 128; block += 64) {
        const line x[] = {{500, 1333, 4, 2, {.density = 0.2, .keys = 0.1, .empty = 0.2, .init = true}},
                          {100, 4000, 1, 1, {.density = 0.5, .keys = 0.1, .split = true}}};
        for (int i = 0; i < 2; i++) {
            const launch_spec spec = spec_of(&x[i], 128, dtype, block);
            check_spec(&spec, r);
        }
    }
}

/* The same bits every time, also from a graph, and no rows are no error. */
static void check_repeats(const kernel *k, prism_dtype dtype, rng *r)
{
    const line x = {200, 8000, 2, 1, {.density = 0.7, .init = true, .split = true}};
    const launch_spec spec = spec_of(&x, 128, dtype, 128);
    launch *l = launch_new(&spec, r);
    const size_t bytes = l->c->o.memory.bytes;
    char *first = malloc(bytes);
    cudaStream_t stream;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    ck_ok(launch_run(l, k->run) == cudaSuccess, "%s %s", k->name, l->name);
    memcpy(first, l->c->o.memory.data, bytes);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
    const cudaError_t error = k->run(&l->a, stream);
    cudaStreamEndCapture(stream, &graph);
    if (ck_ok(error == cudaSuccess && cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess, "%s: no graph", k->name))
        for (int i = 0; i < 5; i++) {
            case_poison_outputs(l->c);
            const bool ran = cudaGraphLaunch(exec, stream) == cudaSuccess && cudaStreamSynchronize(stream) == cudaSuccess;
            ck_ok(ran && !memcmp(first, l->c->o.memory.data, bytes) && !l->ticket[0] && !l->ticket[1],
                  "%s: a graph gives other bits", k->name);
        }
    l->a.shape.n_qblk = 0;
    ck_ok(launch_run(l, k->run) == cudaSuccess && untouched(l), "%s: no rows", k->name);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    free(first);
    launch_free(l);
}

void ck_launch_attend(void)
{
    static const int dims[] = {128, 64, 256, 80, 72}, pages[] = {0, 1, 8, 16, 64, 128, 256}, few[] = {0, 16, 64};
    static const int two[] = {0, 64}, odd[] = {0, 1, 7};
    rng r = ck_rng("launch attend");
    for (int i = 0; i < 5; i++)
        for (int dtype = dims[i] == 64 || dims[i] == 256 ? PRISM_F16 : PRISM_F32; dtype <= PRISM_BF16; dtype++)
            for (int block = 64; block <= 128; block += 64) {
                check_shapes(dims[i], (prism_dtype)dtype, block, &r);
                check_poison(dims[i], (prism_dtype)dtype, block, &r);
            }
    check_batches(128, PRISM_BF16, 128, pages, 7, 4, 2, &r);
    check_batches(64, PRISM_F16, 64, few, 3, 4, 2, &r);
    check_batches(128, PRISM_BF16, 128, two, 2, 32, 8, &r); /* more rows than multiprocessors */
    check_batches(40, PRISM_F32, 64, odd, 3, 4, 2, &r);
    const line many[] = {{4000, 4100, 16, 2, {.density = 0.2, .init = true}}, {4000, 4100, 16, 2, {.density = 0}}};
    for (int i = 0; i < 2; i++) {
        const launch_spec spec = spec_of(&many[i], 128, PRISM_BF16, i ? 64 : 128);
        check_spec(&spec, &r);
    }
    for (int dtype = PRISM_F32; dtype <= PRISM_BF16; dtype++)
        check_everything_else((prism_dtype)dtype, &r);
    for (int k = launch_compute() == 90 ? 0 : 1; k < n_kernel; k++)
        check_repeats(&kernels[k], PRISM_BF16, &r);
}
