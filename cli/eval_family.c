/* prism eval: each family's settings, and how it is run. */
#include "eval.h"
#include "prompt.h"

#include "eval/corpus.h"
#include "eval/identity.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUNDLED_TEXT "nostromo.txt"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The i-th text, or the bundled one where none was given. */
static bool read_text(const eval_bench *b, int32_t i, char **text, size_t *n, lm_error *err)
{
    if (b->args->n_text) {
        if (!cli_read_file(b->args->texts[i], text, n, err))
            return false;
        cli_note_utf8(b->args->texts[i], *text, *n);
        return true;
    }
    char *path = eval_bundled_file(BUNDLED_TEXT);
    const bool ok =
        path ? cli_read_file(path, text, n, err)
             : lm_fail(err, LM_ERROR_INPUT, "the bundled %s is not to be found; give a --text", BUNDLED_TEXT);
    free(path);
    return ok;
}

static void add_hash(cJSON *o, const char *name, uint64_t hash)
{
    char text[32];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    cJSON_AddStringToObject(o, name, text);
}

/* Files are told apart by their sizes: they may be large. */
static void add_file(cJSON *o, const char *name, const char *path)
{
    struct stat st;
    if (path && !stat(path, &st))
        cJSON_AddNumberToObject(o, name, S_ISDIR(st.st_mode) ? 0 : (double)st.st_size);
}

/* -------------------------------------------------------------------------------------------------- ppl ---- */

static bool settings_ppl(eval_bench *b, cJSON *o, lm_error *err)
{
    const int32_t n = b->args->n_text ? b->args->n_text : 1;
    b->texts = calloc((size_t)n, sizeof *b->texts);
    cJSON *list = cJSON_AddArrayToObject(o, "texts");
    if (!b->texts || !list)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for the texts");
    for (int32_t i = 0; i < n; i++) {
        char *text = NULL;
        size_t n_byte;
        const char *name = base_name(b->args->n_text ? b->args->texts[i] : BUNDLED_TEXT);
        bool ok = read_text(b, i, &text, &n_byte, err) &&
                  eval_ppl_text_make(b->model, name, text, n_byte, b->args->max_tokens, &b->texts[i], err);
        free(text);
        for (int32_t j = 0; ok && j < i; j++)
            if (!strcmp(b->texts[j].name, name))
                ok = lm_fail(err, LM_ERROR_USAGE, "two texts are called '%s'", name);
        if (!ok)
            return false;
        cJSON *t = cJSON_CreateObject();
        cJSON_AddStringToObject(t, "name", name);
        cJSON_AddNumberToObject(t, "tokens", (double)b->texts[i].tokens.n);
        cJSON_AddNumberToObject(t, "words", (double)b->texts[i].n_word);
        cJSON_AddNumberToObject(t, "bytes", (double)b->texts[i].n_byte);
        add_hash(t, "hash", b->texts[i].hash);
        cJSON_AddItemToArray(list, t);
    }
    return true;
}

static bool run_ppl(eval_bench *b, int32_t n_ctx, lm_error *err)
{
    const eval_run_options options = {.n_ctx = n_ctx, .chunk = b->args->chunk, .plan_on_host = b->args->plan_on_cpu,
                                       .kv_type = cli_kv_type(b->args->kv)};
    return eval_ppl_run(b->model, b->ctx, b->texts, b->args->n_text ? b->args->n_text : 1, &b->methods, &options,
                        b->results, &b->watch, err);
}

/* ------------------------------------------------------------------------------------------------ tasks ---- */

static bool settings_needle(eval_bench *b, cJSON *o, lm_error *err)
{
    bool book = false;
    for (int32_t i = 0; i < b->args->n_haystack; i++)
        book = book || b->args->haystacks[i] == EVAL_HAYSTACK_BOOK;
    if (book && !read_text(b, 0, &b->book, &b->n_book, err))
        return false;
    cJSON_AddNumberToObject(o, "seed", b->args->seed);
    add_hash(o, "text", eval_hash(EVAL_HASH_START, b->book ? b->book : "", b->n_book));
    return true;
}

static bool settings_ruler(eval_bench *b, cJSON *o, lm_error *err)
{
    (void)err;
    const eval_args *a = b->args;
    char *bundled = a->n_text || a->folder ? NULL : eval_bundled_file(BUNDLED_TEXT);
    cJSON_AddNumberToObject(o, "seed", a->seed);
    add_file(o, "haystack_bytes", a->n_text ? a->texts[0] : bundled);
    free(bundled);
    if (a->folder)
        cJSON_AddStringToObject(o, "essays", base_name(a->folder));
    add_file(o, "squad_bytes", a->squad);
    add_file(o, "hotpot_bytes", a->hotpot);
    return true;
}

static bool open_tasks(const eval_bench *b, int32_t n_ctx, eval_task **tasks, int32_t *n_task, lm_error *err)
{
    const eval_args *a = b->args;
    if (a->family == EVAL_NEEDLE) {
        const eval_needle_options o = {.haystacks = a->haystacks,
                                       .n_haystack = a->n_haystack,
                                       .key = a->key,
                                       .value = a->value,
                                       .n_key = a->n_key,
                                       .depths = a->depths,
                                       .n_depth = a->n_depth,
                                       .n_ctx = n_ctx,
                                       .n_reserve = b->n_reserve,
                                       .n_sample = a->n_sample,
                                       .seed = (uint64_t)a->seed,
                                       .book = b->book,
                                       .n_book = b->n_book};
        return eval_needle_open(&o, b->model, tasks, n_task, err);
    }
    eval_ruler_options o;
    eval_ruler_options_init(&o);
    o.n_ctx = n_ctx;
    o.n_reserve = b->n_reserve;
    o.tasks = a->tasks ? a->tasks : o.tasks;
    o.n_sample = a->n_sample ? a->n_sample : o.n_sample;
    o.seed = (uint64_t)a->seed;
    o.haystack = a->n_text ? a->texts[0] : NULL;
    o.essays = a->folder;
    o.squad = a->squad;
    o.hotpot = a->hotpot;
    return eval_ruler_open(&o, b->model, tasks, n_task, err);
}

