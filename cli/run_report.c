/* The table and the JSON of prism run. */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The KL divergence of the last position's distributions, of b from a, in nats. */
static double divergence_of(const run_result *a, const run_result *b)
{
    double max_a = -INFINITY, max_b = -INFINITY, sum_a = 0, sum_b = 0, divergence = 0;
    for (int32_t i = 0; i < a->n_vocab; i++) {
        max_a = fmax(max_a, a->logits[i]);
        max_b = fmax(max_b, b->logits[i]);
    }
    for (int32_t i = 0; i < a->n_vocab; i++) {
        sum_a += exp(a->logits[i] - max_a);
        sum_b += exp(b->logits[i] - max_b);
    }
    for (int32_t i = 0; i < a->n_vocab; i++) {
        const double log_a = a->logits[i] - max_a - log(sum_a), log_b = b->logits[i] - max_b - log(sum_b);
        divergence += exp(log_a) * (log_a - log_b);
    }
    return fmax(divergence, 0);
}

static bool answers_agree(const run_result *a, const run_result *b)
{
    return a->answer.n == b->answer.n && !memcmp(a->answer.data, b->answer.data, a->answer.n);
}

static double attention_seconds(const run_result *r)
{
    return r->stats.select_seconds + r->stats.attend_seconds;
}

static const char *path_name(prism_path path)
{
    switch (path) {
    case PRISM_PATH_SPARSE: return "sparse";
    case PRISM_PATH_DENSE: return "dense";
    case PRISM_PATH_DENSE_SHORT: return "dense (short prompt)";
    case PRISM_PATH_DENSE_OVERFLOW: return "dense (plan too small)";
    }
    return "?";
}

static void print_cells(const char *name, const char *const *cells, int n_cell)
{
    fprintf(stderr, "  %-22s", name);
    for (int i = 0; i < n_cell; i++)
        fprintf(stderr, "%16s", cells[i]);
    fputc('\n', stderr);
}

/* One row of numbers, a cell a result. */
static void print_row(const char *name, const char *format, double a, double b, int n_result)
{
    char text[2][32];
    const double values[2] = {a, b};
    const char *cells[2] = {text[0], text[1]};
    for (int i = 0; i < n_result; i++)
        snprintf(text[i], sizeof text[i], format, values[i]);
    print_cells(name, cells, n_result);
}

static void print_layers(const run_result *r)
{
    char bar[128];
    fprintf(stderr, "\n  density per layer, %s (%s)\n", prism_method_name(r->method),
            path_name(r->stats.layers[0].path));
    for (int32_t l = 0; l < r->stats.n_layer; l++)
        fprintf(stderr, "  %4d %s %.3f\n", l, cli_bar(r->stats.layers[l].density, 32, bar, sizeof bar),
               r->stats.layers[l].density);
}

static void print_comparison(const run_result *a, const run_result *b)
{
    fprintf(stderr, "\n  %s against %s\n", prism_method_name(a->method), prism_method_name(b->method));
    fprintf(stderr, "  %-38s%.2fx\n", "attention (with selection) speed-up",
            attention_seconds(b) / attention_seconds(a));
    fprintf(stderr, "  %-38s%.2fx\n", "prefill speed-up", b->prefill_seconds / a->prefill_seconds);
    fprintf(stderr, "  %-38s%s\n", "answers agree", b->interrupted ? "cut short" : answers_agree(a, b) ? "yes" : "no");
    fprintf(stderr, "  %-38s%.3g nats\n", "KL divergence of the last position", divergence_of(b, a));
}

void run_print_table(const run_result *r, int n_result, int32_t n_prompt, const cli_prompt *prompt)
{
    const run_result *b = &r[n_result - 1];
    const char *names[2] = {prism_method_name(r->method), prism_method_name(b->method)};
    fputc('\n', stderr);
    print_cells("", names, n_result);
    print_row("prompt tokens", "%.0f", n_prompt, n_prompt, n_result);
    print_row("prefill, s", "%.2f", r->prefill_seconds, b->prefill_seconds, n_result);
    print_row("  tokens/s", "%.0f", r->tokens_per_second, b->tokens_per_second, n_result);
    print_row("  attention, s", "%.2f", r->stats.attend_seconds, b->stats.attend_seconds, n_result);
    print_row("  selection, s", "%.3f", r->stats.select_seconds, b->stats.select_seconds, n_result);
    print_row("  linear layers, s", "%.2f", r->stats.linear_seconds, b->stats.linear_seconds, n_result);
    print_row("answer tokens", "%.0f", r->n_answer, b->n_answer, n_result);
    print_row("  decoding, s", "%.2f", r->stats.decode_seconds, b->stats.decode_seconds, n_result);
    print_row("density", "%.3f", r->stats.density, b->stats.density, n_result);
    print_row("peak memory, MiB", "%.0f", (double)r->peak_bytes / 0x1p20, (double)b->peak_bytes / 0x1p20, n_result);
    if (r->stats.device_bytes)
        print_row("GPU memory, MiB", "%.0f", (double)r->stats.device_bytes / 0x1p20,
                  (double)b->stats.device_bytes / 0x1p20, n_result);
    for (int i = 0; i < n_result; i++)
        if (r[i].kernel[0])
            fprintf(stderr, "  %s: attention on the GPU by kernel %s\n", names[i], cli_kernel_text(r[i].kernel));
    if (prompt->gold) {
        char text[2][32];
        const char *cells[2] = {text[0], text[1]};
        for (int i = 0; i < n_result; i++)
            snprintf(text[i], sizeof text[i], "%d of %d", r[i].gold_found, cJSON_GetArraySize(prompt->gold));
        print_cells("gold answers found", cells, n_result);
    }
    print_layers(r);
    if (n_result > 1)
        print_comparison(r, b);
}

