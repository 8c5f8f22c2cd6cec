/*
 * cuDNN's attention as a graph of small operations, which its engines recognise and run as one kernel:
 *
 *   scores = Q K^T;  kept = row >= column ? scale scores : -inf;  O = exp(kept - max) / sum V
 *
 * Axes are [sequence][head][row][column]. Virtual tensors, all but Q, K, V and O, never exist.
 */
#include "cudnn.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cudnn_api.h"
#include "lm/library.h"

enum { OLDEST = 91002 }; /* 9.10.0 and 9.10.1 are known to err; older ones want another value than -inf */
enum { MAX_DESCRIPTORS = 96, MAX_CONFIGS = 16, MAX_OPERATIONS = 16 };

/* What the plan is given at every run: unique ids, and places in the list of pointers. */
enum { Q, K, V, O, SCALE, MINUS_INFINITY, N_POINTER };

struct bench_cudnn {
    lm_backend *device;
    void *handle;
    void *descriptors[MAX_DESCRIPTORS]; /* all that were made, for the end */
    int n_descriptor;
    void *operations[MAX_OPERATIONS];
    int n_operation;
    int64_t next_id; /* of a virtual tensor */
    int status;      /* the first that was not success; nothing is done after it */
    const char *failed;
    void *plan, *pack;
    void *workspace;
    int64_t workspace_bytes;
    float scale, minus_infinity;
};

/* --------------------------------------------------------------------------------------------- library ---- */

static cudnn_functions cudnn;

