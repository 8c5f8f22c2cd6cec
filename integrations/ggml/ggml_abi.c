#define _GNU_SOURCE
#include "ggml_abi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

ggml_abi ggml;

static char refusal[200];

/* ------------------------------------------------------------------------------------------------ functions ---- */

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define SYMBOL(result, name, arguments) {"ggml_" #name, offsetof(ggml_functions, name)},
    GGML_FUNCTIONS(SYMBOL)
#undef SYMBOL
};

/* Looks in the object that the caller is in, and in the objects it depends on: a process may hold several copies of
 * ggml, and Python loads them where a global look-up does not see them. */
static const char *find_functions(void *caller)
{
    Dl_info where;
    void *handle = dladdr(caller, &where) ? dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    if (!handle)
        handle = dlopen(NULL, RTLD_LAZY); /* ggml is linked into the program itself */
    for (size_t i = 0; handle && i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(handle, symbols[i].name);
        if (!address) {
            snprintf(refusal, sizeof refusal, "this ggml has no function %s", symbols[i].name);
            return refusal;
        }
        memcpy((char *)&ggml.fn + symbols[i].offset, &address, sizeof address);
    }
    return handle ? NULL : "ggml was not found in this process";
}

/* --------------------------------------------------------------------------------------------------- tensors ---- */

static bool learn(int32_t *code, const ggml_tensor *tensor, const char *name)
{
    *code = tensor->op;
    return *code >= 0 && *code < 1024 && !strcmp(ggml.fn.op_name(*code), name);
}

static bool fields_agree(void *context)
{
    const ggml_functions *f = &ggml.fn;
    ggml_tensor *a = f->new_tensor_4d(context, GGML_TYPE_F32, 3, 5, 7, 2);
    const bool shape = a->type == GGML_TYPE_F32 && a->ne[0] == 3 && a->ne[1] == 5 && a->ne[2] == 7 && a->ne[3] == 2 &&
                       a->nb[0] == 4 && a->nb[1] == 12 && a->nb[2] == 60 && a->nb[3] == 420 && !a->view_src;
    f->set_name(a, "a name");
    const ggml_tensor *p = f->permute(context, a, 0, 2, 1, 3);
    const ggml_tensor *v = f->view_1d(context, a, 8, 12);
    return shape && a->data == f->get_data(a) && !strcmp(a->name, "a name") && p->src[0] == a && !p->src[1] &&
           p->view_src == a && p->ne[1] == 7 && p->nb[1] == 60 && v->view_src == a && v->view_offs == 12;
}

static bool attention_agrees(void *context)
{
    const ggml_functions *f = &ggml.fn;
    ggml_tensor *q = f->new_tensor_4d(context, GGML_TYPE_F32, 64, 8, 4, 1);
    ggml_tensor *k = f->new_tensor_4d(context, GGML_TYPE_F16, 64, 16, 2, 1);
    ggml_tensor *v = f->new_tensor_4d(context, GGML_TYPE_F16, 64, 16, 2, 1);
    ggml_tensor *mask = f->new_tensor_4d(context, GGML_TYPE_F16, 16, 64, 1, 1);
    const ggml_tensor *o = f->flash_attn_ext(context, q, k, v, mask, 0.125f, 0, 0);
    return learn(&ggml.op.flash_attn_ext, o, "FLASH_ATTN_EXT") && o->src[0] == q && o->src[1] == k && o->src[2] == v &&
           o->src[3] == mask && !o->src[4] && float_param(o, 0) == 0.125f && o->ne[0] == 64 && o->ne[1] == 4 &&
           o->ne[2] == 8;
}

static bool rope_agrees(void *context)
{
    const ggml_functions *f = &ggml.fn;
    ggml_tensor *a = f->new_tensor_4d(context, GGML_TYPE_F32, 64, 2, 8, 1);
    ggml_tensor *position = f->new_tensor_4d(context, GGML_TYPE_I32, 8, 1, 1, 1);
    ggml_tensor *factor = f->new_tensor_4d(context, GGML_TYPE_F32, 32, 1, 1, 1);
    const ggml_tensor *r = f->rope_ext(context, a, position, factor, 64, 2, 4096, 5e5f, 0.25f, 0.5f, 0.75f, 32, 1);
    const float floats[] = {5e5f, 0.25f, 0.5f, 0.75f, 32, 1};
    const int32_t *x = r->op_params;
    return learn(&ggml.op.rope, r, "ROPE") && r->src[0] == a && r->src[1] == position && r->src[2] == factor &&
           x[1] == 64 && x[2] == 2 && x[4] == 4096 && !memcmp(x + 5, floats, sizeof floats);
}

