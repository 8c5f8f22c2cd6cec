/* prism run: a prompt through the model, by one method or by two. */
#include "run.h"

#include <stdlib.h>
#include <string.h>

#include "eval/run.h"
#include "plan_file.h"

#include <prism_attn/prism_cuda.h>

/* ----------------------------------------------------------------------------------------------- running ---- */

void run_result_free(run_result *r)
{
    free((void *)r->stats.layers);
    free(r->logits);
    lm_text_free(&r->answer);
    *r = (run_result){0};
}

static bool keep_results(const lm_session *session, const lm_model *model, run_result *r, lm_error *err)
{
    lm_session_read_stats(session, &r->stats);
    r->n_vocab = lm_model_config(model)->n_vocab;
    lm_layer_stats *layers = malloc((size_t)r->stats.n_layer * sizeof *layers);
    r->logits = malloc((size_t)r->n_vocab * sizeof *r->logits);
    if (layers)
        memcpy(layers, r->stats.layers, (size_t)r->stats.n_layer * sizeof *layers);
    r->stats.layers = layers;
    if (!layers || !r->logits)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for the results");
    memcpy(r->logits, lm_session_logits(session), (size_t)r->n_vocab * sizeof *r->logits);
    return true;
}

static bool run_once(const run_args *args, const lm_model *model, prism_ctx *ctx, const lm_tokens *tokens,
                     prism_method method, plan_file *plans, run_result *r, lm_error *err)
{
    prism_options options = args->method.options;
    options.method = method;
    lm_session_options so;
    lm_session_options_init(&so);
    so.n_ctx = (int32_t)tokens->n + args->n_answer;
    so.chunk = args->chunk;
    so.options = &options;
    if (plans) {
        so.on_plan = plan_file_add;
        so.user = plans;
    }
    *r = (run_result){.method = method};
    cli_reset_peak();
    lm_session *session;
    if (!lm_session_create(model, ctx, &so, &session, err))
        return false;
    cli_progress bar;
    char label[64];
    snprintf(label, sizeof label, "%-8s prefill", prism_method_name(method));
    cli_progress_start(&bar, label, true);
    const double start = eval_seconds();
    bool ok = lm_session_prefill(session, tokens->ids, (int64_t)tokens->n, cli_progress_update, &bar, err);
    r->prefill_seconds = eval_seconds() - start;
    r->tokens_per_second = (double)tokens->n / r->prefill_seconds;
    cli_progress_end(&bar);
    const eval_answer_rule rule = {.n_most = args->n_answer};
    r->kernel = prism_cuda_attend_kernel(ctx);
    ok = ok && keep_results(session, model, r, err) &&
         eval_answer(session, model, &rule, &r->answer, &r->n_answer, err);
    if (ok) { /* with the decoding in it */
        lm_session_stats stats;
        lm_session_read_stats(session, &stats);
        r->stats.decode_seconds = stats.decode_seconds;
        r->stats.n_decode = stats.n_decode;
        r->peak_bytes = cli_peak_bytes();
    }
    lm_session_destroy(session);
    return ok;
}

/* ----------------------------------------------------------------------------------------------- set-up ---- */

static bool load_prompt(const run_args *args, cli_prompt *prompt, lm_error *err)
{
    if (args->ruler)
        return cli_prompt_from_ruler(args->ruler, args->key, prompt, err);
    return args->file ? cli_prompt_from_file(args->file, prompt, err) : cli_prompt_from_text(args->text, prompt, err);
}

/* Cut from the left, where a question does not stand; BOS stays in front. */
static void keep_last(lm_tokens *tokens, size_t max, bool bos)
{
    if (tokens->n <= max)
        return;
    const size_t skip = tokens->n - max;
    cli_note("the prompt has %zu tokens; its first %zu are dropped (--max-tokens-in)", tokens->n, skip);
    memmove(tokens->ids + bos, tokens->ids + bos + skip, (max - bos) * sizeof *tokens->ids);
    tokens->n = max;
}

static bool tokenize(const run_args *args, const lm_model *model, const cli_prompt *prompt, lm_tokens *tokens,
                     lm_error *err)
{
    const lm_config *config = lm_model_config(model);
    if (!lm_model_tokenizer(model))
        return lm_fail(err, LM_ERROR_INPUT, "'%s' comes without a tokenizer", args->model);
    if (!lm_model_encode(model, prompt->text, prompt->n, true, tokens, err))
        return false;
    if (args->max_tokens_in)
        keep_last(tokens, (size_t)args->max_tokens_in, config->add_bos);
    if (tokens->n + (size_t)args->n_answer > INT32_MAX)
        return lm_fail(err, LM_ERROR_INPUT, "the prompt has %zu tokens: too many", tokens->n);
    if (config->n_ctx_train > 0 && tokens->n > (size_t)config->n_ctx_train)
        cli_note("the prompt has %zu tokens; the model was trained up to %d", tokens->n, config->n_ctx_train);
    return true;
}

static int report(const run_args *args, run_result *results, int n_result, int32_t n_prompt, const cli_prompt *prompt)
{
    for (int i = 0; i < n_result; i++)
        results[i].gold_found = cli_prompt_count_gold(prompt, results[i].answer.data);
    if (args->method.json)
        return cli_print_json(run_to_json(args, results, n_result, n_prompt, prompt));
    for (int i = 0; i < n_result; i++) {
        if (n_result > 1)
            printf("[%s] ", prism_method_name(results[i].method));
        printf("%s\n", results[i].answer.data);
    }
    run_print_table(results, n_result, n_prompt, prompt);
    return EXIT_DONE;
}

