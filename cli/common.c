/* Errors, files, memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "eval/text.h"

char *cli_escape(const char *text, char *out, size_t n)
{
    static const char digits[] = "0123456789ABCDEF"; /* a signal handler must not call printf */
    size_t at = 0, length;
    for (size_t left = strlen(text); left > 0; text += length, left -= length) {
        const uint32_t c = eval_utf8_next(text, left, &length);
        const bool hidden = cli_is_hidden(c, length);
        if (at + (hidden ? 4 : 1) * length >= n)
            break;
        for (size_t j = 0; j < length; j++) {
            const unsigned char byte = (unsigned char)text[j];
            const char code[] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
            memcpy(out + at, hidden ? code : text + j, hidden ? 4 : 1);
            at += hidden ? 4 : 1;
        }
    }
    out[at] = '\0';
    return out;
}

bool cli_is_hidden(uint32_t c, size_t length)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || (c == 0xFFFD && length == 1);
}

static void say(const char *who, const char *format, va_list args)
{
    char *text = NULL, *escaped = NULL;
    fflush(stdout);
    if (vasprintf(&text, format, args) >= 0 && (escaped = malloc(4 * strlen(text) + 1)))
        fprintf(stderr, "%s: %s\n", who, cli_escape(text, escaped, 4 * strlen(text) + 1));
    else
        fprintf(stderr, "%s: out of memory\n", who);
    free(text);
    free(escaped);
}

int cli_fail(int exit_code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("prism", format, args);
    va_end(args);
    return exit_code;
}

static bool notes_are_silent;

void cli_silence_notes(void)
{
    notes_are_silent = true;
}

void cli_note(const char *format, ...)
{
    va_list args;
    if (notes_are_silent)
        return;
    va_start(args, format);
    say("note", format, args);
    va_end(args);
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

int cli_fail_prism(const prism_ctx *ctx, prism_status status, int exit_code)
{
    const bool arguments = status == PRISM_ERROR_INVALID || status == PRISM_ERROR_UNSUPPORTED;
    const char *text = prism_last_error(ctx);
    return cli_fail(arguments ? exit_code : EXIT_RUN, "%s", text[0] ? text : prism_status_name(status));
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

size_t cli_not_utf8(const char *text, size_t n)
{
    for (size_t i = 0, width; i < n; i += width)
        if (eval_utf8_next(text + i, n - i, &width) == 0xFFFD && width == 1)
            return i;
    return n;
}

void cli_note_utf8(const char *path, const char *text, size_t n)
{
    const size_t bad = cli_not_utf8(text, n);
    if (bad < n)
        cli_note("'%s' is not UTF-8: byte %zu belongs to no character; such bytes are read as they are", path, bad);
}

bool cli_is_stdout(const char *path)
{
    struct stat out, file;
    return path && (!strcmp(path, "-") || (!fstat(STDOUT_FILENO, &out) && !stat(path, &file) &&
                                           out.st_dev == file.st_dev && out.st_ino == file.st_ino));
}

int cli_check_output(const char *path, const char *const *inputs)
{
    struct stat out, in;
    if (!path || !strcmp(path, "-"))
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

/* ------------------------------------------------------------------------------------------------ memory ---- */

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
