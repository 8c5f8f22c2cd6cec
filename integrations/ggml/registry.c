/* registry: what ggml sees. One registry with one device; a backend for each llama.cpp context. */
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct backend {
    ggml_backend_object object; /* first: ggml's pointer to a backend is a pointer to this */
    void *cpu;                  /* ggml's own CPU backend, for what is not ours after all */
    void *context, *graph;      /* a graph of one node for it */
    plugin_engine *engine;
    int n_thread;
    ggml_abort_fn abort;
    void *abort_data;
} backend;

static ggml_backend_device device;
static ggml_backend_reg reg;
static uint8_t guid[16] = "prism-attn ggml";

/* ----------------------------------------------------------------------------------------------------- backend ---- */

static const char *backend_name(void *b)
{
    (void)b;
    return "Prism";
}

static void backend_free(void *object)
{
    backend *b = object;
    plugin_engine_destroy(b->engine);
    if (b->context)
        ggml.fn.free(b->context);
    if (b->cpu)
        ggml.fn.backend_free(b->cpu);
    free(b);
}

static int delegate(backend *b, ggml_tensor *node)
{
    ggml.fn.graph_clear(b->graph);
    ggml.fn.graph_add_node(b->graph, node);
    return ggml.fn.backend_graph_compute(b->cpu, b->graph);
}

/* Says the first error of the library on standard error. Masks that are not causal are no errors. */
static void report_failure(const char *why)
{
    static bool said;
    if (!said && (!strncmp(why, "attention", 9) || !strncmp(why, "plan", 4) || !strncmp(why, "context", 7)))
        fprintf(stderr, "prism: ggml computes attention instead, %s\n", why), said = true;
}

static int compute_node(backend *b, ggml_tensor *node)
{
    const plugin_clock start = plugin_stats_wanted() ? plugin_stats_clock() : (plugin_clock){0};
    plugin_report report = {.path = "ggml"};
    report.reason =
        plugin_options.delegate_all ? "asked for" : plugin_engine_compute(b->engine, b->n_thread, node, &report);
    int status = GGML_STATUS_SUCCESS;
    if (report.reason) {
        report_failure(report.reason);
        status = delegate(b, node);
    }
    if (plugin_stats_wanted())
        plugin_stats_write(node, start, &report);
    return status;
}

static int backend_graph_compute(void *object, void *graph)
{
    backend *b = object;
    const int n = ggml.fn.graph_n_nodes(graph);
    for (int i = 0; i < n; i++) {
        ggml_tensor *node = ggml.fn.graph_node(graph, i);
        if (node->op != ggml.op.flash_attn_ext || (ggml.nodes_are_flagged && !(node->flags & GGML_FLAG_COMPUTE)))
            continue; /* all else that is claimed are views */
        if (b->abort && b->abort(b->abort_data))
            return GGML_STATUS_ABORTED;
        const int status = compute_node(b, node);
        if (status != GGML_STATUS_SUCCESS)
            return status;
    }
    return GGML_STATUS_SUCCESS;
}

/* Found by name through the registry. */
typedef void (*set_n_threads_fn)(void *, int);
typedef void (*set_abort_callback_fn)(void *, ggml_abort_fn, void *);

static ggml_any_fn cpu_function(const char *name)
{
    void *address = ggml.fn.backend_reg_get_proc_address(ggml.cpu_reg, name);
    ggml_any_fn fn;
    memcpy(&fn, &address, sizeof fn);
    return fn;
}

static void set_n_threads(void *object, int n_thread)
{
    backend *b = object;
    b->n_thread = n_thread;
    const set_n_threads_fn set = (set_n_threads_fn)cpu_function("ggml_backend_set_n_threads");
    if (set)
        set(b->cpu, n_thread);
}

static void set_abort_callback(void *object, ggml_abort_fn abort_fn, void *data)
{
    backend *b = object;
    b->abort = abort_fn;
    b->abort_data = data;
    const set_abort_callback_fn set = (set_abort_callback_fn)cpu_function("ggml_backend_set_abort_callback");
    if (set)
        set(b->cpu, abort_fn, data);
}

/* ------------------------------------------------------------------------------------------------------ device ---- */