static bool load(lm_error *err)
{
    static const char *const names[] = {"libcudnn.so.9", NULL};
    static const lm_symbol symbols[] = {
        {"cudnnGetVersion", &cudnn.version},
        {"cudnnGetErrorString", &cudnn.status_name},
        {"cudnnCreate", &cudnn.create},
        {"cudnnDestroy", &cudnn.destroy},
        {"cudnnSetStream", &cudnn.set_stream},
        {"cudnnBackendCreateDescriptor", &cudnn.create_descriptor},
        {"cudnnBackendDestroyDescriptor", &cudnn.destroy_descriptor},
        {"cudnnBackendSetAttribute", &cudnn.set_attribute},
        {"cudnnBackendGetAttribute", &cudnn.get_attribute},
        {"cudnnBackendFinalize", &cudnn.finalize},
        {"cudnnBackendExecute", &cudnn.execute},
    };
    static const char *const wanted[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
    static bool loaded;
    if (!loaded) /* without cuBLASLt cuDNN would end the process */
        loaded = lm_library_load("cuDNN", names, symbols, sizeof symbols / sizeof *symbols, err) &&
                 lm_library_load("cuBLASLt, which cuDNN needs,", wanted, NULL, 0, err);
    return loaded;
}

static void version_text(char *text, size_t n)
{
    const size_t version = cudnn.version();
    snprintf(text, n, "%zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
}

bool bench_peer_version(char *text, size_t n, lm_error *err)
{
    if (!load(err))
        return false;
    version_text(text, n);
    return true;
}

static bool fail(const bench_cudnn *c, lm_error_kind kind, lm_error *err)
{
    char version[32];
    version_text(version, sizeof version);
    return lm_fail(err, kind, "cuDNN %s failed at %s: %s (CUDNN_LOGLEVEL_DBG=2 CUDNN_LOGDEST_DBG=stderr tells more)",
                   version, c->failed, cudnn.status_name(c->status));
}

/* ----------------------------------------------------------------------------------------- descriptors ---- */

static void note(bench_cudnn *c, int status, const char *what)
{
    if (c->status == STATUS_SUCCESS && status != STATUS_SUCCESS) {
        c->status = status;
        c->failed = what;
    }
}

static void *make(bench_cudnn *c, int type)
{
    void *descriptor = NULL;
    if (c->status != STATUS_SUCCESS)
        return NULL;
    assert(c->n_descriptor < MAX_DESCRIPTORS);
    note(c, cudnn.create_descriptor(type, &descriptor), "making a descriptor");
    c->descriptors[c->n_descriptor++] = descriptor;
    return descriptor;
}

static void set(bench_cudnn *c, void *descriptor, int name, int type, int64_t count, const void *values)
{
    if (c->status == STATUS_SUCCESS)
        note(c, cudnn.set_attribute(descriptor, name, type, count, values), "setting an attribute");
}

/* How many values there are; up to `wanted` of them are written. */
static int64_t get(bench_cudnn *c, void *descriptor, int name, int type, int64_t wanted, void *values)
{
    int64_t n = 0;
    if (c->status == STATUS_SUCCESS)
        note(c, cudnn.get_attribute(descriptor, name, type, wanted, &n, values), "reading an attribute");
    return n;
}

static void set_descriptor(bench_cudnn *c, void *descriptor, int name, void *value)
{
    set(c, descriptor, name, TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finalize(bench_cudnn *c, void *descriptor, const char *what)
{
    if (c->status == STATUS_SUCCESS)
        note(c, cudnn.finalize(descriptor), what);
}

/* --------------------------------------------------------------------------------------------- tensors ---- */

static void *tensor(bench_cudnn *c, const int64_t dims[4], const int64_t strides[4], int data_type, int64_t id)
{
    void *t = make(c, BACKEND_TENSOR_DESCRIPTOR);
    const int64_t alignment = 16;
    const bool by_value = id == SCALE || id == MINUS_INFINITY, is_virtual = id >= N_POINTER;
    set(c, t, ATTR_TENSOR_DATA_TYPE, TYPE_DATA_TYPE, 1, &data_type);
    set(c, t, ATTR_TENSOR_DIMENSIONS, TYPE_INT64, 4, dims);
    set(c, t, ATTR_TENSOR_STRIDES, TYPE_INT64, 4, strides);
    set(c, t, ATTR_TENSOR_UNIQUE_ID, TYPE_INT64, 1, &id);
    set(c, t, ATTR_TENSOR_BYTE_ALIGNMENT, TYPE_INT64, 1, &alignment);
    set(c, t, ATTR_TENSOR_IS_VIRTUAL, TYPE_BOOLEAN, 1, &is_virtual);
    set(c, t, ATTR_TENSOR_IS_BY_VALUE, TYPE_BOOLEAN, 1, &by_value);
    finalize(c, t, "describing a tensor");
    return t;
}

static int element_type(prism_dtype dtype)
{
    return dtype == PRISM_BF16 ? DATA_BFLOAT16 : DATA_HALF;
}

/* One of the call's tensors, [head][token][d]; K with its last two axes exchanged. */
static void *operand(bench_cudnn *c, const prism_tensor *t, int64_t n_head, int64_t n_token, int64_t d, int64_t id)
{
    const int64_t whole = n_token * t->stride_token; /* of the only sequence: never used */
    const int64_t dims[4] = {1, n_head, n_token, d}, strides[4] = {whole, t->stride_head, t->stride_token, 1};
    const int64_t turned[4] = {1, n_head, d, n_token}, turned_strides[4] = {whole, t->stride_head, 1, t->stride_token};
    const int type = element_type(t->dtype);
    return id == K ? tensor(c, turned, turned_strides, type, id) : tensor(c, dims, strides, type, id);
}

static void *scalar(bench_cudnn *c, int64_t id)
{
    const int64_t one[4] = {1, 1, 1, 1};
    return tensor(c, one, one, DATA_FLOAT, id);
}

/* A virtual tensor over rows and columns of every head. */
static void *between(bench_cudnn *c, const prism_call *call, int64_t n_column, int data_type)
{
    const int64_t h = call->n_head, n = call->n_q;
    const int64_t dims[4] = {1, h, n, n_column}, strides[4] = {h * n * n_column, n * n_column, n_column, 1};
    return tensor(c, dims, strides, data_type, c->next_id++);
}

/* ------------------------------------------------------------------------------------------ operations ---- */

static void add_operation(bench_cudnn *c, void *operation)
{
    finalize(c, operation, "describing an operation");
    assert(c->n_operation < MAX_OPERATIONS);
    c->operations[c->n_operation++] = operation;
}

static void matmul(bench_cudnn *c, void *a, void *b, void *product)
{
    void *how = make(c, BACKEND_MATMUL_DESCRIPTOR);
    const int compute = DATA_FLOAT;
    set(c, how, ATTR_MATMUL_COMP_TYPE, TYPE_DATA_TYPE, 1, &compute);
    finalize(c, how, "describing a matrix product");
    void *operation = make(c, BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_descriptor(c, operation, ATTR_OPERATION_MATMUL_ADESC, a);
    set_descriptor(c, operation, ATTR_OPERATION_MATMUL_BDESC, b);
    set_descriptor(c, operation, ATTR_OPERATION_MATMUL_CDESC, product);
    set_descriptor(c, operation, ATTR_OPERATION_MATMUL_DESC, how);
    add_operation(c, operation);
}

/* y = op x, x op b, or t ? x : b. */
typedef struct inputs {
    void *x, *b, *t;
    int64_t axis; /* of POINTWISE_GEN_INDEX */
} inputs;

static void pointwise(bench_cudnn *c, int mode, const inputs *in, void *y)
{
    void *how = make(c, BACKEND_POINTWISE_DESCRIPTOR);
    const int compute = mode == POINTWISE_CMP_GE ? DATA_BOOLEAN : DATA_FLOAT;
    set(c, how, ATTR_POINTWISE_MODE, TYPE_POINTWISE_MODE, 1, &mode);
    set(c, how, ATTR_POINTWISE_MATH_PREC, TYPE_DATA_TYPE, 1, &compute);
    if (mode == POINTWISE_GEN_INDEX)
        set(c, how, ATTR_POINTWISE_AXIS, TYPE_INT64, 1, &in->axis);
    finalize(c, how, "describing a pointwise operation");
    void *operation = make(c, BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(c, operation, ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_descriptor(c, operation, ATTR_OPERATION_POINTWISE_XDESC, in->x);
    if (in->b)
        set_descriptor(c, operation, ATTR_OPERATION_POINTWISE_BDESC, in->b);
    if (in->t)
        set_descriptor(c, operation, ATTR_OPERATION_POINTWISE_TDESC, in->t);
    set_descriptor(c, operation, ATTR_OPERATION_POINTWISE_YDESC, y);
    add_operation(c, operation);
}

/* Over the columns. */
static void reduce(bench_cudnn *c, int what, void *x, void *y)
{
    void *how = make(c, BACKEND_REDUCTION_DESCRIPTOR);
    const int compute = DATA_FLOAT;
    set(c, how, ATTR_REDUCTION_OPERATOR, TYPE_REDUCTION_OPERATOR_TYPE, 1, &what);
    set(c, how, ATTR_REDUCTION_COMP_TYPE, TYPE_DATA_TYPE, 1, &compute);
    finalize(c, how, "describing a reduction");
    void *operation = make(c, BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_descriptor(c, operation, ATTR_OPERATION_REDUCTION_XDESC, x);
    set_descriptor(c, operation, ATTR_OPERATION_REDUCTION_YDESC, y);
    set_descriptor(c, operation, ATTR_OPERATION_REDUCTION_DESC, how);
    add_operation(c, operation);
}

/* ----------------------------------------------------------------------------------------------- graph ---- */

/* Scores times scale, -inf behind the diagonal. */
static void *describe_scores(bench_cudnn *c, const prism_call *call, void *q, void *k)
{
    const int64_t n = call->n_kv;
    void *products = between(c, call, n, DATA_FLOAT), *scaled = between(c, call, n, DATA_FLOAT);
    matmul(c, q, k, products);
    pointwise(c, POINTWISE_MUL, &(inputs){.x = products, .b = scalar(c, SCALE)}, scaled);

    void *row = between(c, call, n, DATA_INT32), *column = between(c, call, n, DATA_INT32);
    void *causal = between(c, call, n, DATA_BOOLEAN), *scores = between(c, call, n, DATA_FLOAT);
    pointwise(c, POINTWISE_GEN_INDEX, &(inputs){.x = scaled, .axis = 2}, row);
    pointwise(c, POINTWISE_GEN_INDEX, &(inputs){.x = scaled, .axis = 3}, column);
    pointwise(c, POINTWISE_CMP_GE, &(inputs){.x = row, .b = column}, causal);
    pointwise(c, POINTWISE_BINARY_SELECT, &(inputs){.x = scaled, .b = scalar(c, MINUS_INFINITY), .t = causal}, scores);
    return scores;
}

/* The log-sum-exp is nobody's, but without its two operations no engine knows the graph. */
static void *describe_softmax(bench_cudnn *c, const prism_call *call, void *scores, int element)
{
    const int64_t n = call->n_kv;
    void *max = between(c, call, 1, DATA_FLOAT), *below = between(c, call, n, DATA_FLOAT);
    void *mass = between(c, call, n, DATA_FLOAT), *sum = between(c, call, 1, DATA_FLOAT);
    void *log_sum = between(c, call, 1, DATA_FLOAT), *log_sum_exp = between(c, call, 1, DATA_FLOAT);
    void *weights = between(c, call, n, element);
    reduce(c, REDUCE_TENSOR_MAX, scores, max);
    pointwise(c, POINTWISE_SUB, &(inputs){.x = scores, .b = max}, below);
    pointwise(c, POINTWISE_EXP, &(inputs){.x = below}, mass);
    reduce(c, REDUCE_TENSOR_ADD, mass, sum);
    pointwise(c, POINTWISE_LOG, &(inputs){.x = sum}, log_sum);
    pointwise(c, POINTWISE_ADD, &(inputs){.x = max, .b = log_sum}, log_sum_exp);
    pointwise(c, POINTWISE_DIV, &(inputs){.x = mass, .b = sum}, weights);
    return weights;
}

static void describe_attention(bench_cudnn *c, const prism_call *call)
{
    const int64_t n = call->n_kv, d = call->d_head;
    void *q = operand(c, &call->q, call->n_head, n, d, Q), *k = operand(c, &call->k, call->n_kv_head, n, d, K);
    void *v = operand(c, &call->v, call->n_kv_head, n, d, V), *o = operand(c, &call->o, call->n_head, n, d, O);
    void *scores = describe_scores(c, call, q, k);
    matmul(c, describe_softmax(c, call, scores, element_type(call->q.dtype)), v, o);
}

/* ------------------------------------------------------------------------------------------------ plan ---- */

/* The first of the proposals, best first, that this GPU can run. */
static void choose_plan(bench_cudnn *c, void *heuristics)
{
    void *configs[MAX_CONFIGS];
    for (int i = 0; i < MAX_CONFIGS; i++)
        configs[i] = make(c, BACKEND_ENGINECFG_DESCRIPTOR);
    const int64_t n = get(c, heuristics, ATTR_ENGINEHEUR_RESULTS, TYPE_BACKEND_DESCRIPTOR, MAX_CONFIGS, configs);
    for (int64_t i = 0; c->status == STATUS_SUCCESS && !c->plan && i < n && i < MAX_CONFIGS; i++) {
        void *plan = make(c, BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        set_descriptor(c, plan, ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs[i]);
        if (c->status == STATUS_SUCCESS && cudnn.finalize(plan) == STATUS_SUCCESS)
            c->plan = plan;
    }
    if (!c->plan)
        note(c, STATUS_NOT_SUPPORTED, "finding an engine for such attention on this GPU");
}

static bool make_plan(bench_cudnn *c, const prism_call *call, lm_error *err)
{
    const int mode = HEUR_MODE_A;
    describe_attention(c, call);
    void *graph = make(c, BACKEND_OPERATIONGRAPH_DESCRIPTOR), *heuristics = make(c, BACKEND_ENGINEHEUR_DESCRIPTOR);
    set(c, graph, ATTR_OPERATIONGRAPH_OPS, TYPE_BACKEND_DESCRIPTOR, c->n_operation, c->operations);
    set(c, graph, ATTR_OPERATIONGRAPH_HANDLE, TYPE_HANDLE, 1, &c->handle);
    finalize(c, graph, "describing attention");
    set_descriptor(c, heuristics, ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(c, heuristics, ATTR_ENGINEHEUR_MODE, TYPE_HEUR_MODE, 1, &mode);
    finalize(c, heuristics, "choosing engines");
    choose_plan(c, heuristics);
    if (c->status != STATUS_SUCCESS)
        return fail(c, LM_ERROR_UNSUPPORTED, err);
    get(c, c->plan, ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, TYPE_INT64, 1, &c->workspace_bytes);
    return c->status == STATUS_SUCCESS || fail(c, LM_ERROR_RUN, err);
}

/* What every run hands over: the tensors, the two numbers, the workspace. */
static bool pack(bench_cudnn *c, const prism_call *call, lm_error *err)
{
    c->scale = call->scale != 0 ? call->scale : 1 / sqrtf((float)call->d_head);
    c->minus_infinity = -INFINITY;
    if (c->workspace_bytes > 0) {
        c->workspace = c->device->ops->allocate(c->device, (size_t)c->workspace_bytes);
        if (!c->workspace)
            return lm_fail(err, LM_ERROR_MEMORY, "no memory on the GPU for cuDNN's workspace, %lld bytes",
                           (long long)c->workspace_bytes);
    }
    void *pointers[N_POINTER] = {call->q.data, call->k.data, call->v.data, call->o.data, &c->scale, &c->minus_infinity};
    const int64_t ids[N_POINTER] = {Q, K, V, O, SCALE, MINUS_INFINITY};
    c->pack = make(c, BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(c, c->pack, ATTR_VARIANT_PACK_UNIQUE_IDS, TYPE_INT64, N_POINTER, ids);
    set(c, c->pack, ATTR_VARIANT_PACK_DATA_POINTERS, TYPE_VOID_PTR, N_POINTER, pointers);
    set(c, c->pack, ATTR_VARIANT_PACK_WORKSPACE, TYPE_VOID_PTR, 1, &c->workspace);
    finalize(c, c->pack, "taking the tensors");
    return c->status == STATUS_SUCCESS || fail(c, LM_ERROR_RUN, err);
}

/* ------------------------------------------------------------------------------------------ life cycle ---- */

static bool check(const lm_backend *device, const prism_call *call, lm_error *err)
{
    if (device->on_host)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "cuDNN computes on a GPU");
    if (!load(err))
        return false;
    if (cudnn.version() < OLDEST) {
        char version[32];
        version_text(version, sizeof version);
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "cuDNN %s is too old, 9.10.2 is wanted", version);
    }
    if (call->q.dtype == PRISM_F32 || call->n_seq != 1 || call->n_q != call->n_kv || call->q.stride_dim != 1)
        return lm_fail(err, LM_ERROR_UNSUPPORTED,
                       "cuDNN attends over float16 or bfloat16, and is asked for one whole sequence");
    return true;
}

static bool start(bench_cudnn *c, const prism_call *call, lm_error *err)
{
    note(c, cudnn.create(&c->handle), "starting");
    if (c->status == STATUS_SUCCESS)
        note(c, cudnn.set_stream(c->handle, c->device->stream), "taking the stream");
    if (c->status != STATUS_SUCCESS)
        return fail(c, LM_ERROR_RUN, err);
    return make_plan(c, call, err) && pack(c, call, err);
}

bool bench_cudnn_create(lm_backend *device, const prism_call *call, bench_cudnn **out, lm_error *err)
{
    if (!check(device, call, err))
        return false;
    bench_cudnn *c = calloc(1, sizeof *c);
    if (!c)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for cuDNN's plan");
    c->device = device;
    c->next_id = N_POINTER;
    if (!start(c, call, err)) {
        bench_cudnn_destroy(c);
        return false;
    }
    *out = c;
    return true;
}

void bench_cudnn_destroy(bench_cudnn *c)
{
    if (!c)
        return;
    while (c->n_descriptor > 0)
        cudnn.destroy_descriptor(c->descriptors[--c->n_descriptor]);
    if (c->handle)
        cudnn.destroy(c->handle);
    c->device->ops->release(c->device, c->workspace);
    free(c);
}

bool bench_cudnn_run(bench_cudnn *c, lm_error *err)
{
    note(c, cudnn.execute(c->handle, c->plan, c->pack), "running attention");
    return c->status == STATUS_SUCCESS || fail(c, LM_ERROR_RUN, err);
}

size_t bench_cudnn_workspace_bytes(const bench_cudnn *c)
{
    return (size_t)c->workspace_bytes;
}
