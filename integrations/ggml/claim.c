/* Decides by shapes and parameters which nodes the plug-in takes: when ggml plans a graph, tensors have no data. */
#include "plugin.h"

/* At 64 queries over 256 cells ggml's own kernel is as fast as full attention here; at 256 over 256 it takes 1.4 times
 * as long (docs/llamacpp.md). llama.cpp pads to 256 cells. */
enum { min_cells = 256 };

static bool is_view(int32_t op)
{
    const ggml_op_codes *c = &ggml.op;
    return op == c->none || op == c->view || op == c->permute || op == c->reshape || op == c->transpose;
}

/* Heads stand beside each other in a token, streams are a whole number of tokens apart. */
static bool cache_is_known(const ggml_tensor *t)
{
    const plugin_cache_type *type = plugin_cache_type_of(t);
    return type && t->nb[0] == type->bytes && t->ne[0] % type->block == 0 && t->nb[1] % t->nb[0] == 0 &&
           t->nb[2] % t->nb[0] == 0 && t->nb[1] > 0 && t->nb[3] % t->nb[1] == 0;
}

static bool parameters_are_plain(const ggml_tensor *node)
{
    /* 0 scale, 1 ALiBi, 2 soft cap, 3 precision asked for (ours is float32); what later versions add is not known */
    if (node->op_params[1] || node->op_params[2] || node->src[4])
        return false;
    for (int i = 4; i < 16; i++)
        if (node->op_params[i])
            return false;
    return true;
}

static bool shapes_are_known(const ggml_tensor *node)
{
    const ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2], *mask = node->src[3];
    const int64_t d = q->ne[0], n_q = q->ne[1], n_head = q->ne[2], n_stream = q->ne[3];
    return q->type == GGML_TYPE_F32 && q->nb[0] == 4 && q->nb[1] % 4 == 0 && q->nb[2] % 4 == 0 && q->nb[1] > 0 &&
           q->nb[3] % q->nb[1] == 0 && d <= PRISM_MAX_D_HEAD && v->ne[0] == d && k->ne[0] == d && k->ne[2] > 0 &&
           n_head % k->ne[2] == 0 && v->ne[2] == k->ne[2] && v->ne[1] == k->ne[1] && k->ne[3] == n_stream &&
           v->ne[3] == n_stream && mask->type == GGML_TYPE_F16 && mask->nb[0] == 2 && mask->ne[0] == k->ne[1] &&
           mask->ne[1] >= n_q && mask->ne[2] == 1 && mask->ne[3] == n_stream && node->type == GGML_TYPE_F32 &&
           node->nb[0] == 4 && node->nb[3] % node->nb[2] == 0;
}

bool plugin_claims(const ggml_tensor *node)
{
    if (is_view(node->op))
        return true;
    if (node->op != ggml.op.flash_attn_ext)
        return false;
    const ggml_tensor *q = node->src[0], *k = node->src[1];
    return q && k && node->src[2] && node->src[3] && q->ne[1] >= PLUGIN_MIN_QUERIES && k->ne[1] >= min_cells &&
           q->ne[1] * q->ne[3] < INT32_MAX && k->ne[1] * k->ne[3] < INT32_MAX && parameters_are_plain(node) &&
           shapes_are_known(node) && cache_is_known(k) && cache_is_known(node->src[2]);
}
