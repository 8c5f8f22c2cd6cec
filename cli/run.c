/* prism run: a prompt through the model, by one method or by two. */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan_file.h"

#include <prism_attn/prism_cuda.h>

static const char help[] =
    "usage: prism run -m MODEL (-f FILE | -p TEXT | --ruler-json FILE) [options]\n\n"
    "Reads a long prompt and answers it, greedily. The prompt is prefilled with block-sparse attention, by method\n"
    "moments unless another is named; answers are decoded with full attention. The answer goes to stdout, then a\n"
    "table; progress to stderr.\n\n"
    "  -m, --model MODEL      a GGUF file, or a Hugging Face directory (Qwen3 or Llama 3 family)\n"
    "  -f, --file FILE        the prompt is the content of FILE; - is stdin\n"
    "  -p, --prompt TEXT      the prompt is TEXT\n"
    "  --ruler-json FILE      the prompt is a record of FILE, and its gold answers are checked:\n"
    "                         {\"0\": {\"origin_prompt\": [{\"role\": \"HUMAN\", \"prompt\": \"...\"}], \"gold\": "
    "[\"...\"]}}\n"
    "  --key KEY              which record (the first)\n"
    "  -n, --n-predict N      tokens to answer with (64); an end-of-text token ends it earlier\n"
    "  --compare M2           run with method M2 too: speed-up, whether the answers agree, KL divergence\n"
    "  --chunk N              prefill in steps of at most N tokens, at least a block, all but the last ending on a\n"
    "                         block boundary\n"
    "  --max-tokens-in N      keep only the last N tokens of a longer prompt\n"
    "  --plan FILE            write the block plan of every layer to FILE, safetensors: layer.I u8 [head][row][block]\n"
    "" CLI_METHOD_HELP "\n"
    "example: prism run -m models/prism-testbed-32m-q8_0.gguf --ruler-json examples/needle-16k.json --compare dense\n";

enum { OPT_RULER = OPT_OWN, OPT_KEY, OPT_COMPARE, OPT_CHUNK, OPT_MAX_TOKENS_IN, OPT_PLAN };

/* ----------------------------------------------------------------------------------------------- running ---- */

void run_result_free(run_result *r)
{
    free((void *)r->stats.layers);
    free(r->logits);
    lm_text_free(&r->answer);
    *r = (run_result){0};
}

double run_divergence(const run_result *a, const run_result *b)
{
    double max_a = -INFINITY, max_b = -INFINITY, sum_a = 0, sum_b = 0, divergence = 0;
    for (int32_t i = 0; i < a->n_vocab; i++) {
        max_a = fmax(max_a, a->logits[i]);
        max_b = fmax(max_b, b->logits[i]);
    }
    for (int32_t i = 0; i < a->n_vocab; i++) {
        sum_a += exp(a->logits[i] - max_a);
        sum_b += exp(b->logits[i] - max_b);
    }
    for (int32_t i = 0; i < a->n_vocab; i++) {
        const double log_a = a->logits[i] - max_a - log(sum_a), log_b = b->logits[i] - max_b - log(sum_b);
        divergence += exp(log_a) * (log_a - log_b);
    }
    return fmax(divergence, 0);
}

