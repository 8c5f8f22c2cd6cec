/* prism bench: help and options. */
#include "bench_command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char help_all[] =
    "usage: prism bench attention|stages|prefill [options]\n\n"
    "Measures methods side by side. 'prism bench COMMAND --help' has the options.\n\n"
    "  attention  one attention call: selection, attention, speed-up over dense, density, work, memory\n"
    "  stages     the same call taken apart: pool, score + select, attend against the machine's own peaks\n"
    "  prefill    a long text through a whole model\n\n"
    "To begin with:\n"
    "  prism bench attention --lengths 4K,8K,16K --density 0.1\n"
    "  prism bench stages -m models/prism-testbed-32m-q8_0.gguf -f eval/data/nostromo.txt --lengths 8K\n"
    "  prism bench prefill -m models/prism-testbed-32m-q8_0.gguf -f eval/data/nostromo.txt --lengths 4K,8K,16K\n";

#define SOURCE_HELP                                                                                                    \
    "Q, K and V are those of a layer of a model that reads a real prompt:\n"                                           \
    "  -m, --model MODEL      a GGUF file, or a Hugging Face directory\n"                                              \
    "  -f, --file FILE        the prompt is the content of FILE; - is stdin\n"                                         \
    "  --ruler-json FILE      the prompt is a record of FILE; --key KEY: which (the first)\n"                          \
    "  --layer L              whose Q, K and V, from 0 (the middle layer)\n"                                           \
    "or, without a model, noise of this shape:\n"                                                                      \
    "  --heads H              query heads (32); --kv-heads G: of keys and values (8); --d D: dimensions (128)\n"       \
    "  --seed S               of the noise and of imposed plans (1)\n"                                                 \
    "either way:\n"                                                                                                    \
    "  --dtype T              f32, f16 or bf16 (bf16)\n"                                                               \
    "  --density D            attend over random plans of this density, with first and own block, in the place of "    \
    "the\n"                                                                                                            \
    "                         methods' own (0: their own. Noise: 0.1; a model: 0). Selection is run and timed all "    \
    "the\n"                                                                                                            \
    "                         same. Noise says nothing about what a method would keep\n"

#define LENGTH_HELP                                                                                                    \
    "  --lengths N,N,...      tokens, 8192 or 8K (noise: 4K,8K,16K; a prompt: all of it). A prompt must be that "      \
    "long:\n"                                                                                                          \
    "                         shorter lengths are its beginning, nothing is ever repeated to make it longer\n"         \
    "  --methods M,M,...      methods (below); options by colon: dense,prism,prism:top_p=0.9\n"                        \
    "                         --top-p, --block-size, --calibration and -o hold where an item says nothing else\n"      \
    "  --reps R               repetitions at most, after one run to warm up (5); the median counts. Methods take "     \
    "turns\n"                                                                                                          \
    "  --seconds S            a method stops repeating after S seconds (10). A warm-up that takes longer than S is "   \
    "the\n"                                                                                                            \
    "                         measurement: the table then marks it 'cold'\n"                                           \
    "  --threads T            threads (all processors)\n"                                                              \
    "  --json                 one JSON object on stdout instead of tables; seconds, bytes, operations\n"               \
    "  --csv FILE             the same rows as a CSV file\n"

#define PLOT_HELP                                                                                                      \
    "  --plot FILE            draw against length: FILE is .png, .svg or .pdf; its data go to the same name with "     \
    ".json\n"                                                                                                          \
    "                         and stay. Wants python3 with matplotlib\n"                                               \
    "  --tools DIR            where plot_bench.py is (../share/prism_attn and ../tools beside the program)\n"

