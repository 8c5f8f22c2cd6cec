/* prism eval: arguments. */
#include "eval.h"

#include <stdlib.h>
#include <string.h>

static const char help_top[] =
    "usage: prism eval TASK -m MODEL [options]\n\n"
    "Judges attention methods by what a model still knows when its prompts are read with them.\n\n"
    "  ppl        rolling perplexity of long texts: how well each next token is predicted\n"
    "  needle     sentences hidden in a long text and asked for: a grid of depths and lengths\n"
    "  ruler      the 13 tasks of RULER, made for any length\n"
    "  recall     attention mass that the plans keep, against the best possible plan\n\n"
    "'prism eval TASK --help' tells more. To begin with:\n"
    "  prism eval ppl -m MODEL --max-tokens 16384\n";

const char *const eval_family_names[EVAL_N_FAMILY] = {"ppl", "needle", "ruler", "recall"};

/* ----------------------------------------------------------------------------------------------- values ---- */

static int parse_lengths(void *args, const char *text)
{
    eval_args *a = args;
    double values[EVAL_MAX_CTX];
    a->n_ctx = cli_parse_list(text, true, 64, 1 << 24, values, EVAL_MAX_CTX);
    if (a->n_ctx < 0)
        return cli_fail(EXIT_USAGE, "--ctx '%s': give up to %d lengths from 64 to 16384K by comma, 8K,32K", text,
                        EVAL_MAX_CTX);
    for (int32_t i = 0; i < a->n_ctx; i++)
        a->ctx[i] = (int32_t)values[i];
    return EXIT_DONE;
}

static int parse_depths(void *args, const char *text)
{
    eval_args *a = args;
    a->n_depth = cli_parse_list(text, false, 0, 1, a->depths, EVAL_MAX_DEPTH);
    return a->n_depth > 0 ? EXIT_DONE
                          : cli_fail(EXIT_USAGE, "--depths '%s': give up to %d numbers from 0 to 1 by comma", text,
                                     EVAL_MAX_DEPTH);
}

static int parse_haystacks(void *args, const char *text)
{
    eval_args *a = args;
    a->n_haystack = 0;
    for (const char *at = text;; at++) {
        const size_t n = strcspn(at, ",");
        int h = 0;
        while (h < 3 && (strlen(eval_haystack_names[h]) != n || memcmp(eval_haystack_names[h], at, n) != 0))
            h++;
        if (h == 3 || a->n_haystack == 3)
            return cli_fail(EXIT_USAGE, "--haystack '%s': book, needle and noise, each once, by comma", text);
        a->haystacks[a->n_haystack++] = (eval_haystack)h;
        at += n;
        if (!*at)
            return EXIT_DONE;
    }
}

static int add_text(void *args, const char *path)
{
    eval_args *a = args;
    if (a->n_text == EVAL_MAX_TEXT || (a->n_text && a->family != EVAL_PPL))
        return cli_fail(EXIT_USAGE, "'%s': too many texts", path);
    a->texts[a->n_text++] = path;
    return EXIT_DONE;
}

static int take_plot(void *args, const char *path)
{
    static const char *const endings[] = {".svg", ".png", ".pdf", NULL}, *const none[] = {NULL};
    if (!cli_has_ending(path, endings))
        return cli_fail(EXIT_USAGE, "--plot '%s': give a name that ends in .svg, .png or .pdf", path);
    ((eval_args *)args)->plot = path;
    return cli_check_output(path, none);
}

static int take_device(void *args, const char *text)
{
    return cli_parse_device(text, &((eval_args *)args)->device) ? EXIT_DONE : EXIT_USAGE;
}

/* ---------------------------------------------------------------------------------------------- options ---- */

#define AT(field) .offset = offsetof(eval_args, field)
#define COUNT .min = 1, .max = INT32_MAX
#define ROWS(family) .own = family##_rows, .n_own = sizeof family##_rows / sizeof *family##_rows

