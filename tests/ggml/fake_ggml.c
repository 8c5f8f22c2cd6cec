/*
 * A stand-in for ggml's shared library: just enough of its interface for the plug-in to be loaded, checked and run.
 * Built several times, as ggml was, is, or might become:
 *   FAKE_FN         entries of a backend's function table: 14 and 16 exist
 *   FAKE_SHIFT      a member more in the middle of a tensor
 *   FAKE_API        the registry's version
 *   FAKE_NO_ROPE    a function that is not there
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "fake_ggml.h"

#ifndef FAKE_FN
#define FAKE_FN 16
#endif
#ifndef FAKE_API
#define FAKE_API 2
#endif

typedef struct tensor {
    int32_t type;
    void *buffer;
    int64_t ne[4];
    size_t nb[4];
    int32_t op, op_params[16], flags;
#ifdef FAKE_SHIFT
    void *added;
#endif
    struct tensor *src[10], *view_src;
    size_t view_offs;
    void *data;
    char name[64];
    void *extra;
    char padding[8];
} tensor;

typedef struct graph {
    int n;
    tensor *node[16];
} graph;

int fake_computed; /* nodes that the CPU backend was given */

#define API __attribute__((visibility("default")))

/* ----------------------------------------------------------------------------------------------------- tensors ---- */

API const char *ggml_version(void)
{
    return "fake";
}

API const char *ggml_op_name(int op)
{
    static const char *const names[] = {[FAKE_NONE] = "NONE",
                                        [FAKE_VIEW] = "VIEW",
                                        [FAKE_RESHAPE] = "RESHAPE",
                                        [FAKE_PERMUTE] = "PERMUTE",
                                        [FAKE_TRANSPOSE] = "TRANSPOSE",
                                        [FAKE_CONT] = "CONT",
                                        [FAKE_SCALE] = "SCALE",
                                        [FAKE_RMS_NORM] = "RMS_NORM",
                                        [FAKE_MUL_MAT] = "MUL_MAT",
                                        [FAKE_ROPE] = "ROPE",
                                        [FAKE_FLASH_ATTN_EXT] = "FLASH_ATTN_EXT"};
    const char *name = op >= 0 && op < (int)(sizeof names / sizeof *names) ? names[op] : NULL;
    return name ? name : "";
}

typedef struct init_params {
    size_t mem_size;
    void *mem_buffer;
    bool no_alloc;
} init_params;

/* A context is memory cut from its start on. */
typedef struct context {
    size_t used, size;
} context;

API void *ggml_init(init_params params)
{
    context *c = calloc(1, sizeof *c + params.mem_size);
    c->size = params.mem_size;
    return c;
}

API void ggml_free(void *c)
{
    free(c);
}

static void *cut(context *c, size_t bytes)
{
    void *at = (char *)(c + 1) + c->used;
    c->used += (bytes + 15) / 16 * 16;
    return c->used <= c->size ? at : NULL;
}

API tensor *ggml_new_tensor_4d(void *c, int type, int64_t n0, int64_t n1, int64_t n2, int64_t n3)
{
    tensor *t = cut(c, sizeof *t);
    *t = (tensor){.type = type, .ne = {n0, n1, n2, n3}};
    t->nb[0] = type == 1 ? 2 : 4;
    for (int i = 1; i < 4; i++)
        t->nb[i] = t->nb[i - 1] * (size_t)t->ne[i - 1];
    t->data = cut(c, t->nb[3] * (size_t)n3);
    return t;
}

API void *ggml_get_data(const tensor *t)
{
    return t->data;
}

API tensor *ggml_set_name(tensor *t, const char *name)
{
    strncpy(t->name, name, sizeof t->name - 1);
    return t;
}

static tensor *derive(void *c, tensor *a, int op, bool view)
{
    tensor *t = cut(c, sizeof *t);
    *t = *a;
    memset(t->src, 0, sizeof t->src);
    t->op = op;
    t->src[0] = a;
    t->view_src = view ? a : NULL;
    return t;
}