static const char help_attention[] =
    "usage: prism bench attention [-m MODEL (-f FILE | --ruler-json FILE)] [options]\n\n"
    "One attention call by several methods. Columns: selection, attention and both in milliseconds; speed-up of the\n"
    "whole call over dense; density of the attended plan, listed blocks over causal ones; work, operations of "
    "selection\n"
    "and attention over those of full attention; GFLOP/s of attention on what is listed; workspace that selection "
    "wants\n"
    "beyond attention's; resident memory that selection adds, workspace and plan.\n\n" SOURCE_HELP LENGTH_HELP PLOT_HELP
    "  -h, --help             this text\n\n"
    "example: prism bench attention -m models/prism-testbed-32m-q8_0.gguf -f eval/data/nostromo.txt --layer 3 \\\n"
    "             --lengths 4K,8K,16K --methods dense,prism,minference,flexprefill,xattention --plot bench.png\n";

static const char help_stages[] =
    "usage: prism bench stages [-m MODEL (-f FILE | --ruler-json FILE)] [options]\n\n"
    "The stages of one attention call: time, operations, bytes (every operand and result once), and the share of the\n"
    "roofline: the least time that the peaks allow over the time taken. The peaks are measured in the same run, on "
    "the\n"
    "same threads: multiply-adds in registers with the instructions of the kernel tier in use, for bf16 tensors its "
    "dot\n"
    "products of bf16 where it has them, and reads of memory.\n\n" SOURCE_HELP LENGTH_HELP
    "  -h, --help             this text\n\n"
    "example: prism bench stages --lengths 8K --dtype f32 --heads 8 --kv-heads 2 --methods dense,prism\n";

static const char help_prefill[] =
    "usage: prism bench prefill -m MODEL (-f FILE | --ruler-json FILE) [options]\n\n"
    "A long text through the whole model by several methods.\n\n"
    "  -m, --model MODEL      a GGUF file, or a Hugging Face directory\n"
    "  -f, --file FILE        the text is the content of FILE; - is stdin\n"
    "  --ruler-json FILE      the text is a record of FILE; --key KEY: which (the first)\n"
    "  --chunk N              prefill in steps of at most N tokens\n" LENGTH_HELP PLOT_HELP
    "  -h, --help             this text\n\n"
    "example: prism bench prefill -m models/prism-testbed-32m-q8_0.gguf -f eval/data/nostromo.txt --lengths 8K,16K\n";

const char *const bench_names[BENCH_N_WHAT] = {"attention", "stages", "prefill"};
const char *const bench_dtype_names[] = {[PRISM_F32] = "f32", [PRISM_F16] = "f16", [PRISM_BF16] = "bf16"};

char *bench_usual_methods(char *text, size_t n)
{
    prism_options options;
    prism_options_init(&options);
    snprintf(text, n, "dense,%s", prism_method_name(options.method));
    return text;
}

static const char *const helps[] = {help_attention, help_stages, help_prefill};

/* What the library knows by name: never listed by hand. */
static void print_help(bench_what what)
{
    char usual[64];
    fputs(helps[what], stdout);
    printf("\n--methods (%s):", bench_usual_methods(usual, sizeof usual));
    for (int32_t m = 0; m < prism_method_count(); m++)
        printf(" %s", prism_method_name((prism_method)m));
    printf("\nPRISM_ISA in the environment caps the tier of kernels:");
    for (int isa = PRISM_ISA_C; isa < PRISM_N_ISA; isa++)
        printf(" %s", prism_isa_name((prism_isa)isa));
    putchar('\n');
}

enum {
    OPT_METHODS = OPT_OWN,
    OPT_LENGTHS,
    OPT_RULER,
    OPT_KEY,
    OPT_LAYER,
    OPT_HEADS,
    OPT_KV_HEADS,
    OPT_D,
    OPT_SEED,
    OPT_DTYPE,
    OPT_DENSITY,
    OPT_REPS,
    OPT_SECONDS,
    OPT_CSV,
    OPT_PLOT,
    OPT_TOOLS,
    OPT_CHUNK
};

/* ------------------------------------------------------------------------------------------------ values ---- */

static int parse_number(const char *name, const char *text, double min, double max, double *out)
{
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || *end || errno || !(value >= min && value <= max))
        return cli_fail(EXIT_USAGE, "%s '%s': a number from %g to %g is wanted", name, text, min, max);
    *out = value;
    return EXIT_DONE;
}

