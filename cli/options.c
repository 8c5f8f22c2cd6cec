/* Arguments: parsing and help, from one table a command. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "eval/methods.h"
#include "eval/text.h"

#include <prism_attn/prism_cuda.h>

/* ------------------------------------------------------------------------------------------------ values ---- */

bool cli_parse_device(const char *text, cli_device *out)
{
    const bool numbered = !strncmp(text, "cuda:", 5);
    *out = (cli_device){strcmp(text, "cpu") ? PRISM_DEVICE_CUDA : PRISM_DEVICE_CPU, 0};
    if (numbered)
        return cli_parse_int("--device cuda:", text + 5, 0, 1023, &out->ordinal);
    if (!strcmp(text, "cpu") || !strcmp(text, "cuda"))
        return true;
    cli_fail(EXIT_USAGE, "--device '%s': cpu, cuda or cuda:N", text);
    return false;
}

int cli_create_context(const cli_device *device, int32_t n_thread, prism_ctx **out)
{
    prism_config config;
    prism_config_init(&config);
    config.n_thread = n_thread;
    config.device = device->kind;
    config.ordinal = device->ordinal;
    const prism_status status = prism_create(&config, out);
    if (!status)
        return EXIT_DONE;
    prism_cuda_info info = {.struct_size = sizeof info};
    if (device->kind == PRISM_DEVICE_CUDA && prism_cuda_describe(device->ordinal, &info))
        return cli_fail(EXIT_RUN, "--device cuda: %s", info.problem);
    return cli_fail(EXIT_RUN, "cannot start the library: %s", prism_status_name(status));
}

void cli_method_args_init(cli_method_args *args)
{
    memset(args, 0, sizeof *args);
    prism_options_init(&args->options);
}

static void remember(cli_method_args *args, const char *name)
{
    if (!strcmp(name, "method"))
        return;
    for (int i = 0; i < args->n_named; i++)
        if (!strcmp(args->named[i], name))
            return;
    if (args->n_named < CLI_MAX_NAMED) /* more than the library has */
        snprintf(args->named[args->n_named++], CLI_MAX_NAME, "%s", name);
}

static int set_option(cli_method_args *args, const char *name, const char *value)
{
    if (!prism_options_set(&args->options, name, value)) {
        remember(args, name);
        return EXIT_DONE;
    }
    lm_error err;
    eval_option_problem(name, value, &err);
    return cli_fail_lm(&err);
}

static int set_named_option(cli_method_args *args, const char *assignment)
{
    char name[CLI_MAX_NAME];
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment || (size_t)(equals - assignment) >= sizeof name)
        return cli_fail(EXIT_USAGE, "--option '%s': write NAME=VALUE", assignment);
    memcpy(name, assignment, (size_t)(equals - assignment));
    name[equals - assignment] = '\0';
    return set_option(args, name, equals + 1);
}

int cli_check_named(const cli_method_args *args, unsigned methods)
{
    for (int i = 0; i < args->n_named; i++) {
        bool used = false;
        for (int32_t m = 0; m < prism_method_count(); m++)
            used |= methods >> m & 1 && prism_method_uses((prism_method)m, args->named[i]);
        if (!used)
            return cli_fail(EXIT_USAGE, "%s is an option of these methods only: %s", args->named[i],
                            eval_methods_using(args->named[i]).text);
    }
    return EXIT_DONE;
}

bool cli_check_chunk(int32_t chunk, int32_t block_size, lm_error *err)
{
    return !chunk || chunk >= block_size ||
           lm_fail(err, LM_ERROR_USAGE, "--chunk %d: give at least a block, %d tokens", chunk, block_size);
}

int cli_method_arg(cli_method_args *args, int option, const char *value)
{
    switch (option) {
    case OPT_METHOD: return set_option(args, "method", value);
    case OPT_TOP_P: return set_option(args, "top_p", value);
    case OPT_BLOCK_SIZE: return set_option(args, "block_size", value);
    case OPT_CALIBRATION: return set_option(args, "calibration", value);
    case OPT_CORRECT: return set_option(args, "correct", value);
    case 'o': return set_named_option(args, value);
    case OPT_THREADS: return cli_parse_int("--threads", value, 1, 1024, &args->n_thread) ? EXIT_DONE : EXIT_USAGE;
    case OPT_DEVICE: return cli_parse_device(value, &args->device) ? EXIT_DONE : EXIT_USAGE;
    case OPT_JSON: args->json = true; return EXIT_DONE;
    default: return -1;
    }
}

/* -------------------------------------------------------------------------------------------------- help ---- */