static int run_all(const run_args *args, const lm_model *model, prism_ctx *ctx, const cli_prompt *prompt)
{
    lm_error err;
    lm_tokens tokens = {0};
    run_result results[2] = {{0}};
    const int n_result = args->compares ? 2 : 1;
    plan_file plans = {.block_size = args->method.options.block_size};
    bool ok = tokenize(args, model, prompt, &tokens, &err);
    plans.n_token = (int32_t)tokens.n;
    for (int i = 0; ok && i < n_result; i++)
        ok = run_once(args, model, ctx, &tokens, i ? args->compared : args->method.options.method,
                      args->plan_file && i == 0 ? &plans : NULL, &results[i], &err);
    if (ok && args->plan_file)
        ok = plan_file_write(&plans, args->plan_file, &err);
    const int code = ok ? report(args, results, n_result, (int32_t)tokens.n, prompt) : cli_fail_lm(&err);
    for (int i = 0; i < n_result; i++)
        run_result_free(&results[i]);
    plan_file_free(&plans);
    lm_tokens_free(&tokens);
    return code;
}

static int run_command(const run_args *args)
{
    lm_error err;
    cli_prompt prompt;
    lm_model *model = NULL;
    prism_ctx *ctx = NULL;
    int code = cli_create_context(&args->method.device, args->method.n_thread, &ctx);
    if (code)
        return code;
    if (!load_prompt(args, &prompt, &err) || !lm_model_open(args->model, &model, &err))
        code = cli_fail_lm(&err);
    else
        code = run_all(args, model, ctx, &prompt);
    lm_model_close(model);
    prism_destroy(ctx);
    cli_prompt_free(&prompt);
    return code;
}

/* --------------------------------------------------------------------------------------------- arguments ---- */

static int parse_compared(void *args, const char *name)
{
    run_args *a = args;
    a->compares = true;
    return prism_method_find(name, &a->compared)
               ? cli_fail(EXIT_USAGE, "--compare '%s': no such method; 'prism info' lists them", name)
               : EXIT_DONE;
}

#define AT(field) .offset = offsetof(run_args, field)

static const cli_option rows[] = {
    {"model", "MODEL", "a GGUF file, or a Hugging Face directory (Qwen3 or Llama 3 family)", CLI_TEXT, 'm', AT(model)},
    {"file", "FILE", "the prompt is the content of FILE; - is stdin", CLI_TEXT, 'f', AT(file)},
    {"prompt", "TEXT", "the prompt is TEXT", CLI_TEXT, 'p', AT(text)},
    {"ruler-json", "FILE",
     "the prompt is a record of FILE, and its gold answers are checked:\n"
     "{\"0\": {\"origin_prompt\": [{\"role\": \"HUMAN\", \"prompt\": \"...\"}], \"gold\": [\"...\"]}}",
     CLI_TEXT, AT(ruler)},
    {"key", "KEY", "which record (the first)", CLI_TEXT, AT(key)},
    {"n-predict", "N", "tokens to answer with (64); an end-of-text token ends it earlier", CLI_INT, 'n', AT(n_answer),
     .max = 1 << 20},
    {"compare", "M2", "run with method M2 too: speed-up, whether the answers agree, KL divergence", CLI_OTHER,
     .parse = parse_compared},
    {"chunk", "N",
     "prefill in steps of at most N tokens, at least a block, all but the last ending on a\nblock boundary", CLI_INT,
     AT(chunk), .min = 1, .max = INT32_MAX},
    {"max-tokens-in", "N", "keep only the last N tokens of a longer prompt", CLI_INT, AT(max_tokens_in), .min = 2,
     .max = INT32_MAX},
    {"plan", "FILE", "write the block plan of every layer to FILE, safetensors: layer.I u8 [head][row][block]",
     CLI_TEXT, AT(plan_file)},
};

static const cli_command command = {
    .name = "run",
    .intro = "usage: prism run -m MODEL (-f FILE | -p TEXT | --ruler-json FILE) [options]\n\n"
             "Reads a long prompt and answers it, greedily. The prompt is prefilled with block-sparse attention;\n"
             "answers are decoded with full attention. The answer goes to stdout, then a table;\n"
             "progress goes to stderr.\n\n",
    .end = "\nexample: prism run -m models/prism-testbed-32m-q8_0.gguf --ruler-json examples/needle-16k.json "
           "--compare dense\n",
    .own = rows,
    .n_own = sizeof rows / sizeof *rows,
};

static int check_args(const run_args *args)
{
    if (!args->model)
        return cli_fail(EXIT_USAGE, "no model: give one with -m");
    const unsigned compared = args->compares ? 1U << args->compared : 0;
    const int code = cli_check_named(&args->method, compared | 1U << args->method.options.method);
    if (code)
        return code;
    if (!!args->file + !!args->text + !!args->ruler != 1)
        return cli_fail(EXIT_USAGE, "give the prompt by one of -f, -p, --ruler-json");
    const char *inputs[] = {args->model, args->file ? args->file : args->ruler, NULL};
    return cli_check_output(args->plan_file, inputs);
}

int cli_run(int argc, char **argv)
{
    run_args args = {.n_answer = 64};
    bool helped = false;
    cli_method_args_init(&args.method);
    int code = cli_parse(&command, argc, argv, &args, &args.method, &helped);
    if (code || helped)
        return code;
    code = check_args(&args);
    return code ? code : run_command(&args);
}