static int parse_lengths(const char *text, bench_args *out)
{
    out->n_length = 0;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long long n = strtoll(at, &end, 10);
        if (end > at && (*end == 'K' || *end == 'k')) {
            n = n > INT32_MAX ? 0 : n * 1024;
            end++;
        }
        if (end == at || errno || n < 1 || n > INT32_MAX / 2 || (*end && *end != ','))
            return cli_fail(EXIT_USAGE, "--lengths '%s': numbers of tokens by comma are wanted, 4096,8K,16K", text);
        if (out->n_length == bench_max_length)
            return cli_fail(EXIT_USAGE, "--lengths: at most %d", bench_max_length);
        out->length[out->n_length++] = (int32_t)n;
        at = end;
        if (!*at)
            return EXIT_DONE;
    }
}

static int parse_dtype(const char *text, prism_dtype *out)
{
    for (int i = PRISM_F32; i <= PRISM_BF16; i++)
        if (!strcmp(text, bench_dtype_names[i])) {
            *out = (prism_dtype)i;
            return EXIT_DONE;
        }
    return cli_fail(EXIT_USAGE, "--dtype '%s': f32, f16 or bf16", text);
}

static int whole(const char *name, int32_t min, int32_t max, int32_t *out)
{
    return cli_parse_int(name, optarg, min, max, out) ? EXIT_DONE : EXIT_USAGE;
}

static int parse_option(bench_args *a, int o, char *const *argv)
{
    switch (o) {
    case 'm': a->model = optarg; return EXIT_DONE;
    case 'f': a->file = optarg; return EXIT_DONE;
    case OPT_RULER: a->ruler = optarg; return EXIT_DONE;
    case OPT_KEY: a->key = optarg; return EXIT_DONE;
    case OPT_METHOD: /* one method is a list of one */
    case OPT_METHODS: a->methods = optarg; return EXIT_DONE;
    case OPT_LENGTHS: return parse_lengths(optarg, a);
    case OPT_LAYER: return whole("--layer", 0, INT32_MAX, &a->layer);
    case OPT_HEADS: return whole("--heads", 1, 1024, &a->n_head);
    case OPT_KV_HEADS: return whole("--kv-heads", 1, 1024, &a->n_kv_head);
    case OPT_D: return whole("--d", 2, PRISM_MAX_D_HEAD, &a->d_head);
    case OPT_SEED: return whole("--seed", 0, INT32_MAX, &a->seed);
    case OPT_CHUNK: return whole("--chunk", 1, INT32_MAX, &a->chunk);
    case OPT_REPS: return whole("--reps", 1, 1000, &a->limits.reps);
    case OPT_DTYPE: return parse_dtype(optarg, &a->dtype);
    case OPT_DENSITY: return parse_number("--density", optarg, 0, 1, &a->density);
    case OPT_SECONDS: return parse_number("--seconds", optarg, 0, 1e6, &a->limits.seconds);
    case OPT_CSV: a->csv = optarg; return EXIT_DONE;
    case OPT_PLOT: a->plot = optarg; return EXIT_DONE;
    case OPT_TOOLS: a->tools = optarg; return EXIT_DONE;
    default: break;
    }
    const int code = cli_method_arg(&a->base, o, optarg);
    return code >= 0 ? code : cli_bad_option(argv, "bench");
}

/* ----------------------------------------------------------------------------------------------- checks ---- */