const char cli_device_help[] =
    "cpu (default), cuda, or cuda:N for GPU number N; 'prism info' says whether there is one";
const char cli_threads_help[] = "threads of the CPU (all processors)";

const char *const cli_kv_names[CLI_N_KV] = {"auto", "f16", "bf16", "f32"};
const char cli_kv_help[] =
    "type of the KV cache: auto, f16, bf16 or f32 (auto: bf16 where the processor's attention\n"
    "is fastest in it, else f16; docs/eval.md says what each costs)";

static const prism_dtype kv_types[CLI_N_KV] = {LM_KV_AUTO, PRISM_F16, PRISM_BF16, PRISM_F32};

prism_dtype cli_kv_type(int32_t choice)
{
    return kv_types[choice];
}

const char *cli_dtype_name(prism_dtype type)
{
    int32_t i = 0;
    while (i < CLI_N_KV - 1 && kv_types[i] != type)
        i++;
    return cli_kv_names[i];
}

/* Prints an option: its names, then from column 25 the lines of its help. */
static void print_row(char letter, const char *name, const char *value, const char *text)
{
    char left[64];
    const int used = letter ? snprintf(left, sizeof left, "-%c, --%s", letter, name)
                            : snprintf(left, sizeof left, "--%s", name);
    if (value)
        snprintf(left + used, sizeof left - (size_t)used, " %s", value);
    printf("  %-22s ", left);
    for (bool first = true; first || *text; first = false) {
        const int n = (int)strcspn(text, "\n");
        printf("%*s%.*s\n", first ? 0 : 25, "", n, text);
        text += n + (text[n] == '\n');
    }
}

/* Prints the library's methods and options as it describes them itself. */
static void print_method_rows(void)
{
    prism_options defaults;
    prism_option_info o = {.struct_size = sizeof o};
    prism_options_init(&defaults);
    printf("  %-22s %s\n", "--method M", "how blocks are chosen; * is the default:");
    for (int32_t m = 0; m < prism_method_count(); m++)
        printf("%25s%s %-14s%s\n", "", m == (int32_t)defaults.method ? "*" : " ", prism_method_name((prism_method)m),
               prism_method_text((prism_method)m));
    print_row('o', "option", "NAME=V", "an option, its default behind =, of the methods in brackets:");
    for (int32_t i = 0; !prism_option_at(i, &o); i++) {
        const eval_method_names users = eval_methods_using(o.name);
        char value[64];
        if (o.kind == PRISM_OPTION_NAME)
            snprintf(value, sizeof value, "%s=%s", o.name, o.names[(int)o.value]);
        else
            snprintf(value, sizeof value, "%s=%g", o.name, (double)(float)o.value);
        printf("%27s%-23s %s", "", value, o.text);
        for (int32_t n = 0; n < o.n_name; n++)
            printf("%s%s", n ? ", " : ": ", o.names[n]);
        printf(users.all ? "\n" : " (%s)\n", users.text);
    }
    print_row(0, "top-p P, --block-size B, --calibration C, --correct C", NULL, "the same by names of their own");
    print_row(0, "device", "D", cli_device_help);
    print_row(0, "threads", "T", cli_threads_help);
    print_row(0, "json", NULL, "one JSON object on stdout, for machines");
}

static void print_help(const cli_command *c, bool has_method)
{
    fputs(c->intro, stdout);
    for (int i = 0; i < c->n_own; i++)
        print_row(c->own[i].letter, c->own[i].name, c->own[i].value, c->own[i].help);
    for (int i = 0; i < c->n_shared; i++)
        print_row(c->shared[i].letter, c->shared[i].name, c->shared[i].value, c->shared[i].help);
    if (has_method)
        print_method_rows();
    print_row('h', "help", NULL, "this text");
    if (c->end)
        fputs(c->end, stdout);
}

/* ----------------------------------------------------------------------------------------------- parsing ---- */

static int fail_choice(const char *name, const char *value, const cli_option *o)
{
    char list[256] = "";
    const int n = (int)o->max;
    for (int i = 0; i < n; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s",
                 i == 0 ? "" : i + 1 == n ? " or " : ", ", o->choices[i]);
    return cli_fail(EXIT_USAGE, "%s '%s': %s", name, value, list);
}

