/* What people see: progress, tables, bars; and JSON for machines. */
#define _GNU_SOURCE /* strcasestr */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "eval/run.h"
#include "eval/text.h"

void cli_progress_start(cli_progress *p, const char *label, bool visible)
{
    *p = (cli_progress){.label = label, .visible = visible, .start = eval_seconds()};
}

static void draw(const cli_progress *p, int64_t done, int64_t total, double seconds, const char *ending)
{
    char bar[128];
    const double share = total > 0 ? (double)done / (double)total : 0;
    fprintf(stderr, "%s %s %3.0f %%  %lld/%lld tokens  %.0f tokens/s%s", p->label, cli_bar(share, 24, bar, sizeof bar),
            100 * share, (long long)done, (long long)total, seconds > 0 ? (double)done / seconds : 0, ending);
    fflush(stderr);
}

void cli_progress_update(void *progress, int64_t done, int64_t total)
{
    cli_progress *p = progress;
    const double now = eval_seconds();
    if (!p->visible)
        return;
    if (isatty(STDERR_FILENO)) {
        if (done < total && now - p->last < 0.1)
            return;
        fputs(CLI_REDRAW, stderr);
        draw(p, done, total, now - p->start, CLI_REDRAWN);
        p->last = now;
    } else if (total > 0 && done * 10 / total > p->tenth) {
        p->tenth = (int)(done * 10 / total);
        draw(p, done, total, now - p->start, "\n");
    }
}

void cli_progress_end(cli_progress *p)
{
    if (p->visible && p->last > 0)
        fputc('\n', stderr);
}

/* Whether the user's locale has block characters. Without a locale they are taken to be there. */
static bool has_blocks(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value && value[0])
            return strcasestr(value, "utf") != NULL;
    }
    return true;
}

const char *cli_bar(double value, int width, char *text, size_t n)
{
    static const char *const blocks[] = {"·", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
    static const char *const ascii[] = {".", ".", ".", ".", "#", "#", "#", "#", "#"};
    const char *const *eighths = has_blocks() ? blocks : ascii;
    int units = (int)(value * width * 8 + 0.5);
    size_t used = 0;
    for (int i = 0; i < width && used + 4 < n; i++) {
        const int part = units > 8 ? 8 : units < 0 ? 0 : units;
        used += (size_t)snprintf(text + used, n - used, "%s", eighths[part]);
        units -= part;
    }
    return text;
}

const char *cli_kernel_text(const char *kernel)
{
    return strcmp(kernel, "any") ? kernel : "any: no tensor cores, many times slower";
}

/* cJSON escapes control characters of ASCII alone, and no invalid UTF-8, which is not JSON. */
static void print_escaped(const char *text)
{
    size_t length;
    for (size_t left = strlen(text); left > 0; text += length, left -= length) {
        const uint32_t c = eval_utf8_next(text, left, &length);
        if (c >= 0x7f && cli_is_hidden(c, length))
            printf("\\u%04x", (unsigned)c);
        else
            fwrite(text, 1, length, stdout);
    }
    putchar('\n');
}

int cli_print_json(cJSON *object)
{
    char *text = object ? cJSON_Print(object) : NULL;
    cJSON_Delete(object);
    if (!text)
        return cli_fail(EXIT_RUN, "out of memory for the JSON result");
    print_escaped(text);
    cJSON_free(text);
    return EXIT_DONE;
}
