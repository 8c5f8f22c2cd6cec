/* prism bench: help and options. */
#include "bench_command.h"

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
    "  prism bench stages -m MODEL -f book.txt --lengths 8K\n"
    "  prism bench prefill -m MODEL -f book.txt --lengths 4K,8K,16K\n";

const char *const bench_names[BENCH_N_WHAT] = {"attention", "stages", "prefill"};
const char *const bench_dtype_names[] = {[PRISM_F32] = "f32", [PRISM_F16] = "f16", [PRISM_BF16] = "bf16"};

static int parse_lengths(void *args, const char *text)
{
    bench_args *out = args;
    double lengths[bench_max_length];
    out->n_length = cli_parse_list(text, true, 1, INT32_MAX / 2, lengths, bench_max_length);
    if (out->n_length < 0)
        return cli_fail(EXIT_USAGE, "--lengths '%s': give up to %d numbers of tokens by comma, 4096,8K,16K", text,
                        bench_max_length);
    for (int i = 0; i < out->n_length; i++)
        out->length[i] = (int32_t)lengths[i];
    return EXIT_DONE;
}

/* ----------------------------------------------------------------------------------------------- options ---- */

#define AT(field) .offset = offsetof(bench_args, field)

#define PROMPT_ROWS                                                                                                    \
    {"model", "MODEL", "a GGUF file, or a Hugging Face directory", CLI_TEXT, 'm', AT(model)},                          \
        {"file", "FILE", "the prompt is the content of FILE; - is stdin", CLI_TEXT, 'f', AT(file)},                    \
        {"ruler-json", "FILE", "the prompt is a record of FILE", CLI_TEXT, AT(ruler)},                                 \
    {                                                                                                                  \
        "key", "KEY", "which record (the first)", CLI_TEXT, AT(key)                                                    \
    }

#define TENSOR_ROWS                                                                                                    \
    PROMPT_ROWS, {"layer", "L",       "the layer whose Q, K and V are measured on, from 0 (the middle one)",           \
                  CLI_INT, AT(layer), .max = INT32_MAX},                                                               \
        {"heads", "H", "query heads of noise, without a model (32)", CLI_INT, AT(n_head), .min = 1, .max = 1024},      \
        {"kv-heads", "G", "heads of its keys and values (8)", CLI_INT, AT(n_kv_head), .min = 1, .max = 1024},          \
        {"d", "D", "its dimensions (128)", CLI_INT, AT(d_head), .min = 2, .max = PRISM_MAX_D_HEAD},                    \
        {"seed", "S", "of noise and of imposed plans (1)", CLI_INT, AT(seed), .max = INT32_MAX},                       \
        {"dtype", "T", "f32, f16 or bf16 (bf16)", CLI_CHOICE, AT(dtype), .choices = bench_dtype_names, .max = 3},      \
        {"density",                                                                                                    \
         "D",                                                                                                          \
         "attend over random plans of this density, with first and own block, instead of\n"                            \
         "the methods' own (0: their own. Noise: 0.1; a model: 0). Selection is run and\n"                             \
         "timed all the same. Noise says nothing about what a method would keep",                                      \
         CLI_NUMBER,                                                                                                   \
         AT(density),                                                                                                  \
         .max = 1}

#define PLOT_ROWS                                                                                                      \
    {"plot", "FILE",                                                                                                   \
     "draw against length: FILE is .png, .svg or .pdf; its data go to the same name with\n"                            \
     ".json and stay. Needs python3 with matplotlib",                                                                  \
     CLI_TEXT, AT(plot)},                                                                                              \
    {                                                                                                                  \
        "tools", "DIR", "where plot_bench.py is (../share/prism_attn and ../tools beside the program)", CLI_TEXT,      \
            AT(tools)                                                                                                  \
    }

static const cli_option attention_rows[] = {TENSOR_ROWS, PLOT_ROWS};
static const cli_option stages_rows[] = {TENSOR_ROWS};
static const cli_option prefill_rows[] = {
    PROMPT_ROWS,
    {"chunk", "N", "prefill in steps of at most N tokens, at least a block", CLI_INT, AT(chunk), .min = 1,
     .max = INT32_MAX},
    PLOT_ROWS};

static const cli_option shared_rows[] = {
    {"lengths", "N,N,...",
     "tokens, 8192 or 8K (noise: 4K,8K,16K; a prompt: all of it). The prompt must be that\n"
     "long: shorter lengths are its beginning, nothing is repeated to make it longer",
     CLI_OTHER, .parse = parse_lengths},
    {"methods", "M,M,...",
     "methods, options by colon: dense,prism,prism:top_p=0.9 (dense and the default). The\n"
     "options below hold unless an item sets them",
     CLI_TEXT, AT(methods)},
    {"method", "M", "a list of one", CLI_TEXT, AT(methods)},
    {"reps", "R", "repetitions at most, after one run to warm up (5); the median counts. Methods take\nturns", CLI_INT,
     AT(limits.reps), .min = 1, .max = 1000},
    {"seconds", "S",
     "a method stops repeating after S seconds (10). A warm-up that takes longer than S is\n"
     "the measurement: the table then marks it 'cold'",
     CLI_NUMBER, AT(limits.seconds), .max = 1e6},
    {"csv", "FILE", "the same rows as a CSV file", CLI_TEXT, AT(csv)},
};

