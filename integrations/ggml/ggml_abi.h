/*
 * ggml_abi.h - the parts of ggml's binary interface that the plug-in touches, declared here so that building it needs
 * no llama.cpp and one file serves many versions of it. Everything is checked against the running ggml when the plug-in
 * is loaded (ggml_abi_open); a version that differs is refused.
 *
 *   tensor layout     probed on scratch tensors: every field the plug-in reads is compared with what ggml's own
 *                     functions say
 *   operation codes   they drift between versions: learnt from scratch operations
 *   function tables   of registry, device and backend: found in ggml's own CPU backend by where known pointers stand
 */
#ifndef GGML_ABI_H
#define GGML_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Values of these are part of the GGUF file format. */
enum { GGML_TYPE_F32 = 0, GGML_TYPE_F16 = 1, GGML_TYPE_Q8_0 = 8, GGML_TYPE_I32 = 26, GGML_TYPE_BF16 = 30 };
enum { GGML_Q8_0_BLOCK = 32, GGML_Q8_0_BYTES = 34 }; /* float16 factor, then 32 signed bytes */
enum { GGML_STATUS_ABORTED = 1, GGML_STATUS_SUCCESS = 0, GGML_STATUS_FAILED = -1 };
enum { GGML_DEVICE_CPU = 0, GGML_DEVICE_ACCEL = 3 };
enum { GGML_FLAG_COMPUTE = 16 }; /* of a tensor: nodes without it are not computed, where this ggml sets it at all */
enum { GGML_BACKEND_API = 2 };   /* of the registry struct, since September 2025 */

typedef struct ggml_tensor ggml_tensor;
struct ggml_tensor {
    int32_t type;
    void *buffer;
    int64_t ne[4];
    size_t nb[4];
    int32_t op;
    int32_t op_params[16];
    int32_t flags;
    ggml_tensor *src[10];
    ggml_tensor *view_src;
    size_t view_offs;
    void *data;
    char name[64];
};

/* Parameters are 32 bits each; those that are numbers with a fraction hold a float's. */
static inline float float_param(const ggml_tensor *t, int i)
{
    float x;
    memcpy(&x, &t->op_params[i], sizeof x);
    return x;
}

typedef struct ggml_init_params {
    size_t mem_size;
    void *mem_buffer;
    bool no_alloc;
} ggml_init_params;

typedef bool (*ggml_abort_fn)(void *data);
typedef void (*ggml_any_fn)(void);

/* The functions of ggml that the plug-in calls: result, name, arguments. Opaque objects are void *: context, graph,
 * backend, device, registry, buffer type. */
#define GGML_FUNCTIONS(F)                                                                                              \
    F(const char *, version, (void))                                                                                   \
    F(const char *, op_name, (int op))                                                                                 \
    F(void *, init, (ggml_init_params params))                                                                         \
    F(void, free, (void *context))                                                                                     \
    F(ggml_tensor *, new_tensor_4d, (void *context, int type, int64_t, int64_t, int64_t, int64_t))                     \
    F(void *, get_data, (const ggml_tensor *tensor))                                                                   \
    F(ggml_tensor *, set_name, (ggml_tensor *tensor, const char *name))                                                \
    F(ggml_tensor *, permute, (void *context, ggml_tensor *a, int, int, int, int))                                     \
    F(ggml_tensor *, transpose, (void *context, ggml_tensor *a))                                                       \
    F(ggml_tensor *, reshape_2d, (void *context, ggml_tensor *a, int64_t, int64_t))                                    \
    F(ggml_tensor *, view_1d, (void *context, ggml_tensor *a, int64_t n, size_t offset))                               \
    F(ggml_tensor *, cont, (void *context, ggml_tensor *a))                                                            \
    F(ggml_tensor *, scale, (void *context, ggml_tensor *a, float factor))                                             \
    F(ggml_tensor *, rms_norm, (void *context, ggml_tensor *a, float eps))                                             \
    F(ggml_tensor *, mul_mat, (void *context, ggml_tensor *a, ggml_tensor *b))                                         \
    F(ggml_tensor *, rope_ext, (void *context, ggml_tensor *a, ggml_tensor *position, ggml_tensor *factor,             \
      int n_dims, int mode, int n_ctx_orig, float base, float scale, float ext, float attn, float fast, float slow))   \
    F(ggml_tensor *, flash_attn_ext, (void *context, ggml_tensor *q, ggml_tensor *k, ggml_tensor *v,                   \
      ggml_tensor *mask, float scale, float max_bias, float softcap))                                                  \
    F(void *, new_graph_custom, (void *context, size_t size, bool grads))                                              \
    F(void, build_forward_expand, (void *graph, ggml_tensor *tensor))                                                  \
    F(void, graph_clear, (void *graph))                                                                                \
    F(void, graph_add_node, (void *graph, ggml_tensor *tensor))                                                        \
    F(int, graph_n_nodes, (void *graph))                                                                               \
    F(ggml_tensor *, graph_node, (void *graph, int i))                                                                 \
    F(void *, backend_dev_by_type, (int type))                                                                         \
    F(const char *, backend_dev_name, (void *device))                                                                  \
    F(void *, backend_dev_init, (void *device, const char *parameters))                                                \
    F(void *, backend_dev_backend_reg, (void *device))                                                                 \
    F(const char *, backend_reg_name, (void *reg))                                                                     \
    F(size_t, backend_reg_dev_count, (void *reg))                                                                      \
    F(void *, backend_reg_get_proc_address, (void *reg, const char *name))                                             \
    F(void, backend_free, (void *backend))                                                                             \
    F(int, backend_graph_compute, (void *backend, void *graph))                                                        \
    F(void *, backend_cpu_buffer_type, (void))                                                                         \
    F(bool, backend_buft_is_host, (void *buffer_type))

