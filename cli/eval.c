/* prism eval: arguments. */
#include "eval.h"

#include <stdlib.h>
#include <string.h>

static const char help_top[] =
    "usage: prism eval TASK -m MODEL [options]\n\n"
    "Judges attention methods by what a model still knows when its prompts are read with them.\n\n"
    "  ppl        rolling perplexity of long texts: how well each next token is foretold\n"
    "  needle     sentences hidden in a long text and asked for: a grid of depths and lengths\n"
    "  ruler      the 13 tasks of RULER, made for any length\n"
    "  recall     attention mass that the plans keep, against the best possible plan\n\n"
    "'prism eval TASK --help' tells more. To begin with:\n"
    "  prism eval ppl -m models/prism-testbed-32m-q8_0.gguf --max-tokens 16384\n";

static const char help_common[] =
    "  -m, --model MODEL      a GGUF file, or a Hugging Face directory (Qwen3 or Llama 3 family)\n"
    "  --methods LIST         methods by comma, options of a method by colon (dense,prism):\n"
    "                         --methods dense,prism:top_p=0.9,prism:calibration=global,meanpool\n"
    "  --ctx N[,N...]         context lengths in tokens; K counts 1024: 8K,32K\n"
    "  --results FILE         keep every finished sample in FILE (JSON Lines); the same command, run again after it "
    "was\n"
    "                         stopped, goes on where it was. More methods, lengths and samples may be added later;\n"
    "                         a FILE of another model or other settings is refused\n"
    "  --chunk N              prefill in steps of at most N tokens (whole prompt)\n" CLI_DEVICE_HELP
    "  --plan-on-cpu          with --device cuda: the CPU makes the plans of methods that the GPU has no kernels for\n"
    "  --json                 one JSON object on stdout, for machines\n"
    "  -h, --help             this text\n";

static const char *const help_family[EVAL_N_FAMILY] = {
    [EVAL_PPL] =
        "usage: prism eval ppl -m MODEL [options] [TEXT...]\n\n"
        "Rolling perplexity of text files (the bundled novel): windows of the context length, each token foretold\n"
        "once. word: exp of the mean loss per word, as lm-eval reports it; token and byte likewise.\n\n"
        "  --text FILE            a text; again for more, or as plain arguments\n"
        "  --max-tokens N         use the first N tokens of each text only\n"
        "  --by-position          perplexity by position in the window too\n"
        "  --plot FILE            draw that as FILE (.svg or .png), by python3 with matplotlib\n",
    [EVAL_NEEDLE] =
        "usage: prism eval needle -m MODEL [options]\n\n"
        "Hides sentences with magic words, numbers or UUIDs in a long text and asks for one of them. The wording is\n"
        "that of RULER's needle tasks, as the bundled model was trained on it.\n\n"
        "  --haystack LIST        book, needle, noise (book)\n"
        "  --text FILE            text of the book haystack (the bundled novel)\n"
        "  --depths LIST          where the needle stands, 0 start to 1 end (0,0.25,0.5,0.75,1)\n"
        "  --keys N               needles woven in (4)\n"
        "  --key-type T           word (default), number or uuid\n"
        "  --value-type T         number (default), word or uuid\n"
        "  --samples N            prompts for each cell of the grid (4)\n"
        "  --seed S               of the first prompt (1)\n"
        "  --plot FILE            draw the grid as a heat map, FILE .svg or .png, by python3 with matplotlib\n",
    [EVAL_RULER] = "usage: prism eval ruler -m MODEL [options]\n\n"
                   "RULER's tasks, generated for each context length with the model's own tokenizer.\n\n"
                   "  --tasks LIST           names, or all, niah, qa, synthetic (synthetic: all but qa)\n"
                   "  --samples N            per task (100)\n"
                   "  --seed S               (42)\n"
                   "  --text FILE            haystack text (the bundled novel)\n"
                   "  --folder DIR           a folder of essays (.txt) as haystack\n"
                   "  --squad FILE           SQuAD 2.0 development set, for qa_squad\n"
                   "  --hotpot FILE          HotpotQA development set with distractors, for qa_hotpot\n"
                   "  --no-chat              plain text, although the model has a chat template\n",
    [EVAL_RECALL] =
        "usage: prism eval recall -m MODEL [options] [TEXT]\n\n"
        "Attention mass that each method's plan keeps, per layer and head, on q, k, v of full attention; the error of\n"
        "its output; its density; and the density of the oracle, the fewest blocks with the same mass.\n\n"
        "  --text FILE            the prompt is the first N tokens (--ctx) of FILE (the bundled novel)\n"
        "  --ruler-json FILE      the prompt is the first record of FILE, as for 'prism run'; cut to --ctx\n"
        "  --rows N               query blocks examined in each head, evenly spaced; 0: all (8)\n"
        "  --plot FILE            draw layers by heads as FILE (.svg or .png), by python3 with matplotlib\n",
};