#define ROWS(list)                                                                                                     \
    .own = list##_rows, .n_own = sizeof list##_rows / sizeof *list##_rows, .shared = shared_rows,                      \
    .n_shared = sizeof shared_rows / sizeof *shared_rows

static const cli_command commands[BENCH_N_WHAT] = {
    [BENCH_ATTENTION] =
        {.name = "bench attention",
         .intro = "usage: prism bench attention [-m MODEL (-f FILE | --ruler-json FILE)] [options]\n\n"
                  "One attention call by several methods, on Q, K and V of a layer of a model that reads a prompt, or\n"
                  "on noise. Columns: selection, attention and both in milliseconds; speed-up of the call over dense;\n"
                  "density of the attended plan, listed blocks over causal ones; work, operations of selection and\n"
                  "attention over those of full attention; GFLOP/s of attention on what is listed; workspace that\n"
                  "selection needs beyond attention's; resident memory that selection adds, workspace and plan.\n\n",
         .end = "\nexample: prism bench attention -m MODEL -f book.txt \\\n"
                "             --layer 3 --lengths 4K,8K,16K --methods dense,prism,minference --plot bench.png\n",
         ROWS(attention)},
    [BENCH_STAGES] =
        {.name = "bench stages",
         .intro = "usage: prism bench stages [-m MODEL (-f FILE | --ruler-json FILE)] [options]\n\n"
                  "The stages of one attention call: time, operations, bytes (every operand and result once), and the\n"
                  "share of the roofline: the least time that the peaks allow over the time taken. The peaks are\n"
                  "measured in the same run, on the same threads: multiply-adds in registers with the instructions of\n"
                  "the kernel tier in use, for bf16 tensors its dot products of bf16 where it has them, and reads of\n"
                  "memory. PRISM_ISA in the environment caps the tier: 'prism info --help' lists them.\n\n",
         .end = "\nexample: prism bench stages --lengths 8K --dtype f32 --heads 8 --kv-heads 2 --methods dense,prism\n",
         ROWS(stages)},
    [BENCH_PREFILL] =
        {.name = "bench prefill",
         .intro = "usage: prism bench prefill -m MODEL (-f FILE | --ruler-json FILE) [options]\n\n"
                  "A long text through the whole model by several methods.\n\n",
         .end = "\nexample: prism bench prefill -m MODEL -f book.txt \\\n"
                "             --lengths 8K,16K\n",
         ROWS(prefill)},
};

/* ----------------------------------------------------------------------------------------------- checks ---- */

static int check(const bench_args *a)
{
    char path[4096];
    lm_error err;
    const bool has_prompt = a->file || a->ruler;
    if (a->file && a->ruler)
        return cli_fail(EXIT_USAGE, "give the prompt by one of -f, --ruler-json");
    if (a->what == BENCH_PREFILL && (!a->model || !has_prompt))
        return cli_fail(EXIT_USAGE, "prefill wants a model (-m) and a text (-f or --ruler-json)");
    if (has_prompt != !!a->model)
        return cli_fail(EXIT_USAGE, "a model (-m) and its prompt (-f or --ruler-json) go together");
    if (a->model && (a->n_head || a->n_kv_head || a->d_head))
        return cli_fail(EXIT_USAGE, "--heads, --kv-heads and --d are of noise; a model has its own");
    if (a->layer >= 0 && !a->model)
        return cli_fail(EXIT_USAGE, "--layer is of a model: give it with -m");
    if (a->csv && !strcmp(a->csv, "-"))
        return cli_fail(EXIT_USAGE, "--csv -: the table goes to standard output; name a file");
    if (a->plot && !bench_data_path(a->plot, path, sizeof path))
        return cli_fail(EXIT_USAGE, "--plot '%s': give a name that ends in .png, .svg or .pdf", a->plot);
    return cli_check_chunk(a->chunk, a->base.options.block_size, &err) ? EXIT_DONE : cli_fail_lm(&err);
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
    *help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"));
    if (argc < 2 || *help) {
        fputs(help_all, *help ? stdout : stderr);
        return *help ? EXIT_DONE : EXIT_USAGE;
    }
    *out = (bench_args){.layer = -1, .dtype = PRISM_BF16, .density = -1, .seed = 1};
    out->limits = (bench_limits){.reps = 5, .seconds = 10};
    cli_method_args_init(&out->base);
    int code = find_command(argv[1], &out->what);
    if (!code)
        code = cli_parse(&commands[out->what], argc - 1, argv + 1, out, &out->base, help);
    if (!code && !*help)
        code = check(out);
    out->n_head = out->n_head ? out->n_head : 32;
    out->n_kv_head = out->n_kv_head ? out->n_kv_head : 8;
    out->d_head = out->d_head ? out->d_head : 128;
    return code;
}
