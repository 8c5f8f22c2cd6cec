/* prism run: a prompt through the model, by one method or by two. */
#include "run.h"

#include <stddef.h>

/* ----------------------------------------------------------------------------------------------- set-up ---- */

static bool load_prompt(const run_args *args, cli_prompt *prompt, lm_error *err)
{
    if (args->ruler)
        return cli_prompt_from_ruler(args->ruler, args->key, prompt, err);
    if (!args->file)
        return cli_prompt_from_text(args->text, prompt, err);
    if (!cli_prompt_from_file(args->file, args->text, prompt, err))
        return false;
    cli_note_utf8(args->file, prompt->text, prompt->n);
    return true;
}

/* Finds the form in which the model is asked; *asked is NULL for plain text. */
static bool open_chat(const run_args *args, eval_chat *chat, const eval_chat **asked, lm_error *err)
{
    char names[256];
    const bool wanted = args->chat || args->system || args->template;
    *asked = NULL;
    if (!eval_chat_open(args->model, args->template, args->system, chat, err))
        return false;
    if (wanted && !eval_chat_is_formed(chat))
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: its chat template is not supported (form: %s); choose one by "
                       "--chat-template: %s",
                       args->model, eval_chat_name(chat), eval_chat_names(names, sizeof names));
    if (!wanted && chat->has_template)
        cli_note("the model has a chat template (%s), and the prompt goes to it as plain text: --chat writes it as a "
                   "chat", eval_chat_name(chat));
    *asked = wanted ? chat : NULL;
    return true;
}

static bool tokenize(const run_args *args, const lm_model *model, const eval_chat *chat, const cli_prompt *prompt,
                     lm_tokens *tokens, lm_error *err)
{
    const lm_config *config = lm_model_config(model);
    const int32_t most = args->max_tokens_in ? args->max_tokens_in : INT32_MAX - args->n_answer;
    int32_t n_dropped;
    if (!lm_model_tokenizer(model))
        return lm_fail(err, LM_ERROR_INPUT, "'%s' comes without a tokenizer", args->model);
    if (!eval_chat_encode(chat, model, prompt->text, prompt->n, NULL, most, tokens, &n_dropped, err))
        return false;
    if (n_dropped)
        cli_note("the prompt has %zu tokens; its first %d are dropped (--max-tokens-in)",
             tokens->n + (size_t)n_dropped, n_dropped);
    if (config->n_ctx_train > 0 && tokens->n > (size_t)config->n_ctx_train)
        cli_note("the prompt has %zu tokens; the model was trained up to %d", tokens->n, config->n_ctx_train);
    return true;
}

/* --------------------------------------------------------------------------------------------- running ---- */

static int report(const run_job *job, run_result *results, int n_result, const cli_prompt *prompt)
{
    int code = EXIT_DONE;
    for (int i = 0; i < n_result; i++)
        results[i].gold_found = cli_prompt_count_gold(prompt, results[i].answer.data);
    if (job->args->method.json)
        code = cli_print_json(run_to_json(job, results, n_result, prompt));
    else if (!job->args->quiet)
        run_print_table(results, n_result, (int32_t)job->tokens->n, prompt);
    return !code && results[n_result - 1].interrupted ? EXIT_INTERRUPTED : code;
}