const char *const eval_family_names[EVAL_N_FAMILY] = {"ppl", "needle", "ruler", "recall"};

enum {
    OPT_METHODS = OPT_OWN,
    OPT_CTX,
    OPT_RESULTS,
    OPT_CHUNK,
    OPT_PLAN_ON_CPU,
    OPT_TEXT,
    OPT_MAX_TOKENS,
    OPT_BY_POSITION,
    OPT_PLOT,
    OPT_HAYSTACK,
    OPT_DEPTHS,
    OPT_KEYS,
    OPT_KEY_TYPE,
    OPT_VALUE_TYPE,
    OPT_SAMPLES,
    OPT_SEED,
    OPT_TASKS,
    OPT_FOLDER,
    OPT_SQUAD,
    OPT_HOTPOT,
    OPT_NO_CHAT,
    OPT_RULER_JSON,
    OPT_ROWS
};

/* Which families take an option; those not listed are common. */
enum { P = 1 << EVAL_PPL, N = 1 << EVAL_NEEDLE, R = 1 << EVAL_RULER, C = 1 << EVAL_RECALL };
static const struct {
    int option, families;
} taken_by[] = {
    {OPT_TEXT, P | N | R | C},
    {OPT_MAX_TOKENS, P},
    {OPT_BY_POSITION, P},
    {OPT_PLOT, P | N | C},
    {OPT_HAYSTACK, N},
    {OPT_DEPTHS, N},
    {OPT_KEYS, N},
    {OPT_KEY_TYPE, N},
    {OPT_VALUE_TYPE, N},
    {OPT_SAMPLES, N | R},
    {OPT_SEED, N | R},
    {OPT_TASKS, R},
    {OPT_FOLDER, R},
    {OPT_SQUAD, R},
    {OPT_HOTPOT, R},
    {OPT_NO_CHAT, N | R},
    {OPT_RULER_JSON, C},
    {OPT_ROWS, C},
    {OPT_CHUNK, P | N | R},
    {OPT_PLAN_ON_CPU, P | N | R},
};

/* ----------------------------------------------------------------------------------------------- values ---- */

static int usage(bool ok)
{
    return ok ? EXIT_DONE : EXIT_USAGE;
}

/* "8192,32K" */
static bool parse_lengths(const char *text, eval_args *a)
{
    a->n_ctx = 0;
    for (const char *at = text;; at++) {
        char *end;
        long long n = strtoll(at, &end, 10);
        const bool number = end != at;
        if (*end == 'K' || *end == 'k') {
            n *= 1024;
            end++;
        }
        if (!number || n < 64 || n > 1 << 24 || (*end && *end != ',') || a->n_ctx == EVAL_MAX_CTX) {
            cli_fail(EXIT_USAGE, "--ctx '%s': up to %d lengths from 64 to 16384K are wanted, e.g. 8K,32K", text,
                     EVAL_MAX_CTX);
            return false;
        }
        a->ctx[a->n_ctx++] = (int32_t)n;
        at = end;
        if (!*at)
            return true;
    }
}

static bool parse_depths(const char *text, eval_args *a)
{
    a->n_depth = 0;
    for (const char *at = text;; at++) {
        char *end;
        const double depth = strtod(at, &end);
        if (end == at || !(depth >= 0 && depth <= 1) || (*end && *end != ',') || a->n_depth == EVAL_MAX_DEPTH) {
            cli_fail(EXIT_USAGE, "--depths '%s': up to %d numbers from 0 to 1 are wanted", text, EVAL_MAX_DEPTH);
            return false;
        }
        a->depths[a->n_depth++] = depth;
        at = end;
        if (!*at)
            return true;
    }
}

static bool parse_haystacks(const char *text, eval_args *a)
{
    a->n_haystack = 0;
    for (const char *at = text;; at++) {
        const size_t n = strcspn(at, ",");
        if (a->n_haystack == 3 || !eval_haystack_find(at, n, &a->haystacks[a->n_haystack])) {
            cli_fail(EXIT_USAGE, "--haystack '%s': book, needle and noise, each once, by comma", text);
            return false;
        }
        a->n_haystack++;
        at += n;
        if (!*at)
            return true;
    }
}

static bool parse_payload(const char *name, const char *text, eval_payload *out)
{
    if (eval_payload_find(text, out))
        return true;
    cli_fail(EXIT_USAGE, "%s '%s': word, number or uuid", name, text);
    return false;
}