bool run_answers_agree(const run_result *a, const run_result *b)
{
    return a->answer.n == b->answer.n && !memcmp(a->answer.data, b->answer.data, a->answer.n);
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

static bool answer(lm_session *session, const lm_model *model, int32_t n_answer, run_result *r, lm_error *err)
{
    lm_stream stream = {0};
    for (r->n_answer = 0; r->n_answer < n_answer; r->n_answer++) {
        const int32_t token = lm_session_argmax(session);
        if (lm_model_is_eos(model, token))
            break;
        if (!lm_stream_push(&stream, lm_model_tokenizer(model), token, 0, &r->answer, err))
            return false;
        if (r->n_answer + 1 < n_answer && !lm_session_decode(session, token, err))
            return false;
    }
    return lm_stream_flush(&stream, &r->answer, err) && lm_text_append(&r->answer, "", 0, err);
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
    const double start = cli_now();
    bool ok = lm_session_prefill(session, tokens->ids, (int64_t)tokens->n, cli_progress_update, &bar, err);
    r->prefill_seconds = cli_now() - start;
    r->tokens_per_second = (double)tokens->n / r->prefill_seconds;
    cli_progress_end(&bar);
    r->kernel = prism_cuda_attend_kernel(ctx);
    ok = ok && keep_results(session, model, r, err) && answer(session, model, args->n_answer, r, err);
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
    fprintf(stderr, "note: the prompt has %zu tokens; its first %zu are dropped (--max-tokens-in)\n", tokens->n, skip);
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
        fprintf(stderr, "note: the prompt has %zu tokens; the model was trained up to %d\n", tokens->n,
                config->n_ctx_train);
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
    for (int i = 0; ok && i < n_result; i++) {
        plan_file *kept = args->plan_file && i == 0 ? &plans : NULL;
        ok = run_once(args, model, ctx, &tokens, i ? args->compared : args->method.options.method, kept, &results[i],
                      &err);
        if (!ok && i == 0 && !args->method.names_method && err.kind == LM_ERROR_UNSUPPORTED) {
            fprintf(stderr, "%s: method prism instead\n", err.text);
            run_result_free(&results[i]);
            ok = run_once(args, model, ctx, &tokens, PRISM_METHOD_PRISM, kept, &results[i], &err);
        }
    }
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

static int parse_option(run_args *args, int o, char *const *argv)
{
    switch (o) {
    case 'm': args->model = optarg; return EXIT_DONE;
    case 'f': args->file = optarg; return EXIT_DONE;
    case 'p': args->text = optarg; return EXIT_DONE;
    case 'n': return cli_parse_int("-n", optarg, 0, 1 << 20, &args->n_answer) ? EXIT_DONE : EXIT_USAGE;
    case OPT_RULER: args->ruler = optarg; return EXIT_DONE;
    case OPT_KEY: args->key = optarg; return EXIT_DONE;
    case OPT_PLAN: args->plan_file = optarg; return EXIT_DONE;
    case OPT_COMPARE:
        args->compares = true;
        return prism_method_find(optarg, &args->compared)
                   ? cli_fail(EXIT_USAGE, "--compare '%s': no such method; 'prism info' lists them", optarg)
                   : EXIT_DONE;
    case OPT_CHUNK: return cli_parse_int("--chunk", optarg, 1, INT32_MAX, &args->chunk) ? EXIT_DONE : EXIT_USAGE;
    case OPT_MAX_TOKENS_IN:
        return cli_parse_int("--max-tokens-in", optarg, 2, INT32_MAX, &args->max_tokens_in) ? EXIT_DONE : EXIT_USAGE;
    default: break;
    }
    const int code = cli_method_arg(&args->method, o, optarg);
    return code >= 0 ? code : cli_bad_option(argv, "run");
}

static int check_args(const run_args *args, int argc, char *const *argv)
{
    if (optind < argc)
        return cli_fail(EXIT_USAGE, "unexpected argument '%s': 'prism run --help' tells more", argv[optind]);
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
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"file", required_argument, NULL, 'f'},
                                            {"prompt", required_argument, NULL, 'p'},
                                            {"n-predict", required_argument, NULL, 'n'},
                                            {"ruler-json", required_argument, NULL, OPT_RULER},
                                            {"key", required_argument, NULL, OPT_KEY},
                                            {"compare", required_argument, NULL, OPT_COMPARE},
                                            {"chunk", required_argument, NULL, OPT_CHUNK},
                                            {"max-tokens-in", required_argument, NULL, OPT_MAX_TOKENS_IN},
                                            {"plan", required_argument, NULL, OPT_PLAN},
                                            CLI_METHOD_OPTIONS};
    run_args args = {.n_answer = 64};
    cli_method_args_init(&args.method);
    args.method.options.method = PRISM_METHOD_MOMENTS;
    opterr = 0;
    for (int o; (o = getopt_long(argc, argv, ":m:f:p:n:o:h", options, NULL)) != -1;) {
        if (o == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        const int code = parse_option(&args, o, argv);
        if (code)
            return code;
    }
    const int code = check_args(&args, argc, argv);
    return code ? code : run_command(&args);
}