static const cli_option common_rows[] = {
    {"model", "MODEL", "a GGUF file, or a Hugging Face directory (docs/models.md)", CLI_TEXT, 'm', AT(model)},
    {"methods", "LIST",
     "methods by comma, options of a method by colon (dense and the library's default):\n"
     "--methods dense,prism:top_p=0.9,prism:calibration=global,meanpool",
     CLI_TEXT, AT(methods)},
    {"ctx", "N[,N...]", "context lengths in tokens; K counts 1024: 8K,32K", CLI_OTHER, .parse = parse_lengths},
    {"results", "FILE",
     "keep every finished sample in FILE (JSON Lines); the same command, run again after it was\n"
     "stopped, goes on where it was. More methods, lengths and samples may be added later;\n"
     "a FILE of another model or other settings is refused",
     CLI_TEXT, AT(results)},
    {"device", "D", cli_device_help, CLI_OTHER, .parse = take_device},
    {"threads", "T", cli_threads_help, CLI_INT, AT(n_thread), .min = 1, .max = 1024},
    {"kv-type", "T", cli_kv_help, CLI_CHOICE, AT(kv), .max = CLI_N_KV, .choices = cli_kv_names},
    {"json", NULL, "one JSON object on stdout, for machines", CLI_FLAG, AT(json)},
    /* recall prefills by full attention in one step: the last two are not its */
    {"chunk", "N", "prefill in steps of at most N tokens, at least a block (whole prompt)", CLI_INT, AT(chunk), COUNT},
    {"plan-on-cpu", NULL, "with --device cuda: the CPU makes the plans of methods that the GPU has no kernels for",
     CLI_FLAG, AT(plan_on_cpu)},
};
enum { N_COMMON = sizeof common_rows / sizeof *common_rows };

static const cli_option ppl_rows[] = {
    {"text", "FILE", "a text; again for more, or as plain arguments", CLI_OTHER, .parse = add_text},
    {"max-tokens", "N", "use the first N tokens of each text only", CLI_INT, AT(max_tokens), COUNT},
    {"by-position", NULL, "also show perplexity by position in the window", CLI_FLAG, AT(by_position)},
    {"plot", "FILE",
     "draw it too, as FILE (.svg or .png), by python3 with matplotlib; goes with --by-position", CLI_OTHER,
     .parse = take_plot},
};

static const cli_option needle_rows[] = {
    {"haystack", "LIST", "book, needle, noise (book)", CLI_OTHER, .parse = parse_haystacks},
    {"text", "FILE", "text of the book haystack (the bundled novel)", CLI_OTHER, .parse = add_text},
    {"depths", "LIST", "where the needle stands, 0 start to 1 end (0,0.25,0.5,0.75,1)", CLI_OTHER,
     .parse = parse_depths},
    {"keys", "N", "needles woven in (4)", CLI_INT, AT(n_key), .min = 1, .max = 1 << 16},
    {"key-type", "T", "word (default), number or uuid", CLI_CHOICE, AT(key), .choices = eval_payload_names, .max = 3},
    {"value-type", "T", "number (default), word or uuid", CLI_CHOICE, AT(value), .choices = eval_payload_names,
     .max = 3},
    {"samples", "N", "prompts for each cell of the grid (4)", CLI_INT, AT(n_sample), .min = 1, .max = 1 << 20},
    {"seed", "S", "of the first prompt (1)", CLI_INT, AT(seed), .max = INT32_MAX},
    {"no-chat", NULL, "plain text, although the model has a chat template", CLI_FLAG, AT(no_chat)},
    {"plot", "FILE", "draw the grid as a heat map, FILE .svg or .png, by python3 with matplotlib", CLI_OTHER,
     .parse = take_plot},
};

