/* prism bench: what is measured on. */
#include "bench_command.h"

#include <stdlib.h>
#include <string.h>

#include "prompt.h"

static int load_tokens(bench_state *s)
{
    const bench_args *a = s->args;
    lm_error err;
    cli_prompt prompt;
    const bool read = a->ruler ? cli_prompt_from_ruler(a->ruler, a->key, &prompt, &err)
                               : cli_prompt_from_file(a->file, NULL, &prompt, &err);
    bool ok = read;
    if (ok && !lm_model_tokenizer(s->model))
        ok = lm_fail(&err, LM_ERROR_INPUT, "'%s' comes without a tokenizer", a->model);
    ok = ok && lm_model_encode(s->model, prompt.text, prompt.n, true, &s->tokens, &err);
    if (read)
        cli_prompt_free(&prompt);
    return ok ? EXIT_DONE : cli_fail_lm(&err);
}

static int32_t longest(const bench_state *s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_length; i++)
        n = s->length[i] > n ? s->length[i] : n;
    return n;
}

static int choose_lengths(bench_state *s)
{
    static const int32_t usual[] = {4096, 8192, 16384};
    const bench_args *a = s->args;
    s->n_length = a->n_length;
    memcpy(s->length, a->length, sizeof s->length);
    if (!a->model && !s->n_length) {
        s->n_length = 3;
        memcpy(s->length, usual, sizeof usual);
    }
    if (!a->model)
        return EXIT_DONE;
    if (!s->n_length && s->tokens.n > 0 && s->tokens.n <= INT32_MAX / 2)
        s->length[s->n_length++] = (int32_t)s->tokens.n;
    if (!s->n_length || (size_t)longest(s) > s->tokens.n)
        return cli_fail(
            EXIT_INPUT,
            "the prompt has %zu tokens, --lengths wants %d: give a longer text (a short one is not repeated, "
            "for repeated text has other plans)",
            s->tokens.n, longest(s));
    const int32_t trained = lm_model_config(s->model)->n_ctx_train;
    if (trained > 0 && longest(s) > trained)
        cli_note("up to %d tokens; the model was trained up to %d", longest(s), trained);
    return EXIT_DONE;
}

static int load_model(bench_state *s)
{
    lm_error err;
    if (!lm_model_open(s->args->model, &s->model, &err))
        return cli_fail_lm(&err);
    const int32_t n_layer = lm_model_config(s->model)->n_layer;
    s->layer = s->args->layer >= 0 ? s->args->layer : n_layer / 2;
    if (s->layer >= n_layer)
        return cli_fail(EXIT_USAGE, "--layer %d: the model has layers 0 to %d", s->layer, n_layer - 1);
    return load_tokens(s);
}

static int load_tensors(bench_state *s)
{
    const bench_args *a = s->args;
    lm_error err;
    bool ok;
    if (s->model) {
        cli_progress bar;
        cli_progress_start(&bar, "capture ", true);
        ok = bench_tensors_capture(s->model, s->ctx, s->tokens.ids, longest(s), s->layer, a->dtype, cli_progress_update,
                                   &bar, &s->tensors, &err);
        cli_progress_end(&bar);
    } else {
        prism_info info = {.struct_size = sizeof info};
        prism_get_info(s->ctx, &info);
        const bench_shape shape = {longest(s), a->n_head, a->n_kv_head, a->d_head, a->dtype};
        ok = bench_tensors_random(&shape, (uint64_t)a->seed, info.n_thread, &s->tensors, &err);
    }
    return ok ? EXIT_DONE : cli_fail_lm(&err);
}

/* Writes the methods measured where none are named: "dense,prism". Returns text. */
static const char *usual_methods(char *text, size_t n)
{
    prism_options options;
    prism_options_init(&options);
    snprintf(text, n, "dense,%s", prism_method_name(options.method));
    return text;
}

static int load_methods(bench_state *s)
{
    const bench_args *a = s->args;
    lm_error err;
    char usual[64];
    if (!eval_methods_parse(a->methods ? a->methods : usual_methods(usual, sizeof usual), &a->base.options,
                            &s->parsed, &err))
        return cli_fail_lm(&err);
    s->methods = calloc((size_t)s->parsed.n, sizeof *s->methods);
    if (!s->methods)
        return cli_fail(EXIT_RUN, "out of memory for the methods");
    unsigned named = 0;
    for (int32_t i = 0; i < s->parsed.n; i++) {
        s->methods[i] = (bench_method){s->parsed.items[i].label, s->parsed.items[i].options};
        named |= 1U << s->methods[i].options.method;
    }
    return cli_check_named(&a->base, named);
}

int bench_load(bench_state *s)
{
    const cli_method_args *base = &s->args->base;
    s->density = s->args->density >= 0 ? s->args->density : s->args->model ? 0 : 0.1;
    int code = load_methods(s);
    if (!code)
        code = cli_create_context(&base->device, base->n_thread, &s->ctx);
    if (!code && s->args->model)
        code = load_model(s);
    if (!code)
        code = choose_lengths(s);
    if (!code && s->args->what != BENCH_PREFILL)
        code = load_tensors(s);
    return code;
}

void bench_unload(bench_state *s)
{
    bench_tensors_free(&s->tensors);
    lm_tokens_free(&s->tokens);
    lm_model_close(s->model);
    prism_destroy(s->ctx);
    free(s->methods);
    eval_methods_free(&s->parsed);
    cJSON_Delete(s->report);
}