static const char *device_name(void *d)
{
    (void)d;
    return "PRISM";
}

static const char *device_description(void *d)
{
    (void)d;
    return "block-sparse attention for long prompts";
}

/* The device owns no memory: all tensors lie in the CPU's buffers. */
static void device_memory(void *d, size_t *free_bytes, size_t *total)
{
    (void)d;
    *free_bytes = 0;
    *total = 0;
}

static int device_type(void *d)
{
    (void)d;
    return GGML_DEVICE_ACCEL;
}

static void device_props(void *d, ggml_backend_props *props)
{
    props->name = device_name(d);
    props->description = device_description(d);
    props->type = device_type(d);
}

static void *device_init_backend(void *d, const char *parameters)
{
    (void)parameters;
    backend *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->cpu = ggml.fn.backend_dev_init(ggml.cpu_device, NULL);
    b->context = ggml.fn.init((ggml_init_params){.mem_size = 1 << 16, .no_alloc = true});
    b->graph = b->context ? ggml.fn.new_graph_custom(b->context, 8, false) : NULL;
    b->engine = plugin_engine_create();
    if (!b->cpu || !b->graph || !b->engine) {
        backend_free(b);
        return NULL;
    }
    ggml_slot *slot = b->object.slot, *fn = slot + GGML_SLOT_FN;
    slot[GGML_SLOT_GUID].data = guid;
    fn[GGML_FN_GET_NAME].fn = (ggml_any_fn)backend_name;
    fn[GGML_FN_FREE].fn = (ggml_any_fn)backend_free;
    fn[ggml.graph_compute_fn].fn = (ggml_any_fn)backend_graph_compute;
    fn[ggml.n_backend_fn].data = d;
    return b;
}

static void *device_buffer_type(void *d)
{
    (void)d;
    return ggml.fn.backend_cpu_buffer_type();
}

static bool device_supports_op(void *d, const ggml_tensor *op)
{
    (void)d;
    return plugin_claims(op);
}

static bool device_supports_buft(void *d, void *buffer_type)
{
    (void)d;
    return ggml.fn.backend_buft_is_host(buffer_type);
}

/* ---------------------------------------------------------------------------------------------------- registry ---- */

static size_t reg_device_count(void *r)
{
    (void)r;
    return 1;
}

static void *reg_get_device(void *r, size_t index)
{
    (void)r;
    return index == 0 ? &device : NULL;
}

static void *reg_get_proc_address(void *r, const char *name)
{
    (void)r;
    void *address = NULL;
    const set_n_threads_fn threads = set_n_threads;
    const set_abort_callback_fn callback = set_abort_callback;
    if (!strcmp(name, "ggml_backend_set_n_threads"))
        memcpy(&address, &threads, sizeof address);
    else if (!strcmp(name, "ggml_backend_set_abort_callback"))
        memcpy(&address, &callback, sizeof address);
    return address;
}

/* The one symbol that ggml looks for. NULL: ggml goes on without the plug-in. */
PRISM_API ggml_backend_reg *ggml_backend_init(void);

ggml_backend_reg *ggml_backend_init(void)
{
    if (reg.get_name)
        return &reg; /* loaded twice */
    plugin_settings_read();
    const char *why = *plugin_options.error ? plugin_options.error : ggml_abi_open(__builtin_return_address(0));
    if (why) {
        fprintf(stderr, "prism: not used%s%s: %s\n", ggml.fn.version ? " with ggml " : "",
                ggml.fn.version ? ggml.fn.version() : "", why);
        return NULL;
    }
    plugin_stats_open();
    device = (ggml_backend_device){.get_name = device_name,
                                   .get_description = device_description,
                                   .get_memory = device_memory,
                                   .get_type = device_type,
                                   .get_props = device_props,
                                   .init_backend = device_init_backend,
                                   .get_buffer_type = device_buffer_type,
                                   .supports_op = device_supports_op,
                                   .supports_buft = device_supports_buft,
                                   .reg = &reg};
    reg = (ggml_backend_reg){.api_version = GGML_BACKEND_API,
                             .get_name = backend_name,
                             .get_device_count = reg_device_count,
                             .get_device = reg_get_device,
                             .get_proc_address = reg_get_proc_address};
    return &reg;
}