static const cli_option ruler_rows[] = {
    {"tasks", "LIST", "names, or all, niah, qa, synthetic (synthetic: all but qa)", CLI_TEXT, AT(tasks)},
    {"samples", "N", "per task (100)", CLI_INT, AT(n_sample), .min = 1, .max = 1 << 20},
    {"seed", "S", "(42)", CLI_INT, AT(seed), .max = INT32_MAX},
    {"text", "FILE", "haystack text (the bundled novel)", CLI_OTHER, .parse = add_text},
    {"folder", "DIR", "a folder of essays (.txt) as haystack", CLI_TEXT, AT(folder)},
    {"squad", "FILE", "SQuAD 2.0 development set, for qa_squad", CLI_TEXT, AT(squad)},
    {"hotpot", "FILE", "HotpotQA development set with distractors, for qa_hotpot", CLI_TEXT, AT(hotpot)},
    {"no-chat", NULL, "plain text, although the model has a chat template", CLI_FLAG, AT(no_chat)},
};

static const cli_option recall_rows[] = {
    {"text", "FILE", "the prompt is the first N tokens (--ctx) of FILE (the bundled novel)", CLI_OTHER,
     .parse = add_text},
    {"ruler-json", "FILE", "the prompt is the first record of FILE, as for 'prism run'; cut to --ctx", CLI_TEXT,
     AT(ruler_json)},
    {"rows", "N", "query blocks examined in each head, evenly spaced; 0: all (8)", CLI_INT, AT(n_row),
     .max = INT32_MAX},
    {"plot", "FILE", "draw layers by heads as FILE (.svg or .png), by python3 with matplotlib", CLI_OTHER,
     .parse = take_plot},
};

static const cli_command commands[EVAL_N_FAMILY] = {
    [EVAL_PPL] = {.name = "eval ppl",
                  .intro =
                      "usage: prism eval ppl -m MODEL [options] [TEXT...]\n\n"
                      "Rolling perplexity of text files (the bundled novel): windows of the context length, each\n"
                      "token predicted once. word: exp of the mean loss per word, as lm-eval reports it; token and\n"
                      "byte likewise.\n\n",
                  ROWS(ppl), .shared = common_rows, .n_shared = N_COMMON, .word = add_text},
    [EVAL_NEEDLE] = {.name = "eval needle",
                     .intro = "usage: prism eval needle -m MODEL [options]\n\n"
                              "Hides sentences with magic words, numbers or UUIDs in a long text and asks for one of\n"
                              "them. The wording is that of RULER's needle tasks, as the bundled model was trained on "
                              "it.\n\n",
                     ROWS(needle), .shared = common_rows, .n_shared = N_COMMON},
    [EVAL_RULER] = {.name = "eval ruler",
                    .intro = "usage: prism eval ruler -m MODEL [options]\n\n"
                             "RULER's tasks, generated for each context length with the model's own tokenizer.\n\n",
                    ROWS(ruler), .shared = common_rows, .n_shared = N_COMMON},
    [EVAL_RECALL] = {.name = "eval recall",
                     .intro = "usage: prism eval recall -m MODEL [options] [TEXT]\n\n"
                              "Attention mass that each method's plan keeps, per layer and head, on q, k, v of full\n"
                              "attention; the error of its output; its density; and the density of the oracle, the\n"
                              "fewest blocks with the same mass.\n\n",
                     ROWS(recall), .shared = common_rows, .n_shared = N_COMMON - 2, .word = add_text},
};

static void set_defaults(eval_args *a, eval_family family)
{
    *a = (eval_args){.family = family,
                     .ctx = {8192},
                     .n_ctx = 1,
                     .n_row = 8,
                     .n_haystack = 1,
                     .depths = {0, 0.25, 0.5, 0.75, 1},
                     .n_depth = 5,
                     .n_key = 4,
                     .value = EVAL_PAYLOAD_NUMBER,
                     .n_sample = family == EVAL_NEEDLE ? 4 : 0,
                     .seed = family == EVAL_NEEDLE ? 1 : 42};
}