static int run_all(run_job *job, const cli_prompt *prompt)
{
    lm_error err;
    lm_tokens tokens = {0};
    eval_chat chat = {0};
    run_result results[2] = {{0}};
    const run_args *args = job->args;
    plan_file plans = {.block_size = args->method.options.block_size, .method = args->method.options.method};
    int n_result = 0;
    bool ok = open_chat(args, &chat, &job->chat, &err) && tokenize(args, job->model, job->chat, prompt, &tokens, &err);
    plans.n_token = (int32_t)tokens.n;
    job->tokens = &tokens;
    job->plans = &plans;
    while (ok && n_result < 1 + args->compares && !(n_result && results[0].interrupted)) {
        const prism_method method = n_result ? args->compared : args->method.options.method;
        ok = run_once(job, method, n_result > 0, &results[n_result], &err);
        n_result++;
    }
    if (ok && args->plan_file)
        ok = plan_file_write(&plans, args->plan_file, &err);
    const int code = ok ? report(job, results, n_result, prompt) : cli_fail_lm(&err);
    for (int i = 0; i < n_result; i++)
        run_result_free(&results[i]);
    eval_chat_free(&chat);
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
        code = run_all(&(run_job){.args = args, .model = model, .ctx = ctx}, &prompt);
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
    {"model", "MODEL", "a GGUF file, or a Hugging Face directory (docs/models.md)", CLI_TEXT, 'm', AT(model)},
    {"file", "FILE", "the prompt is the content of FILE; - is stdin", CLI_TEXT, 'f', AT(file)},
    {"prompt", "TEXT", "the prompt is TEXT; with -f, a question that follows FILE after an empty line", CLI_TEXT, 'p',
     AT(text)},
    {"ruler-json", "FILE",
     "the prompt is a record of FILE, and its gold answers are checked:\n"
     "{\"0\": {\"origin_prompt\": [{\"role\": \"HUMAN\", \"prompt\": \"...\"}], \"gold\": [\"...\"]}}",
     CLI_TEXT, AT(ruler)},
    {"key", "KEY", "which record (the first)", CLI_TEXT, AT(key)},
    {"chat", NULL, "ask as a chat, in the form of the model's chat template; without, the prompt is plain text",
     CLI_FLAG, AT(chat)},
    {"system", "TEXT", "the chat's system turn (the template's own, if it has one)", CLI_TEXT, AT(system)},
    {"chat-template", "NAME",
     "the chat's form, instead of the template's: chatml, llama2, llama3, mistral-v3 and others;\n"
     "an unknown NAME lists them",
     CLI_TEXT, AT(template)},
    {"n-predict", "N", "tokens to answer with (64); an end-of-text token ends it earlier", CLI_INT, 'n', AT(n_answer),
     .max = 1 << 20},
    {"compare", "M2", "run with method M2 too: speed-up, whether the answers agree, KL divergence", CLI_OTHER,
     .parse = parse_compared},
    {"kv-type", "T", cli_kv_help, CLI_CHOICE, AT(kv), .max = CLI_N_KV, .choices = cli_kv_names},
    {"chunk", "N",
     "prefill in steps of at most N tokens, at least a block, all but the last ending on a\nblock boundary", CLI_INT,
     AT(chunk), .min = 1, .max = INT32_MAX},
    {"max-tokens-in", "N", "keep only the last N tokens of a longer prompt", CLI_INT, AT(max_tokens_in), .min = 2,
     .max = INT32_MAX},
    {"plan", "FILE", "write the block plan of every layer to FILE, safetensors: layer.I u8 [head][row][block]",
     CLI_TEXT, AT(plan_file)},
    {"quiet", NULL, "the answer only: no progress, no notes, no table", CLI_FLAG, 'q', AT(quiet)},
};

static const cli_command command = {
    .name = "run",
    .intro = "usage: prism run -m MODEL (-f FILE | -p TEXT | -f FILE -p TEXT | --ruler-json FILE) [options]\n\n"
             "Reads a long prompt and answers it, greedily. The prompt is prefilled with block-sparse attention;\n"
             "answers are decoded with full attention. The answer goes to stdout, token by token, and nothing else\n"
             "does; progress, notes and a table go to stderr. ctrl-C ends the answer; the table still comes.\n\n",
    .end = "\nexample: prism run -m MODEL --chat -f book.txt -p \"Who is the captain?\" --compare dense\n",
    .own = rows,
    .n_own = sizeof rows / sizeof *rows,
};

static int check_args(const run_args *args)
{
    if (!args->model)
        return cli_fail(EXIT_USAGE, "no model: give one with -m");
    if (args->quiet)
        cli_silence_notes();
    const unsigned compared = args->compares ? 1U << args->compared : 0;
    lm_error err;
    const int code = cli_check_named(&args->method, compared | 1U << args->method.options.method);
    if (code)
        return code;
    if (!cli_check_chunk(args->chunk, args->method.options.block_size, &err))
        return cli_fail_lm(&err);
    if (args->ruler ? args->file || args->text : !args->file && !args->text)
        return cli_fail(EXIT_USAGE, "give the prompt by -f, by -p or both, or by --ruler-json");
    if (cli_is_stdout(args->plan_file))
        return cli_fail(EXIT_USAGE, "--plan %s: the answer goes to standard output; name a file", args->plan_file);
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