static bool run_tasks(eval_bench *b, int32_t n_ctx, lm_error *err)
{
    eval_task *tasks = NULL;
    int32_t n_task = 0;
    if (!open_tasks(b, n_ctx, &tasks, &n_task, err))
        return false;
    const eval_run_options options = {.n_ctx = n_ctx,
                                      .n_sample = b->args->n_sample,
                                      .chunk = b->args->chunk,
                                      .plan_on_host = b->args->plan_on_cpu,
                                      .chat = &b->chat};
    const bool ok = eval_run(b->model, b->ctx, tasks, n_task, &b->methods, &options, b->results, &b->watch, err);
    for (int32_t i = 0; i < n_task; i++)
        tasks[i].close(&tasks[i]);
    free(tasks);
    return ok;
}

/* ------------------------------------------------------------------------------------------------ recall ---- */

static bool recall_prompt(const eval_bench *b, lm_tokens *tokens, lm_error *err)
{
    char *text = NULL;
    size_t n;
    bool ok;
    if (b->args->ruler_json) {
        cli_prompt prompt;
        ok = cli_prompt_from_ruler(b->args->ruler_json, NULL, &prompt, err) &&
             lm_model_encode(b->model, prompt.text, prompt.n, true, tokens, err);
        if (ok)
            cli_prompt_free(&prompt);
    } else {
        ok = read_text(b, 0, &text, &n, err) && lm_model_encode(b->model, text, n, true, tokens, err);
        free(text);
    }
    if (ok && tokens->n > (size_t)b->args->ctx[0])
        tokens->n = (size_t)b->args->ctx[0];
    return ok && (tokens->n || lm_fail(err, LM_ERROR_INPUT, "the prompt is empty"));
}

static bool settings_recall(eval_bench *b, cJSON *o, lm_error *err)
{
    lm_tokens tokens = {0};
    const bool ok = recall_prompt(b, &tokens, err);
    if (ok)
        add_hash(o, "prompt", eval_hash(EVAL_HASH_START, tokens.ids, tokens.n * sizeof *tokens.ids));
    b->n_prompt = (int32_t)tokens.n;
    cJSON_AddNumberToObject(o, "rows", b->args->n_row);
    lm_tokens_free(&tokens);
    return ok;
}

static bool run_recall(eval_bench *b, lm_error *err)
{
    lm_tokens tokens = {0};
    const eval_recall_options options = {
        .task = "recall", .n_row = b->args->n_row, .kv_type = cli_kv_type(b->args->kv)};
    const bool ok =
        recall_prompt(b, &tokens, err) && eval_recall_run(b->model, b->ctx, tokens.ids, (int32_t)tokens.n, &b->methods,
                                                          &options, b->results, &b->watch, err);
    lm_tokens_free(&tokens);
    return ok;
}

/* ------------------------------------------------------------------------------------------------ doors ---- */

/* What a session computes in, for it decides the samples as the rest does. */
static bool settings_types(const eval_bench *b, cJSON *o, lm_error *err)
{
    lm_session_options so;
    lm_types types;
    lm_session_options_init(&so);
    so.kv_type = cli_kv_type(b->args->kv);
    if (!lm_session_types(b->ctx, &so, &types, err))
        return false;
    cJSON_AddStringToObject(o, "kv_type", cli_dtype_name(types.kv));
    cJSON_AddStringToObject(o, "attention", cli_dtype_name(types.attention));
    cJSON_AddStringToObject(o, "products", cli_dtype_name(types.product));
    return true;
}

cJSON *eval_settings(eval_bench *b, lm_error *err)
{
    static bool (*const fill[EVAL_N_FAMILY])(eval_bench *, cJSON *, lm_error *) = {
        settings_ppl, settings_needle, settings_ruler, settings_recall};
    cJSON *o = cJSON_CreateObject();
    if (!o)
        lm_error_set(err, LM_ERROR_MEMORY, "out of memory for the settings");
    else if (fill[b->args->family](b, o, err) && settings_types(b, o, err)) {
        cJSON_AddNumberToObject(o, "chunk", b->args->chunk);
        cJSON_AddStringToObject(o, "chat", eval_chat_name(&b->chat));
        if (b->args->device.kind == PRISM_DEVICE_CUDA) /* rounds otherwise: samples of the two do not mix */
            cJSON_AddStringToObject(o, "device", "cuda");
        return o;
    }
    cJSON_Delete(o);
    return NULL;
}

bool eval_family_run(eval_bench *b, int32_t n_ctx, lm_error *err)
{
    if (b->args->family == EVAL_PPL)
        return run_ppl(b, n_ctx, err);
    return b->args->family == EVAL_RECALL ? run_recall(b, err) : run_tasks(b, n_ctx, err);
}

void eval_bench_free_family(eval_bench *b)
{
    const int32_t n = b->args->n_text ? b->args->n_text : 1;
    for (int32_t i = 0; b->texts && i < n; i++)
        eval_ppl_text_free(&b->texts[i]);
    free(b->texts);
    free(b->book);
}