static int check_args(const eval_args *a)
{
    if (!a->model)
        return cli_fail(EXIT_USAGE, "no model: give one with -m");
    if (a->results && !strcmp(a->results, "-"))
        return cli_fail(EXIT_USAGE, "--results -: results are read again when a run goes on; name a file");
    if (a->ruler_json && a->n_text)
        return cli_fail(EXIT_USAGE, "give the prompt by one of --text and --ruler-json");
    if (a->family == EVAL_RECALL && a->n_ctx > 1)
        return cli_fail(EXIT_USAGE, "recall takes one length");
    return EXIT_DONE;
}

/* ------------------------------------------------------------------------------------------------ running ---- */

static bool open_results(eval_bench *b, lm_error *err)
{
    cJSON *settings = eval_settings(b, err);
    cJSON *header =
        settings ? eval_header_create(eval_family_names[b->args->family], b->args->model, b->model, settings, err)
                 : NULL;
    return header && eval_results_open(b->args->results, header, &b->results, err);
}

static bool prepare(eval_bench *b, lm_error *err)
{
    if (!eval_methods_parse(b->args->methods, NULL, &b->methods, err))
        return false;
    for (int32_t i = 0; i < b->methods.n; i++)
        if (!cli_check_chunk(b->args->chunk, b->methods.items[i].options.block_size, err))
            return false;
    if (!lm_model_open(b->args->model, &b->model, err))
        return false;
    if (!b->args->no_chat && b->args->family != EVAL_PPL && b->args->family != EVAL_RECALL) {
        if (!eval_chat_open(b->args->model, NULL, NULL, &b->chat, err))
            return false;
        if (b->chat.has_template && !eval_chat_is_formed(&b->chat))
            cli_note("the model's chat template (%s) is not supported; prompts are plain text",
                     eval_chat_name(&b->chat));
    }
    if (lm_model_tokenizer(b->model) && !eval_chat_reserve(&b->chat, b->model, &b->n_reserve, err))
        return false;
    return open_results(b, err);
}

static int report(const eval_bench *b)
{
    cJSON *json = b->args->json || b->args->plot ? eval_to_json(b) : NULL;
    const int code = b->args->plot ? eval_plot(json, b->args->plot) : EXIT_DONE;
    if (b->args->json) {
        const int printed = cli_print_json(json);
        return code ? code : printed;
    }
    cJSON_Delete(json);
    const int printed = eval_print_tables(b);
    return code ? code : printed;
}

static int evaluate(const eval_args *args)
{
    lm_error err;
    eval_bar bar = {.visible = true};
    eval_bench b = {.args = args, .watch = eval_bar_watch(&bar)};
    int code = cli_create_context(&args->device, args->n_thread, &b.ctx);
    if (code)
        return code;
    bool ok = prepare(&b, &err);
    for (int32_t i = 0; ok && i < args->n_ctx; i++)
        ok = eval_family_run(&b, args->ctx[i], &err);
    eval_bar_end(&bar);
    code = ok ? report(&b) : cli_fail_lm(&err);
    eval_results_close(b.results);
    eval_bench_free_family(&b);
    eval_chat_free(&b.chat);
    eval_methods_free(&b.methods);
    lm_model_close(b.model);
    prism_destroy(b.ctx);
    return code;
}

int cli_eval(int argc, char **argv)
{
    if (argc < 2 || !strcmp(argv[1], "-h") || !strcmp(argv[1], "--help")) {
        fputs(help_top, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_DONE;
    }
    int family = 0;
    while (family < EVAL_N_FAMILY && strcmp(argv[1], eval_family_names[family]) != 0)
        family++;
    if (family == EVAL_N_FAMILY)
        return cli_fail(EXIT_USAGE, "eval '%s': the tasks are ppl, needle, ruler and recall", argv[1]);
    eval_args args;
    bool helped = false;
    set_defaults(&args, (eval_family)family);
    int code = cli_parse(&commands[family], argc - 1, argv + 1, &args, NULL, &helped);
    if (code || helped)
        return code;
    code = check_args(&args);
    if (!code && args.plot)
        code = eval_plot_check();
    return code ? code : evaluate(&args);
}