static int set_field(const cli_option *o, void *args, const char *value)
{
    void *field = (char *)args + o->offset;
    char name[CLI_MAX_NAME];
    snprintf(name, sizeof name, "--%s", o->name);
    switch (o->kind) {
    case CLI_TEXT: *(const char **)field = value; return EXIT_DONE;
    case CLI_FLAG: *(bool *)field = true; return EXIT_DONE;
    case CLI_INT: return cli_parse_int(name, value, (int32_t)o->min, (int32_t)o->max, field) ? EXIT_DONE : EXIT_USAGE;
    case CLI_LONG: {
        double number;
        const bool ok = cli_parse_whole(name, value, o->min, o->max, &number);
        *(uint64_t *)field = ok ? (uint64_t)number : 0;
        return ok ? EXIT_DONE : EXIT_USAGE;
    }
    case CLI_NUMBER: return cli_parse_number(name, value, o->min, o->max, field) ? EXIT_DONE : EXIT_USAGE;
    case CLI_CHOICE:
        for (int32_t i = 0; i < (int32_t)o->max; i++)
            if (!strcmp(value, o->choices[i])) {
                memcpy(field, &i, sizeof i); /* enums are as wide as int32_t */
                return EXIT_DONE;
            }
        return fail_choice(name, value, o);
    case CLI_OTHER: break;
    }
    return o->parse(args, value);
}

enum { MAX_ROW = 64 };

/* What getopt_long() reads: the command's rows numbered from OPT_OWN on, then the method's or the help's. */
static void list_options(const cli_command *c, const cli_option **rows, int n, bool has_method, struct option *out,
                         char *letters)
{
    static const struct option of_method[] = {CLI_METHOD_OPTIONS}, of_none[] = {{"help", no_argument, NULL, 'h'},
                                                                               {NULL, 0, NULL, 0}};
    letters += sprintf(letters, has_method ? ":ho:" : ":h");
    for (int i = 0; i < n; i++) {
        rows[i] = i < c->n_own ? &c->own[i] : &c->shared[i - c->n_own];
        out[i] = (struct option){rows[i]->name, rows[i]->kind == CLI_FLAG ? no_argument : required_argument, NULL,
                                 OPT_OWN + i};
        if (rows[i]->letter)
            letters += sprintf(letters, rows[i]->kind == CLI_FLAG ? "%c" : "%c:", rows[i]->letter);
    }
    memcpy(out + n, has_method ? of_method : of_none, has_method ? sizeof of_method : sizeof of_none);
}

/* After getopt_long() returned '?' or, where an option lacks its value, ':'. */
static int fail_unknown(const char *given, bool lacks_value, const struct option *options, const char *command)
{
    const char *names[2 * MAX_ROW], *equals = strchr(given, '=');
    size_t n = 0;
    if (lacks_value)
        return cli_fail(EXIT_USAGE, "'%s' lacks its value: 'prism %s --help' tells more", given, command);
    if (strncmp(given, "--", 2) != 0)
        return cli_fail(EXIT_USAGE, "'%s' is unknown: 'prism %s --help' lists the options", given, command);
    for (; options[n].name; n++) {
        names[n] = options[n].name;
        if (equals && !strncmp(given + 2, names[n], (size_t)(equals - given - 2)) &&
            !names[n][equals - given - 2])
            return cli_fail(EXIT_USAGE, "'--%s' takes no value", names[n]);
    }
    const char *nearest = eval_nearest(given + 2, names, n);
    return cli_fail(EXIT_USAGE, "'%s' is unknown%s%s%s: 'prism %s --help' lists the options", given,
                    nearest ? "; did you mean --" : "", nearest ? nearest : "", nearest ? "?" : "", command);
}

int cli_parse(const cli_command *c, int argc, char **argv, void *args, cli_method_args *method, bool *helped)
{
    const cli_option *rows[MAX_ROW];
    struct option options[2 * MAX_ROW];
    char letters[2 * MAX_ROW + 8];
    const int n = c->n_own + c->n_shared;
    int code = EXIT_DONE;
    list_options(c, rows, n, method, options, letters);
    opterr = 0;
    for (int o; !code && (o = getopt_long(argc, argv, letters, options, NULL)) != -1;) {
        int i = o - OPT_OWN;
        for (int k = 0; k < n; k++)
            i = rows[k]->letter && rows[k]->letter == o ? k : i;
        *helped = o == 'h';
        if (o == 'h') {
            print_help(c, method);
            return EXIT_DONE;
        }
        if (i >= 0 && i < n)
            code = set_field(rows[i], args, optarg);
        else
            code = method ? cli_method_arg(method, o, optarg) : -1;
        if (code < 0)
            return fail_unknown(argv[optind - 1], o == ':', options, c->name);
    }
    for (; !code && optind < argc; optind++)
        code = c->word ? c->word(args, argv[optind])
                       : cli_fail(EXIT_USAGE, "unexpected argument '%s': 'prism %s --help' tells more", argv[optind],
                                  c->name);
    return code;
}