API tensor *ggml_permute(void *c, tensor *a, int x0, int x1, int x2, int x3)
{
    tensor *t = derive(c, a, FAKE_PERMUTE, true);
    const int axis[] = {x0, x1, x2, x3};
    for (int i = 0; i < 4; i++) {
        t->ne[axis[i]] = a->ne[i];
        t->nb[axis[i]] = a->nb[i];
    }
    return t;
}

API tensor *ggml_transpose(void *c, tensor *a)
{
    return derive(c, a, FAKE_TRANSPOSE, true);
}
API tensor *ggml_reshape_2d(void *c, tensor *a, int64_t n0, int64_t n1)
{
    (void)n0, (void)n1;
    return derive(c, a, FAKE_RESHAPE, true);
}
API tensor *ggml_view_1d(void *c, tensor *a, int64_t n, size_t offset)
{
    tensor *t = derive(c, a, FAKE_VIEW, true);
    t->ne[0] = n;
    t->view_offs = offset;
    return t;
}
API tensor *ggml_cont(void *c, tensor *a)
{
    return derive(c, a, FAKE_CONT, false);
}
API tensor *ggml_scale(void *c, tensor *a, float s)
{
    (void)s;
    return derive(c, a, FAKE_SCALE, false);
}
API tensor *ggml_rms_norm(void *c, tensor *a, float eps)
{
    (void)eps;
    return derive(c, a, FAKE_RMS_NORM, false);
}
API tensor *ggml_mul_mat(void *c, tensor *a, tensor *b)
{
    tensor *t = derive(c, a, FAKE_MUL_MAT, false);
    t->src[1] = b;
    return t;
}

#ifndef FAKE_NO_ROPE
API tensor *ggml_rope_ext(void *c, tensor *a, tensor *position, tensor *factor, int n_dims, int mode, int n_ctx_orig,
                          float base, float scale, float ext, float attn, float fast, float slow)
{
    tensor *t = derive(c, a, FAKE_ROPE, false);
    const float x[] = {base, scale, ext, attn, fast, slow};
    t->src[1] = position;
    t->src[2] = factor;
    t->op_params[1] = n_dims;
    t->op_params[2] = mode;
    t->op_params[4] = n_ctx_orig;
    memcpy(t->op_params + 5, x, sizeof x);
    return t;
}
#endif

API tensor *ggml_flash_attn_ext(void *c, tensor *q, tensor *k, tensor *v, tensor *mask, float scale, float bias,
                                float softcap)
{
    tensor *t = ggml_new_tensor_4d(c, 0, v->ne[0], q->ne[2], q->ne[1], q->ne[3]);
    const float x[] = {scale, bias, softcap};
    tensor *const src[] = {q, k, v, mask};
    memcpy(t->op_params, x, sizeof x);
    memcpy(t->src, src, sizeof src);
    t->op = FAKE_FLASH_ATTN_EXT;
    return t;
}

/* ------------------------------------------------------------------------------------------------------ graphs ---- */

API void *ggml_new_graph_custom(void *c, size_t size, bool grads)
{
    (void)size, (void)grads;
    return cut(c, sizeof(graph));
}

API void ggml_graph_clear(graph *g)
{
    g->n = 0;
}
API void ggml_graph_add_node(graph *g, tensor *t)
{
    g->node[g->n++] = t;
}
API int ggml_graph_n_nodes(graph *g)
{
    return g->n;
}
API tensor *ggml_graph_node(graph *g, int i)
{
    return g->node[i];
}

API void ggml_build_forward_expand(graph *g, tensor *t)
{
    if (t->src[0])
        ggml_build_forward_expand(g, t->src[0]);
    if (t->op != FAKE_NONE) {
        t->flags |= 16;
        ggml_graph_add_node(g, t);
    }
}

/* ------------------------------------------------------------------------------------------------- the CPU backend
 * ---- */

typedef struct table {
    void *guid, *fn[FAKE_FN], *device, *context;
} table;

