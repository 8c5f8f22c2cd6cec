/* Errors, arguments, files, clocks. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "eval/methods.h"

#include <prism_attn/prism_cuda.h>

int cli_fail(int exit_code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fputs("prism: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return exit_code;
}

int cli_fail_lm(const lm_error *err)
{
    static const int exit_codes[] = {
        [LM_OK] = EXIT_RUN,
        [LM_ERROR_RUN] = EXIT_RUN,
        [LM_ERROR_USAGE] = EXIT_USAGE,
        [LM_ERROR_INPUT] = EXIT_INPUT,
        [LM_ERROR_MEMORY] = EXIT_RUN,
        [LM_ERROR_UNSUPPORTED] = EXIT_INPUT,
    };
    return cli_fail(exit_codes[err->kind], "%s", err->text);
}

int cli_fail_prism(const prism_ctx *ctx, prism_status status, int what)
{
    const bool arguments = status == PRISM_ERROR_INVALID || status == PRISM_ERROR_UNSUPPORTED;
    const char *text = prism_last_error(ctx);
    return cli_fail(arguments ? what : EXIT_RUN, "%s", text[0] ? text : prism_status_name(status));
}

int cli_bad_option(char *const *argv, const char *command)
{
    return cli_fail(EXIT_USAGE, "'%s' is unknown or lacks its value: 'prism %s --help' lists the options",
                    argv[optind - 1], command);
}

/* --------------------------------------------------------------------------------------------- arguments ---- */

bool cli_parse_int(const char *name, const char *text, int32_t min, int32_t max, int32_t *out)
{
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < min || value > max) {
        cli_fail(EXIT_USAGE, "%s '%s': a whole number from %d to %d is wanted", name, text, min, max);
        return false;
    }
    *out = (int32_t)value;
    return true;
}

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
    for (int i = 0; i < args->n_named; i++)
        if (!strcmp(args->named[i], name))
            return;
    if (args->n_named < CLI_MAX_NAMED) /* more than the library has */
        snprintf(args->named[args->n_named++], CLI_MAX_NAME, "%s", name);
}

static int set_option(cli_method_args *args, const char *name, const char *value)
{
    if (!prism_options_set(&args->options, name, value)) {
        if (!strcmp(name, "method"))
            args->names_method = true;
        else
            remember(args, name);
        return EXIT_DONE;
    }
    if (!strcmp(name, "method"))
        return cli_fail(EXIT_USAGE, "no method '%s': 'prism info' lists them", value);
    return cli_fail(EXIT_USAGE, "option %s=%s: no such option, or its value is out of range (docs/methods.md)", name,
                    value);
}

static int set_named_option(cli_method_args *args, const char *assignment)
{
    char name[CLI_MAX_NAME];
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment || (size_t)(equals - assignment) >= sizeof name)
        return cli_fail(EXIT_USAGE, "--option '%s': NAME=VALUE is wanted", assignment);
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

/* ------------------------------------------------------------------------------------------------- files ---- */

enum { max_file_bytes = 1 << 30 }; /* no prompt is longer; a device that never ends must not fill the memory */

static bool read_stream(FILE *in, char **data, size_t *n)
{
    size_t capacity = 1 << 16, used = 0;
    char *buffer = malloc(capacity);
    while (buffer) {
        used += fread(buffer + used, 1, capacity - used - 1, in);
        if (used < capacity - 1)
            break;
        char *more = capacity >= max_file_bytes ? NULL : realloc(buffer, capacity *= 2);
        if (!more)
            free(buffer);
        buffer = more;
    }
    if (!buffer)
        return false;
    buffer[used] = '\0';
    *data = buffer;
    *n = used;
    return true;
}

bool cli_read_file(const char *path, char **data, size_t *n, lm_error *err)
{
    const bool is_stdin = !strcmp(path, "-");
    FILE *in = is_stdin ? stdin : fopen(path, "rb");
    if (!in)
        return lm_fail(err, LM_ERROR_INPUT, "cannot read '%s': %s", path, strerror(errno));
    const bool held = read_stream(in, data, n), broken = ferror(in) != 0;
    const int why = errno;
    if (!is_stdin)
        fclose(in);
    if (!held)
        return lm_fail(err, LM_ERROR_MEMORY, "'%s' does not fit in memory, or has more than %d bytes", path,
                       max_file_bytes);
    if (!broken)
        return true;
    free(*data);
    *data = NULL;
    return lm_fail(err, LM_ERROR_INPUT, "cannot read '%s': %s", path, strerror(why));
}

int cli_check_output(const char *path, const char *const *inputs)
{
    struct stat out, in;
    if (!path)
        return EXIT_DONE;
    if (stat(path, &out) == 0) {
        if (S_ISDIR(out.st_mode))
            return cli_fail(EXIT_USAGE, "'%s' is a directory: name a file to write", path);
        for (; *inputs; inputs++)
            if (stat(*inputs, &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
                return cli_fail(EXIT_USAGE, "'%s' is also an input, and would be overwritten", path);
        return EXIT_DONE;
    }
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    const bool writable = folder && access(folder, W_OK) == 0;
    const int why = errno;
    free(folder);
    return writable ? EXIT_DONE : cli_fail(EXIT_USAGE, "'%s' cannot be written: %s", path, strerror(why));
}

bool cli_has_ending(const char *path, const char *const *endings)
{
    for (; *endings; endings++) {
        const size_t n = strlen(path), m = strlen(*endings);
        if (n > m && !strcmp(path + n - m, *endings))
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------------------------- clocks and memory ---- */

double cli_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f)
        return;
    fputs("5", f); /* resets VmHWM, proc(5) */
    fclose(f);
}

int64_t cli_peak_bytes(void)
{
    char line[128];
    long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lld kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    if (kib)
        return kib * 1024;
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (int64_t)usage.ru_maxrss * 1024;
}