static bool add_text(const char *path, eval_args *a)
{
    if (a->n_text == EVAL_MAX_TEXT || (a->n_text && a->family != EVAL_PPL)) {
        cli_fail(EXIT_USAGE, "'%s': too many texts", path);
        return false;
    }
    a->texts[a->n_text++] = path;
    return true;
}

/* ---------------------------------------------------------------------------------------------- options ---- */

static int parse_family_option(eval_args *a, int o)
{
    switch (o) {
    case OPT_HAYSTACK: return usage(parse_haystacks(optarg, a));
    case OPT_DEPTHS: return usage(parse_depths(optarg, a));
    case OPT_KEYS: return usage(cli_parse_int("--keys", optarg, 1, 1 << 16, &a->n_key));
    case OPT_KEY_TYPE: return usage(parse_payload("--key-type", optarg, &a->key));
    case OPT_VALUE_TYPE: return usage(parse_payload("--value-type", optarg, &a->value));
    case OPT_SAMPLES: return usage(cli_parse_int("--samples", optarg, 1, 1 << 20, &a->n_sample));
    case OPT_SEED: return usage(cli_parse_int("--seed", optarg, 0, INT32_MAX, &a->seed));
    case OPT_MAX_TOKENS: return usage(cli_parse_int("--max-tokens", optarg, 1, INT32_MAX, &a->max_tokens));
    case OPT_ROWS: return usage(cli_parse_int("--rows", optarg, 0, INT32_MAX, &a->n_row));
    case OPT_TASKS: a->tasks = optarg; return EXIT_DONE;
    case OPT_FOLDER: a->folder = optarg; return EXIT_DONE;
    case OPT_SQUAD: a->squad = optarg; return EXIT_DONE;
    case OPT_HOTPOT: a->hotpot = optarg; return EXIT_DONE;
    case OPT_NO_CHAT: a->no_chat = true; return EXIT_DONE;
    case OPT_BY_POSITION: a->by_position = true; return EXIT_DONE;
    default: a->ruler_json = optarg; return EXIT_DONE;
    }
}

static int take_plot(const char *path, eval_args *a)
{
    static const char *const endings[] = {".svg", ".png", ".pdf", NULL}, *const none[] = {NULL};
    if (!cli_has_ending(path, endings))
        return cli_fail(EXIT_USAGE, "--plot '%s': a name that ends in .svg, .png or .pdf is wanted", path);
    a->plot = path;
    return cli_check_output(path, none);
}

static int parse_option(eval_args *a, int o, const char *name)
{
    for (size_t i = 0; i < sizeof taken_by / sizeof *taken_by; i++)
        if (taken_by[i].option == o && !(taken_by[i].families & 1 << a->family))
            return cli_fail(EXIT_USAGE, "--%s means nothing to eval %s: 'prism eval %s --help' lists its options", name,
                            eval_family_names[a->family], eval_family_names[a->family]);
    switch (o) {
    case 'm': a->model = optarg; return EXIT_DONE;
    case OPT_METHODS: a->methods = optarg; return EXIT_DONE;
    case OPT_CTX: return usage(parse_lengths(optarg, a));
    case OPT_RESULTS: a->results = optarg; return EXIT_DONE;
    case OPT_PLOT: return take_plot(optarg, a);
    case OPT_TEXT: return usage(add_text(optarg, a));
    case OPT_CHUNK: return usage(cli_parse_int("--chunk", optarg, 1, INT32_MAX, &a->chunk));
    case OPT_THREADS: return usage(cli_parse_int("--threads", optarg, 1, 1024, &a->n_thread));
    case OPT_DEVICE: return usage(cli_parse_device(optarg, &a->device));
    case OPT_PLAN_ON_CPU: a->plan_on_cpu = true; return EXIT_DONE;
    case OPT_JSON: a->json = true; return EXIT_DONE;
    default: return parse_family_option(a, o);
    }
}

static void set_defaults(eval_args *a)
{
    static const int32_t lengths[EVAL_N_FAMILY] = {8192, 8192, 8192, 8192};
    static const double depths[] = {0, 0.25, 0.5, 0.75, 1};
    const eval_family family = a->family;
    *a = (eval_args){.family = family,
                     .methods = "dense,prism",
                     .n_ctx = 1,
                     .n_row = 8,
                     .n_haystack = 1,
                     .n_depth = 5,
                     .n_key = 4,
                     .value = EVAL_PAYLOAD_NUMBER};
    a->ctx[0] = lengths[family];
    memcpy(a->depths, depths, sizeof depths);
    a->n_sample = a->family == EVAL_NEEDLE ? 4 : 0;
    a->seed = a->family == EVAL_NEEDLE ? 1 : 42;
}