static const char *cpu_name(void *x)
{
    (void)x;
    return "CPU";
}

static int cpu_compute(void *backend, graph *g)
{
    (void)backend;
    fake_computed += g->n;
    return 0;
}

static int cpu_type(void *d)
{
    (void)d;
    return 0;
}

static char buffer_type;

API void *ggml_backend_cpu_buffer_type(void)
{
    return &buffer_type;
}
API bool ggml_backend_buft_is_host(void *b)
{
    return b == &buffer_type;
}

static void *cpu_buffer_type(void *d)
{
    (void)d;
    return &buffer_type;
}

static bool cpu_supports(void *d, void *x)
{
    (void)d, (void)x;
    return true;
}

API size_t ggml_backend_reg_dev_count(void *r)
{
    (void)r;
    return 1;
}

static struct {
    int version;
    void *fn[4], *context;
} cpu_reg = {FAKE_API, {(void *)cpu_name, (void *)ggml_backend_reg_dev_count}, NULL};

static void *cpu_device[17] = {(void *)cpu_name,
                               NULL,
                               NULL,
                               (void *)cpu_type,
                               NULL,
                               NULL,
                               (void *)cpu_buffer_type,
                               NULL,
                               NULL,
                               (void *)cpu_supports,
                               (void *)cpu_supports,
                               NULL,
                               NULL,
                               NULL,
                               NULL,
                               &cpu_reg};

API void *ggml_backend_dev_by_type(int type)
{
    return type == 0 ? cpu_device : NULL;
}
API const char *ggml_backend_dev_name(void *d)
{
    return cpu_name(d);
}
API void *ggml_backend_dev_backend_reg(void *d)
{
    return ((void **)d)[15];
}
API const char *ggml_backend_reg_name(void *r)
{
    return cpu_name(r);
}
API const char *ggml_backend_name(void *b)
{
    return cpu_name(b);
}
API void *ggml_backend_get_device(void *b)
{
    return ((table *)b)->device;
}
API void ggml_backend_free(void *b)
{
    free(b);
}
API int ggml_backend_graph_compute(void *b, graph *g)
{
    return cpu_compute(b, g);
}

API void *ggml_backend_reg_get_proc_address(void *r, const char *name)
{
    (void)r, (void)name;
    return NULL;
}

API void *ggml_backend_dev_init(void *d, const char *parameters)
{
    (void)parameters;
    enum { inserted = FAKE_FN - 14 };
    table *t = calloc(1, sizeof *t);
    t->fn[0] = (void *)cpu_name;
    t->fn[1] = (void *)free;
    t->fn[6 + inserted] = t->fn[7 + inserted] = t->fn[9 + inserted] = (void *)cpu_name; /* plans, never called */
    t->fn[10 + inserted] = (void *)cpu_compute;
    t->device = d;
    return t;
}

/* -------------------------------------------------------------------------------------------- for the test alone ----
 */

API void *fake_load(const char *path)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *(*init)(void) = NULL;
    void *address = plugin ? dlsym(plugin, "ggml_backend_init") : NULL;
    memcpy(&init, &address, sizeof init);
    void *volatile reg = init ? init() : NULL; /* no tail call: the plug-in looks where it was called from */
    return reg;
}

API void *fake_start(void *device)
{
    void *(*init)(void *, const char *);
    memcpy(&init, (void **)device + 5, sizeof init);
    return init(device, NULL);
}

API int fake_compute(void *backend, void **node, int n)
{
    graph g = {0};
    int (*compute)(void *, graph *);
    for (int i = 0; i < n; i++)
        ggml_graph_add_node(&g, node[i]);
    memcpy(&compute, &((table *)backend)->fn[FAKE_FN - 4], sizeof compute);
    return compute(backend, &g);
}

API void fake_free(void *backend)
{
    void (*release)(void *);
    memcpy(&release, &((table *)backend)->fn[1], sizeof release);
    release(backend);
}

API int fake_n_computed(void)
{
    return fake_computed;
}