/* -------------------------------------------------------------------------------------------------- json ---- */

static cJSON *result_to_json(const run_result *r, const cli_prompt *prompt)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "method", prism_method_name(r->method));
    cJSON_AddStringToObject(o, "answer", r->answer.data);
    cJSON_AddNumberToObject(o, "answer_tokens", r->n_answer);
    cJSON_AddBoolToObject(o, "interrupted", r->interrupted);
    cJSON_AddNumberToObject(o, "prefill_seconds", r->prefill_seconds);
    cJSON_AddNumberToObject(o, "prefill_tokens_per_second", r->tokens_per_second);
    cJSON_AddNumberToObject(o, "attention_seconds", r->stats.attend_seconds);
    cJSON_AddNumberToObject(o, "selection_seconds", r->stats.select_seconds);
    cJSON_AddNumberToObject(o, "linear_seconds", r->stats.linear_seconds);
    cJSON_AddNumberToObject(o, "decode_seconds", r->stats.decode_seconds);
    cJSON_AddNumberToObject(o, "density", r->stats.density);
    cJSON_AddNumberToObject(o, "blocks_selected", (double)r->stats.n_selected);
    cJSON_AddNumberToObject(o, "blocks_causal", (double)r->stats.n_causal);
    cJSON_AddNumberToObject(o, "peak_memory_bytes", (double)r->peak_bytes);
    if (r->stats.device_bytes)
        cJSON_AddNumberToObject(o, "gpu_memory_bytes", (double)r->stats.device_bytes);
    if (r->kernel[0])
        cJSON_AddStringToObject(o, "attention_kernel", r->kernel);
    if (prompt->gold) {
        cJSON_AddNumberToObject(o, "gold_found", r->gold_found);
        cJSON_AddBoolToObject(o, "gold_correct", r->gold_found == cJSON_GetArraySize(prompt->gold));
    }
    cJSON *layers = cJSON_AddArrayToObject(o, "layers");
    for (int32_t l = 0; l < r->stats.n_layer; l++) {
        const lm_layer_stats *s = &r->stats.layers[l];
        cJSON *layer = cJSON_CreateObject();
        cJSON_AddNumberToObject(layer, "density", s->density);
        cJSON_AddNumberToObject(layer, "attention_seconds", s->attend_seconds);
        cJSON_AddNumberToObject(layer, "selection_seconds", s->select_seconds);
        cJSON_AddStringToObject(layer, "path", path_name(s->path));
        cJSON_AddItemToArray(layers, layer);
    }
    return o;
}

/* The shortest decimal number that is this float: 0.95, not 0.949999988079071. */
static double as_given(float x)
{
    char text[32];
    for (int digits = 1; digits < 10; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x)
            break;
    }
    return strtod(text, NULL);
}

/* Adds an option of kind NAME by the name of its value. */
static void add_named(cJSON *o, const char *option, int32_t value)
{
    prism_option_info info = {.struct_size = sizeof info};
    for (int32_t i = 0; !prism_option_at(i, &info); i++)
        if (!strcmp(info.name, option))
            cJSON_AddStringToObject(o, option, info.names[value]);
}

cJSON *run_to_json(const run_job *job, const run_result *results, int n_result, const cli_prompt *prompt)
{
    const run_args *args = job->args;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "model", args->model);
    cJSON_AddNumberToObject(o, "prompt_tokens", (double)job->tokens->n);
    cJSON_AddStringToObject(o, "chat", job->chat ? eval_chat_name(job->chat) : "none");
    cJSON_AddStringToObject(o, "version", prism_version());
    cJSON_AddNumberToObject(o, "top_p", as_given(args->method.options.top_p));
    cJSON_AddNumberToObject(o, "moments_error", as_given(args->method.options.moments_error));
    add_named(o, "correct", (int32_t)args->method.options.correct);
    add_named(o, "precision", (int32_t)args->method.options.precision);
    cJSON_AddNumberToObject(o, "block_size", args->method.options.block_size);
    add_named(o, "calibration", (int32_t)args->method.options.calibration);
    cJSON_AddNumberToObject(o, "chunk", args->chunk);
    cJSON_AddStringToObject(o, "device", args->method.device.kind == PRISM_DEVICE_CUDA ? "cuda" : "cpu");
    if (prompt->gold)
        cJSON_AddItemToObject(o, "gold", cJSON_Duplicate(prompt->gold, true));
    cJSON *runs = cJSON_AddArrayToObject(o, "runs");
    for (int i = 0; i < n_result; i++)
        cJSON_AddItemToArray(runs, result_to_json(&results[i], prompt));
    if (n_result > 1) {
        const run_result *a = &results[0], *b = &results[1];
        cJSON *c = cJSON_AddObjectToObject(o, "compare");
        cJSON_AddNumberToObject(c, "attention_speedup", attention_seconds(b) / attention_seconds(a));
        cJSON_AddNumberToObject(c, "prefill_speedup", b->prefill_seconds / a->prefill_seconds);
        cJSON_AddBoolToObject(c, "answers_agree", answers_agree(a, b));
        cJSON_AddNumberToObject(c, "kl_divergence", divergence_of(b, a));
    }
    return o;
}