typedef struct ggml_functions {
#define GGML_POINTER(result, name, arguments) result(*name) arguments;
    GGML_FUNCTIONS(GGML_POINTER)
#undef GGML_POINTER
} ggml_functions;

typedef struct ggml_op_codes {
    int32_t none, view, reshape, permute, transpose, cont, scale, rms_norm, mul_mat, rope, flash_attn_ext;
} ggml_op_codes;

typedef struct ggml_abi {
    ggml_functions fn;
    ggml_op_codes op;
    bool nodes_are_flagged; /* this ggml sets GGML_FLAG_COMPUTE */
    int n_backend_fn;       /* entries of a backend's function table */
    int graph_compute_fn;   /* the entry that computes a graph */
    void *cpu_device, *cpu_reg;
} ggml_abi;

extern ggml_abi ggml;

/* Fills `ggml` from the copy of ggml that the code at `caller` belongs to. NULL, or why this ggml cannot be served. */
const char *ggml_abi_open(void *caller);

/* What ggml expects in memory. The tables' order is ggml's. */
typedef struct ggml_backend_reg {
    int32_t api_version;
    const char *(*get_name)(void *reg);
    size_t (*get_device_count)(void *reg);
    void *(*get_device)(void *reg, size_t index);
    void *(*get_proc_address)(void *reg, const char *name);
    void *context;
} ggml_backend_reg;

typedef struct ggml_backend_props {
    const char *name, *description;
    size_t memory_free, memory_total;
    int32_t type;
    const char *device_id;
    bool caps[4]; /* more follow in later versions; the caller clears the struct */
} ggml_backend_props;

typedef struct ggml_backend_device {
    const char *(*get_name)(void *device);
    const char *(*get_description)(void *device);
    void (*get_memory)(void *device, size_t *free, size_t *total);
    int (*get_type)(void *device);
    void (*get_props)(void *device, ggml_backend_props *props);
    void *(*init_backend)(void *device, const char *parameters);
    void *(*get_buffer_type)(void *device);
    void *(*get_host_buffer_type)(void *device);
    void *(*buffer_from_host_ptr)(void *device, void *data, size_t size, size_t max_tensor_size);
    bool (*supports_op)(void *device, const ggml_tensor *op);
    bool (*supports_buft)(void *device, void *buffer_type);
    bool (*offload_op)(void *device, const ggml_tensor *op);
    void *(*event_new)(void *device);
    void (*event_free)(void *device, void *event);
    void (*event_synchronize)(void *device, void *event);
    void *reg;
    void *context;
} ggml_backend_device;

/* A backend: guid, function table, device, context. The table's length differs between versions. */
enum { GGML_MAX_BACKEND_FN = 16 };
typedef union ggml_slot {
    void *data;
    ggml_any_fn fn;
} ggml_slot;
typedef struct ggml_backend_object {
    ggml_slot slot[1 + GGML_MAX_BACKEND_FN + 2];
} ggml_backend_object;
enum { GGML_SLOT_GUID = 0, GGML_SLOT_FN = 1 }; /* then device and context behind the table */
enum { GGML_FN_GET_NAME = 0, GGML_FN_FREE = 1 };

#endif
