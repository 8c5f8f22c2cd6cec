/* Recall over the layers of a prompt: from the session's hook into records. */
#include "eval/recall.h"

#include "lm/json.h"

#include <math.h>
#include <stdlib.h>

typedef struct layers {
    const lm_model *model;
    prism_ctx *ctx; /* for the plans: the session's own is in use while the hook runs */
    eval_methods methods;
    prism_bands bands[2]; /* of blocks of 64 and 128 */
    const eval_recall_options *options;
    eval_results *results;
    const eval_watch *watch;
    int32_t n_token;
    bool failed;
    lm_error err;
} layers;

static bool is_done(const layers *l, int32_t layer)
{
    for (int32_t m = 0; m < l->methods.n; m++)
        if (!eval_results_find(l->results, l->methods.items[m].label, l->options->task, l->n_token, layer))
            return false;
    return true;
}

static bool add_list(cJSON *record, const char *name, const eval_recall_head *heads, int32_t n, size_t offset)
{
    cJSON *list = cJSON_AddArrayToObject(record, name);
    for (int32_t h = 0; list && h < n; h++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber(*(const double *)((const char *)&heads[h] + offset)));
    return list != NULL;
}

static bool measure_layer(layers *l, int32_t layer, const prism_call *call, lm_error *err)
{
    const int32_t n = call->n_head;
    const double start = eval_seconds();
    eval_recall_head *heads = malloc((size_t)l->methods.n * (size_t)n * sizeof *heads);
    bool ok = heads || lm_fail(err, LM_ERROR_MEMORY, "out of memory for the measures of a layer");
    ok = ok && eval_recall_measure(l->ctx, call, &l->methods, l->options->n_row, heads, err);
    const double seconds = (eval_seconds() - start) / l->methods.n;
    for (int32_t m = 0; ok && m < l->methods.n; m++) {
        const char *label = l->methods.items[m].label;
        const eval_recall_head *mine = heads + (size_t)m * (size_t)n;
        if (eval_results_find(l->results, label, l->options->task, l->n_token, layer))
            continue;
        cJSON *record = eval_record_create(label, l->options->task, l->n_token, layer);
        add_list(record, "mass", mine, n, offsetof(eval_recall_head, mass));
        add_list(record, "error", mine, n, offsetof(eval_recall_head, error));
        add_list(record, "density", mine, n, offsetof(eval_recall_head, density));
        add_list(record, "oracle", mine, n, offsetof(eval_recall_head, oracle));
        cJSON_AddNumberToObject(record, "seconds", seconds);
        ok = eval_results_add(l->results, record, err);
    }
    free(heads);
    return ok;
}

static void on_call(void *user, int32_t layer, const prism_call *call)
{
    layers *l = user;
    if (l->failed || is_done(l, layer))
        return;
    if (l->watch && l->watch->item)
        l->watch->item(l->watch->user, l->methods.n == 1 ? l->methods.items[0].label : "all methods", l->options->task,
                       layer, lm_model_config(l->model)->n_layer);
    l->failed = !measure_layer(l, layer, call, &l->err);
}

/* Own copies of the methods, with the bands that a session would give them. */
static bool prepare(layers *l, const eval_methods *methods, prism_ctx *ctx, lm_error *err)
{
    prism_info info = {.struct_size = sizeof info};
    prism_config config;
    prism_config_init(&config);
    if (!prism_get_info(ctx, &info))
        config.n_thread = info.n_thread;
    l->methods.items = malloc((size_t)methods->n * sizeof *l->methods.items);
    if (!l->methods.items || prism_create(&config, &l->ctx))
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a second context");
    l->methods.n = methods->n;
    for (int i = 0; i < 2; i++)
        if (!lm_model_bands(l->model, i ? 128 : 64, &l->bands[i], err))
            return false;
    for (int32_t m = 0; m < methods->n; m++) {
        l->methods.items[m] = methods->items[m];
        if (!l->methods.items[m].options.bands)
            l->methods.items[m].options.bands = &l->bands[methods->items[m].options.block_size == 128];
    }
    return true;
}

static bool prefill(layers *l, prism_ctx *ctx, const int32_t *tokens, lm_error *err)
{
    lm_session *session;
    lm_session_options so;
    prism_options dense;
    prism_options_init(&dense);
    dense.method = PRISM_METHOD_DENSE;
    lm_session_options_init(&so);
    so.n_ctx = l->n_token;
    so.options = &dense;
    so.on_call = on_call;
    so.kv_type = l->options->kv_type;
    so.calls_on_host = true; /* measured there, whatever the model runs on */
    so.user = l;
    if (!lm_session_create(l->model, ctx, &so, &session, err))
        return false;
    bool ok = lm_session_prefill(session, tokens, l->n_token, NULL, NULL, err);
    lm_session_destroy(session);
    if (ok && l->failed) {
        *err = l->err;
        ok = false;
    }
    return ok;
}

bool eval_recall_run(const lm_model *model, prism_ctx *ctx, const int32_t *tokens, int32_t n_token,
                     const eval_methods *methods, const eval_recall_options *options, eval_results *results,
                     const eval_watch *watch, lm_error *err)
{
    layers l = {.model = model, .options = options, .results = results, .watch = watch, .n_token = n_token};
    lm_error own;
    bool ok = prepare(&l, methods, ctx, err), all = ok;
    for (int32_t i = 0; ok && i < lm_model_config(model)->n_layer; i++)
        all = all && is_done(&l, i);
    ok = ok && (all || prefill(&l, ctx, tokens, err ? err : &own));
    prism_destroy(l.ctx);
    free(l.methods.items);
    return ok;
}

double eval_record_mean(const cJSON *record, const char *name)
{
    const cJSON *list = lm_json_get(record, name), *item;
    double sum = 0;
    int n = 0;
    cJSON_ArrayForEach(item, list)
    {
        sum += item->valuedouble;
        n++;
    }
    return n ? sum / n : NAN;
}