static bool other_ops_agree(void *context)
{
    const ggml_functions *f = &ggml.fn;
    ggml_op_codes *op = &ggml.op;
    ggml_tensor *a = f->new_tensor_4d(context, GGML_TYPE_F32, 8, 4, 2, 1);
    ggml_tensor *b = f->new_tensor_4d(context, GGML_TYPE_F32, 8, 8, 1, 1);
    return learn(&op->none, a, "NONE") && learn(&op->view, f->view_1d(context, a, 8, 0), "VIEW") &&
           learn(&op->reshape, f->reshape_2d(context, a, 8, 8), "RESHAPE") &&
           learn(&op->permute, f->permute(context, a, 0, 2, 1, 3), "PERMUTE") &&
           learn(&op->transpose, f->transpose(context, a), "TRANSPOSE") &&
           learn(&op->cont, f->cont(context, a), "CONT") && learn(&op->scale, f->scale(context, a, 2), "SCALE") &&
           learn(&op->rms_norm, f->rms_norm(context, a, 1e-6f), "RMS_NORM") &&
           learn(&op->mul_mat, f->mul_mat(context, b, a), "MUL_MAT");
}

static bool graphs_agree(void *context)
{
    const ggml_functions *f = &ggml.fn;
    ggml_tensor *a = f->new_tensor_4d(context, GGML_TYPE_F32, 8, 4, 2, 1);
    ggml_tensor *twice = f->scale(context, a, 2), *again = f->scale(context, twice, 2);
    void *graph = f->new_graph_custom(context, 8, false);
    f->build_forward_expand(graph, again);
    ggml.nodes_are_flagged = again->flags & GGML_FLAG_COMPUTE;
    const bool expanded = f->graph_n_nodes(graph) == 2 && f->graph_node(graph, 1) == again;
    f->graph_clear(graph);
    f->graph_add_node(graph, again);
    return expanded && f->graph_n_nodes(graph) == 1 && f->graph_node(graph, 0) == again;
}

static const char *check_tensors(void)
{
    void *context = ggml.fn.init((ggml_init_params){.mem_size = 1 << 18});
    if (!context)
        return "ggml_init failed";
    const char *why = NULL;
    if (!fields_agree(context) || !other_ops_agree(context))
        why = "its tensors are laid out in an unknown way";
    else if (!attention_agrees(context) || !rope_agrees(context))
        why = "its attention or rotation operations carry unknown parameters";
    else if (!graphs_agree(context))
        why = "its graphs behave in an unknown way";
    ggml.fn.free(context);
    return why;
}

/* ---------------------------------------------------------------------------------------------------- tables ---- */

/* Backends' tables as they have been: 14 entries, then (April 2026) two more in the middle. Entries that the CPU
 * backend fills, in order; it leaves the rest NULL. */
static const struct {
    int n_fn, graph_compute;
    const char *filled;
} backend_tables[] = {
    {14, 10, "11....11.11..."},
    {16, 12, "11......11.11..."},
};

static bool table_matches(const ggml_backend_object *cpu, int n_fn, const char *filled, void *device)
{
    for (int i = 0; i < n_fn; i++)
        if ((cpu->slot[GGML_SLOT_FN + i].data != NULL) != (filled[i] == '1'))
            return false;
    return cpu->slot[GGML_SLOT_FN + n_fn].data == device;
}

static const char *check_backend_table(void *device)
{
    void *backend = ggml.fn.backend_dev_init(device, NULL);
    if (!backend)
        return "its CPU backend does not start";
    const ggml_backend_object *cpu = backend;
    const char *why = "its backends have an unknown function table";
    for (size_t i = 0; i < sizeof backend_tables / sizeof *backend_tables; i++)
        if (table_matches(cpu, backend_tables[i].n_fn, backend_tables[i].filled, device)) {
            ggml.n_backend_fn = backend_tables[i].n_fn;
            ggml.graph_compute_fn = backend_tables[i].graph_compute;
            why = NULL;
        }
    ggml.fn.backend_free(backend);
    return why;
}

static const char *check_tables(void)
{
    const ggml_functions *f = &ggml.fn;
    const ggml_backend_device *device = f->backend_dev_by_type(GGML_DEVICE_CPU);
    if (!device)
        return "it has no CPU backend (load that first)";
    ggml.cpu_device = (void *)device;
    ggml.cpu_reg = f->backend_dev_backend_reg(ggml.cpu_device);
    const ggml_backend_reg *reg = ggml.cpu_reg;
    if (device->reg != ggml.cpu_reg ||
        strcmp(device->get_name(ggml.cpu_device), f->backend_dev_name(ggml.cpu_device)) ||
        device->get_type(ggml.cpu_device) != GGML_DEVICE_CPU ||
        device->get_buffer_type(ggml.cpu_device) != f->backend_cpu_buffer_type() || !device->supports_op ||
        !device->supports_buft || !device->supports_buft(ggml.cpu_device, f->backend_cpu_buffer_type()))
        return "its devices have an unknown function table";
    if (reg->api_version != GGML_BACKEND_API) {
        snprintf(refusal, sizeof refusal, "its backend interface is version %d, not %d", reg->api_version,
                 GGML_BACKEND_API);
        return refusal;
    }
    if (strcmp(reg->get_name(ggml.cpu_reg), f->backend_reg_name(ggml.cpu_reg)) ||
        reg->get_device_count(ggml.cpu_reg) != f->backend_reg_dev_count(ggml.cpu_reg))
        return "its registry has an unknown function table";
    return check_backend_table(ggml.cpu_device);
}

const char *ggml_abi_open(void *caller)
{
    const char *why = find_functions(caller);
    if (!why)
        why = check_tensors();
    if (!why)
        why = check_tables();
    return why;
}