static int check_args(eval_args *a, int argc, char **argv)
{
    for (; optind < argc; optind++) {
        if (a->family != EVAL_PPL && a->family != EVAL_RECALL)
            return cli_fail(EXIT_USAGE, "unexpected argument '%s': 'prism eval %s --help' tells more", argv[optind],
                            eval_family_names[a->family]);
        if (!add_text(argv[optind], a))
            return EXIT_USAGE;
    }
    if (!a->model)
        return cli_fail(EXIT_USAGE, "no model: give one with -m");
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
    if (!eval_methods_parse(b->args->methods, NULL, &b->methods, err) || !lm_model_open(b->args->model, &b->model, err))
        return false;
    if (!b->args->no_chat && b->args->family != EVAL_PPL && b->args->family != EVAL_RECALL) {
        if (!eval_chat_open(b->args->model, &b->chat, err))
            return false;
        if (b->chat.form == EVAL_CHAT_UNKNOWN)
            fprintf(stderr,
                    "note: the model's chat template is of a form that is not known here; prompts are plain text\n");
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
    eval_print_tables(b);
    return code;
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
    eval_methods_free(&b.methods);
    lm_model_close(b.model);
    prism_destroy(b.ctx);
    return code;
}

static int parse_args(eval_args *args, int argc, char **argv, bool *helped)
{
    static const struct option options[] = {{"model", 1, NULL, 'm'},
                                            {"methods", 1, NULL, OPT_METHODS},
                                            {"ctx", 1, NULL, OPT_CTX},
                                            {"results", 1, NULL, OPT_RESULTS},
                                            {"chunk", 1, NULL, OPT_CHUNK},
                                            {"text", 1, NULL, OPT_TEXT},
                                            {"max-tokens", 1, NULL, OPT_MAX_TOKENS},
                                            {"by-position", 0, NULL, OPT_BY_POSITION},
                                            {"plot", 1, NULL, OPT_PLOT},
                                            {"haystack", 1, NULL, OPT_HAYSTACK},
                                            {"depths", 1, NULL, OPT_DEPTHS},
                                            {"keys", 1, NULL, OPT_KEYS},
                                            {"key-type", 1, NULL, OPT_KEY_TYPE},
                                            {"value-type", 1, NULL, OPT_VALUE_TYPE},
                                            {"samples", 1, NULL, OPT_SAMPLES},
                                            {"seed", 1, NULL, OPT_SEED},
                                            {"tasks", 1, NULL, OPT_TASKS},
                                            {"folder", 1, NULL, OPT_FOLDER},
                                            {"squad", 1, NULL, OPT_SQUAD},
                                            {"hotpot", 1, NULL, OPT_HOTPOT},
                                            {"no-chat", 0, NULL, OPT_NO_CHAT},
                                            {"ruler-json", 1, NULL, OPT_RULER_JSON},
                                            {"rows", 1, NULL, OPT_ROWS},
                                            {"threads", 1, NULL, OPT_THREADS},
                                            {"device", 1, NULL, OPT_DEVICE},
                                            {"plan-on-cpu", 0, NULL, OPT_PLAN_ON_CPU},
                                            {"json", 0, NULL, OPT_JSON},
                                            {"help", 0, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    char command[32];
    snprintf(command, sizeof command, "eval %s", eval_family_names[args->family]);
    opterr = 0;
    for (int o, which = 0; (o = getopt_long(argc, argv, ":m:h", options, &which)) != -1;) {
        if (o == 'h') {
            printf("%s\n%s", help_family[args->family], help_common);
            *helped = true;
            return EXIT_DONE;
        }
        if (o == '?' || o == ':')
            return cli_bad_option(argv, command);
        const int code = parse_option(args, o, options[which].name);
        if (code)
            return code;
    }
    return check_args(args, argc, argv);
}

int cli_eval(int argc, char **argv)
{
    if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
        fputs(help_top, stdout);
        return EXIT_DONE;
    }
    if (argc < 2) {
        fputs(help_top, stderr);
        return EXIT_USAGE;
    }
    eval_args args = {.family = EVAL_N_FAMILY};
    for (int i = 0; i < EVAL_N_FAMILY; i++)
        if (!strcmp(argv[1], eval_family_names[i]))
            args.family = (eval_family)i;
    if (args.family == EVAL_N_FAMILY)
        return cli_fail(EXIT_USAGE, "eval '%s': ppl, needle, ruler or recall is wanted", argv[1]);
    set_defaults(&args);
    bool helped = false;
    const int code = parse_args(&args, argc - 1, argv + 1, &helped);
    return code || helped ? code : evaluate(&args);
}
