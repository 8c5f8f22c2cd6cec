/* prism eval: the progress bar, the tables, the JSON. */
#include "eval.h"

#include "lm/json.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------- bar ---- */

/* share: of the sample that is under way. */
static void draw(eval_bar *bar, double share, const char *before, const char *after)
{
    char text[128];
    const double done = (double)bar->done + share, seconds = eval_seconds() - bar->start;
    const double left =
        done > (double)bar->first ? seconds / (done - (double)bar->first) * ((double)bar->total - done) : 0;
    fprintf(stderr, "%s%s %lld/%lld  %-44.44s", before, cli_bar(done / (double)bar->total, 24, text, sizeof text),
            (long long)bar->done, (long long)bar->total, bar->what);
    if (left > 0)
        fprintf(stderr, "  %.0f s left", left);
    fprintf(stderr, "%s", after);
    fflush(stderr);
    bar->last = eval_seconds();
}

/* A line for each sample where there are few, for each tenth of them otherwise; on a terminal one line, redrawn. */
static void on_item(void *user, const char *method, const char *task, int64_t done, int64_t total)
{
    eval_bar *bar = user;
    if (bar->start == 0 || total != bar->total || done < bar->done) {
        bar->start = eval_seconds();
        bar->first = done;
        bar->tenth = -1;
    }
    bar->done = done;
    bar->total = total;
    snprintf(bar->what, sizeof bar->what, "%s  %s", method, task);
    if (isatty(STDERR_FILENO)) {
        draw(bar, 0, CLI_REDRAW, CLI_REDRAWN);
    } else if (total <= 40 || done * 10 / total > bar->tenth) {
        bar->tenth = done * 10 / total;
        draw(bar, 0, "", "\n");
    }
}

static void on_tokens(void *user, int64_t done, int64_t total)
{
    eval_bar *bar = user;
    if (isatty(STDERR_FILENO) && eval_seconds() - bar->last > 0.2)
        draw(bar, (double)done / (double)total, CLI_REDRAW, CLI_REDRAWN);
}

eval_watch eval_bar_watch(eval_bar *bar)
{
    return (eval_watch){.item = on_item, .tokens = on_tokens, .user = bar};
}