static int check(const bench_args *a, int argc, char *const *argv)
{
    const char *const command = bench_names[a->what];
    if (optind < argc)
        return cli_fail(EXIT_USAGE, "unexpected argument '%s': 'prism bench %s --help' tells more", argv[optind],
                        command);
    if (a->file && a->ruler)
        return cli_fail(EXIT_USAGE, "give the prompt by one of -f, --ruler-json");
    const bool has_prompt = a->file || a->ruler;
    if (a->what == BENCH_PREFILL && (!a->model || !has_prompt))
        return cli_fail(EXIT_USAGE, "prefill wants a model (-m) and a text (-f or --ruler-json)");
    if (has_prompt != !!a->model)
        return cli_fail(EXIT_USAGE, "a model (-m) and its prompt (-f or --ruler-json) go together");
    if (a->model && (a->n_head || a->n_kv_head || a->d_head))
        return cli_fail(EXIT_USAGE, "--heads, --kv-heads and --d are of noise; a model has its own");
    if (a->layer >= 0 && (!a->model || a->what == BENCH_PREFILL))
        return cli_fail(EXIT_USAGE, "--layer says whose Q, K and V are captured: of attention and stages, with -m");
    if (a->what == BENCH_PREFILL && a->density > 0)
        return cli_fail(EXIT_USAGE, "--density: a whole model runs by its method's own plans");
    if (a->what != BENCH_PREFILL && a->chunk)
        return cli_fail(EXIT_USAGE, "--chunk is of prefill");
    if (a->what == BENCH_STAGES && a->plot)
        return cli_fail(EXIT_USAGE, "--plot draws attention and prefill; stages are a table");
    char path[4096];
    if (a->plot && !bench_data_path(a->plot, path, sizeof path))
        return cli_fail(EXIT_USAGE, "--plot '%s': a name that ends in .png, .svg or .pdf is wanted", a->plot);
    return EXIT_DONE;
}

static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                        {"file", required_argument, NULL, 'f'},
                                        {"ruler-json", required_argument, NULL, OPT_RULER},
                                        {"key", required_argument, NULL, OPT_KEY},
                                        {"methods", required_argument, NULL, OPT_METHODS},
                                        {"lengths", required_argument, NULL, OPT_LENGTHS},
                                        {"layer", required_argument, NULL, OPT_LAYER},
                                        {"heads", required_argument, NULL, OPT_HEADS},
                                        {"kv-heads", required_argument, NULL, OPT_KV_HEADS},
                                        {"d", required_argument, NULL, OPT_D},
                                        {"seed", required_argument, NULL, OPT_SEED},
                                        {"dtype", required_argument, NULL, OPT_DTYPE},
                                        {"density", required_argument, NULL, OPT_DENSITY},
                                        {"reps", required_argument, NULL, OPT_REPS},
                                        {"seconds", required_argument, NULL, OPT_SECONDS},
                                        {"csv", required_argument, NULL, OPT_CSV},
                                        {"plot", required_argument, NULL, OPT_PLOT},
                                        {"tools", required_argument, NULL, OPT_TOOLS},
                                        {"chunk", required_argument, NULL, OPT_CHUNK},
                                        CLI_METHOD_OPTIONS};

static bool is_help(const char *text)
{
    return !strcmp(text, "--help") || !strcmp(text, "-h") || !strcmp(text, "help");
}

static int find_command(const char *name, bench_what *what)
{
    for (int i = 0; i < BENCH_N_WHAT; i++)
        if (!strcmp(name, bench_names[i])) {
            *what = (bench_what)i;
            return EXIT_DONE;
        }
    return cli_fail(EXIT_USAGE, "bench '%s': attention, stages or prefill", name);
}

int bench_parse(int argc, char **argv, bench_args *out, bool *help)
{
    *help = argc > 1 && is_help(argv[1]);
    if (argc < 2 || *help) {
        fputs(help_all, *help ? stdout : stderr);
        return *help ? EXIT_DONE : EXIT_USAGE;
    }
    *out = (bench_args){.layer = -1, .dtype = PRISM_BF16, .density = -1, .seed = 1};
    out->limits = (bench_limits){.reps = 5, .seconds = 10};
    cli_method_args_init(&out->base);
    int code = find_command(argv[1], &out->what);
    opterr = 0;
    argc--, argv++;
    for (int o; !code && (o = getopt_long(argc, argv, ":m:f:o:h", options, NULL)) != -1;) {
        if (o == 'h') {
            *help = true;
            print_help(out->what);
            return EXIT_DONE;
        }
        code = parse_option(out, o, argv);
    }
    if (!code)
        code = check(out, argc, argv);
    out->n_head = out->n_head ? out->n_head : 32;
    out->n_kv_head = out->n_kv_head ? out->n_kv_head : 8;
    out->d_head = out->d_head ? out->d_head : 128;
    return code;
}