void eval_bar_end(eval_bar *bar)
{
    if (bar->start > 0 && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* ------------------------------------------------------------------------------------------------ cells ---- */

static void name_cell(const eval_bench *b, const char *text)
{
    int width = 12;
    for (int32_t m = 0; m < b->methods.n; m++)
        if ((int)strlen(b->methods.items[m].label) > width)
            width = (int)strlen(b->methods.items[m].label);
    printf("  %-*s", width, text);
}

static void head_cell(const char *text)
{
    printf("  %*s", strlen(text) > 9 ? (int)strlen(text) : 9, text);
}

static void number_cell(const char *head, const char *format, double value)
{
    char text[32] = "-";
    if (!isnan(value))
        snprintf(text, sizeof text, format, value);
    printf("  %*s", strlen(head) > 9 ? (int)strlen(head) : 9, text);
}

/* The method that others are compared with: dense where it is among them, else the first. */
static const eval_method *baseline(const eval_bench *b)
{
    for (int32_t m = 0; m < b->methods.n; m++)
        if (b->methods.items[m].options.method == PRISM_METHOD_DENSE)
            return &b->methods.items[m];
    return &b->methods.items[0];
}

/* -------------------------------------------------------------------------------------------------- ppl ---- */

static bool ppl_of(const eval_bench *b, const char *label, int32_t n_ctx, eval_ppl_score *out)
{
    return eval_ppl_sum(b->results, label, n_ctx, b->texts, b->args->n_text ? b->args->n_text : 1, out);
}

static void print_positions(const eval_bench *b, int32_t n_ctx)
{
    printf("\n  token perplexity by position in the window\n");
    name_cell(b, "");
    for (int i = 0; i < EVAL_PPL_N_BUCKET && (i == 0 || 64 << i < n_ctx); i++) {
        char head[32];
        snprintf(head, sizeof head, "<%d", 128 << i);
        head_cell(head);
    }
    putchar('\n');
    for (int32_t m = 0; m < b->methods.n; m++) {
        eval_ppl_score s;
        if (!ppl_of(b, b->methods.items[m].label, n_ctx, &s))
            continue;
        name_cell(b, b->methods.items[m].label);
        for (int i = 0; i < EVAL_PPL_N_BUCKET && (i == 0 || 64 << i < n_ctx); i++)
            number_cell("", "%.3f", s.bucket_n[i] ? exp(s.bucket_nll[i] / (double)s.bucket_n[i]) : NAN);
        putchar('\n');
    }
}

static void print_ppl(const eval_bench *b, int32_t n_ctx)
{
    static const char *const heads[] = {"word ppl", "byte ppl", "token ppl", "bits/byte",
                                        "change",   "density",  "TFLOP",     "seconds"};
    eval_ppl_score base, s;
    if (!ppl_of(b, baseline(b)->label, n_ctx, &base))
        return;
    printf("\nppl, windows of %d: %lld tokens, %lld words, %lld bytes in %lld windows\n", n_ctx,
           (long long)base.n_token, (long long)base.n_word, (long long)base.n_byte, (long long)base.n_window);
    name_cell(b, "method");
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        head_cell(heads[i]);
    putchar('\n');
    for (int32_t m = 0; m < b->methods.n; m++) {
        if (!ppl_of(b, b->methods.items[m].label, n_ctx, &s))
            continue;
        name_cell(b, b->methods.items[m].label);
        number_cell("", "%.3f", s.word);
        number_cell("", "%.4f", s.byte);
        number_cell("", "%.4f", s.token);
        number_cell("", "%.4f", s.bits_per_byte);
        number_cell("", "%+.2f %%", 100 * (s.token / base.token - 1));
        number_cell("", "%.3f", s.density);
        number_cell("", "%.3f", s.work_flop * 1e-12);
        number_cell("", "%.1f", s.seconds);
        putchar('\n');
    }
    printf("  change: of token perplexity, against %s\n", baseline(b)->label);
    if (b->args->by_position)
        print_positions(b, n_ctx);
}

/* ------------------------------------------------------------------------------------------------ tasks ---- */

enum { MOST_TASKS = 512 };

/* Tasks with records of the methods at this length, in the order of their first record. Names are the results'. */
static int32_t list_tasks(const eval_bench *b, int32_t n_ctx, const char *names[MOST_TASKS])
{
    int32_t n = 0;
    for (int32_t i = 0; i < eval_results_count(b->results); i++) {
        const cJSON *record = eval_results_at(b->results, i);
        const char *task = cJSON_GetStringValue(lm_json_get(record, "task"));
        bool known = eval_record_number(record, "ctx") != n_ctx;
        for (int32_t j = 0; !known && j < n; j++)
            known = !strcmp(names[j], task);
        if (!known && n < MOST_TASKS)
            names[n++] = task;
    }
    return n;
}

/* "needle/book/word-number/k4/d0.50" is told by its haystack and depth where the rest is the same in a table. */
static const char *short_name(const char *task, char *text, size_t n)
{
    char haystack[16], depth[16];
    if (sscanf(task, "needle/%15[a-z]/%*[^/]/%*[^/]/%15s", haystack, depth) != 2)
        return task;
    snprintf(text, n, "%s %s", haystack, depth);
    return text;
}

typedef struct row {
    eval_mean all;
    double scores[MOST_TASKS], average; /* of the tasks' means */
} row;

static void read_row(const eval_bench *b, const char *label, int32_t n_ctx, const char *const *tasks, int32_t n_task,
                     row *out)
{
    out->all = eval_mean_of(b->results, label, NULL, n_ctx, b->args->n_sample);
    out->average = 0;
    for (int32_t t = 0; t < n_task; t++) {
        out->scores[t] = eval_mean_of(b->results, label, tasks[t], n_ctx, b->args->n_sample).score;
        out->average += out->scores[t] / n_task;
    }
}

/* A line of the table: a number of every row. */
static void print_line(const eval_bench *b, const row *rows, const char *name, const char *format, double scale,
                       size_t offset)
{
    printf("  %-20s", name);
    for (int32_t m = 0; m < b->methods.n; m++)
        number_cell(b->methods.items[m].label, format,
                    scale * *(const double *)(const void *)((const char *)&rows[m] + offset));
    putchar('\n');
}

/* Tasks downwards: all 13 of RULER's side by side are wider than a terminal. */
static int print_tasks(const eval_bench *b, int32_t n_ctx)
{
    static const struct {
        const char *name, *format;
        double scale;
        size_t offset;
    } sums[] = {{"average", "%.1f", 100, offsetof(row, average)},
                {"density", "%.3f", 1, offsetof(row, all.density)},
                {"TFLOP", "%.3f", 1e-12, offsetof(row, all.work_flop)},
                {"seconds", "%.1f", 1, offsetof(row, all.seconds)}};
    const char *tasks[MOST_TASKS];
    char text[64];
    const int32_t n_task = list_tasks(b, n_ctx, tasks);
    row *rows = calloc((size_t)b->methods.n, sizeof *rows);
    if (!rows)
        return cli_fail(EXIT_RUN, "out of memory for the table");
    printf("\n%s, %d tokens: scores in percent\n  %-20s", eval_family_names[b->args->family], n_ctx, "");
    for (int32_t m = 0; m < b->methods.n; m++) {
        read_row(b, b->methods.items[m].label, n_ctx, tasks, n_task, &rows[m]);
        head_cell(b->methods.items[m].label);
    }
    putchar('\n');
    for (int32_t t = 0; t < n_task; t++)
        print_line(b, rows, short_name(tasks[t], text, sizeof text), "%.1f", 100,
                   offsetof(row, scores) + (size_t)t * sizeof rows->scores[0]);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        print_line(b, rows, sums[i].name, sums[i].format, sums[i].scale, sums[i].offset);
    printf("  density, TFLOP (of attention) and seconds: mean of a sample\n");
    free(rows);
    return EXIT_DONE;
}

/* ----------------------------------------------------------------------------------------------- recall ---- */

static const char *const recall_fields[] = {"mass", "error", "density", "oracle"};

static void recall_row(const eval_bench *b, const char *name, const char *label, int32_t first, int32_t n_layer)
{
    name_cell(b, name);
    for (int f = 0; f < 4; f++) {
        double sum = 0;
        for (int32_t l = first; l < first + n_layer; l++) {
            const cJSON *record = eval_results_find(b->results, label, "recall", b->n_prompt, l);
            sum += record ? eval_record_mean(record, recall_fields[f]) : NAN;
        }
        number_cell("", "%.4f", sum / n_layer);
    }
    putchar('\n');
}

static void print_recall(const eval_bench *b)
{
    const int32_t n_layer = lm_model_config(b->model)->n_layer;
    printf("\nrecall, a prompt of %d tokens, %d query blocks per head (0: all); means over heads\n", b->n_prompt,
           b->args->n_row);
    name_cell(b, "method");
    for (int f = 0; f < 4; f++)
        head_cell(recall_fields[f]);
    putchar('\n');
    for (int32_t m = 0; m < b->methods.n; m++)
        recall_row(b, b->methods.items[m].label, b->methods.items[m].label, 0, n_layer);
    for (int32_t m = 0; m < b->methods.n; m++) {
        printf("\n  %s\n", b->methods.items[m].label);
        for (int32_t l = 0; l < n_layer; l++) {
            char name[32];
            snprintf(name, sizeof name, "layer %d", l);
            recall_row(b, name, b->methods.items[m].label, l, 1);
        }
    }
    printf("  oracle: density of the fewest blocks that hold each row's mass\n");
}

int eval_print_tables(const eval_bench *b)
{
    int code = EXIT_DONE;
    if (b->args->family == EVAL_RECALL)
        print_recall(b);
    for (int32_t i = 0; !code && b->args->family != EVAL_RECALL && i < b->args->n_ctx; i++)
        if (b->args->family == EVAL_PPL)
            print_ppl(b, b->args->ctx[i]);
        else
            code = print_tasks(b, b->args->ctx[i]);
    return code;
}

/* ------------------------------------------------------------------------------------------------- json ---- */

/* JSON has no NaN: what is not known is left out. */
static void add_number(cJSON *o, const char *name, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(o, name, value);
}

static void ppl_json(const eval_bench *b, int32_t n_ctx, const char *label, cJSON *o)
{
    eval_ppl_score s;
    if (!ppl_of(b, label, n_ctx, &s))
        return;
    add_number(o, "word_perplexity", s.word);
    add_number(o, "byte_perplexity", s.byte);
    add_number(o, "token_perplexity", s.token);
    add_number(o, "bits_per_byte", s.bits_per_byte);
    add_number(o, "nll", s.nll);
    add_number(o, "tokens", (double)s.n_token);
    add_number(o, "density", s.density);
    add_number(o, "work_flop", s.work_flop);
    add_number(o, "seconds", s.seconds);
    cJSON *list = cJSON_AddArrayToObject(o, "by_position");
    for (int i = 0; i < EVAL_PPL_N_BUCKET; i++) {
        if (!s.bucket_n[i])
            continue;
        cJSON *bucket = cJSON_CreateObject();
        add_number(bucket, "first", i ? 64 << i : 0);
        add_number(bucket, "tokens", (double)s.bucket_n[i]);
        add_number(bucket, "token_perplexity", exp(s.bucket_nll[i] / (double)s.bucket_n[i]));
        cJSON_AddItemToArray(list, bucket);
    }
}

static void tasks_json(const eval_bench *b, int32_t n_ctx, const char *label, cJSON *o)
{
    const char *names[MOST_TASKS];
    const int32_t n_task = list_tasks(b, n_ctx, names);
    row r;
    read_row(b, label, n_ctx, names, n_task, &r);
    cJSON *tasks = cJSON_AddObjectToObject(o, "tasks");
    for (int32_t t = 0; t < n_task; t++)
        add_number(tasks, names[t], r.scores[t]);
    add_number(o, "average", r.average);
    add_number(o, "samples", r.all.n);
    add_number(o, "density", r.all.density);
    add_number(o, "work_flop", r.all.work_flop);
    add_number(o, "seconds", r.all.seconds);
    add_number(o, "select_seconds", r.all.select_seconds);
    add_number(o, "attend_seconds", r.all.attend_seconds);
}

static void recall_json(const eval_bench *b, const char *label, cJSON *o)
{
    cJSON *layers = cJSON_AddArrayToObject(o, "layers");
    for (int32_t l = 0; l < lm_model_config(b->model)->n_layer; l++) {
        const cJSON *record = eval_results_find(b->results, label, "recall", b->n_prompt, l);
        cJSON *layer = cJSON_CreateObject();
        for (int f = 0; record && f < 4; f++)
            cJSON_AddItemToObject(layer, recall_fields[f], cJSON_Duplicate(lm_json_get(record, recall_fields[f]), 1));
        cJSON_AddItemToArray(layers, layer);
    }
}

cJSON *eval_to_json(const eval_bench *b)
{
    cJSON *json = cJSON_Duplicate(eval_results_header(b->results), true);
    cJSON *runs = cJSON_AddArrayToObject(json, "runs");
    const bool recall = b->args->family == EVAL_RECALL;
    for (int32_t i = 0; i < b->args->n_ctx; i++)
        for (int32_t m = 0; m < b->methods.n; m++) {
            const char *label = b->methods.items[m].label;
            cJSON *o = cJSON_CreateObject();
            cJSON_AddNumberToObject(o, "ctx", recall ? b->n_prompt : b->args->ctx[i]);
            cJSON_AddStringToObject(o, "method", label);
            if (b->args->family == EVAL_PPL)
                ppl_json(b, b->args->ctx[i], label, o);
            else if (recall)
                recall_json(b, label, o);
            else
                tasks_json(b, b->args->ctx[i], label, o);
            cJSON_AddItemToArray(runs, o);
        }
    return json;
}
