/* prism bench: tables and JSON. Rows are flat, so that a row of JSON is a line of CSV. */
#include "bench_command.h"

#include <prism_attn/prism_cuda.h>

#include <math.h>
#include <string.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ------------------------------------------------------------------------------------------------- report ---- */

static void cpu_name(char *name, size_t n)
{
    char line[256];
    snprintf(name, n, "unknown processor");
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "model name", 10) && strchr(line, ':')) {
            snprintf(name, n, "%s", strchr(line, ':') + 2);
            name[strcspn(name, "\n")] = '\0';
            break;
        }
    if (f)
        fclose(f);
}

/* The processor that computes, and in what way. */
static void machine_name(const prism_info *info, const char *cpu, char *text, size_t n)
{
    prism_cuda_info gpu = {.struct_size = sizeof gpu};
    if (info->device == PRISM_DEVICE_CPU)
        snprintf(text, n, "%s, %s, %d threads", cpu, info->isa_name, info->n_thread);
    else
        snprintf(text, n, "%s", prism_cuda_describe(info->ordinal, &gpu) ? "a GPU" : gpu.name);
}

static void add_machine(cJSON *o, const prism_info *info, const char *cpu)
{
    cJSON *machine = cJSON_AddObjectToObject(o, "machine");
    cJSON_AddStringToObject(machine, "cpu", cpu);
    cJSON_AddStringToObject(machine, "kernels", info->isa_name);
    cJSON_AddNumberToObject(machine, "threads", info->n_thread);
    cJSON_AddStringToObject(machine, "cpu_features", info->cpu_features);
    cJSON_AddStringToObject(machine, "version", prism_version());
    cJSON_AddStringToObject(machine, "device", info->device == PRISM_DEVICE_CPU ? "cpu" : "cuda");
    if (info->device != PRISM_DEVICE_CPU) {
        char gpu[128];
        machine_name(info, cpu, gpu, sizeof gpu);
        cJSON_AddStringToObject(machine, "gpu", gpu);
    }
}

static void add_source(cJSON *o, const bench_state *s)
{
    const bench_args *a = s->args;
    cJSON *source = cJSON_AddObjectToObject(o, "source");
    cJSON_AddStringToObject(source, "kind", s->model ? "model" : "noise");
    if (s->model) {
        cJSON_AddStringToObject(source, "model", a->model);
        cJSON_AddStringToObject(source, "prompt", a->ruler ? a->ruler : a->file);
        cJSON_AddNumberToObject(source, "prompt_tokens", (double)s->tokens.n);
    } else {
        cJSON_AddNumberToObject(source, "seed", a->seed);
    }
    if (a->what == BENCH_PREFILL) {
        cJSON_AddNumberToObject(source, "chunk", a->chunk);
        return;
    }
    if (s->model)
        cJSON_AddNumberToObject(source, "layer", s->layer);
    cJSON_AddNumberToObject(source, "heads", s->tensors.n_head);
    cJSON_AddNumberToObject(source, "kv_heads", s->tensors.n_kv_head);
    cJSON_AddNumberToObject(source, "d", s->tensors.d_head);
    cJSON_AddStringToObject(source, "dtype", bench_dtype_names[s->tensors.dtype]);
}

/* One line that says under a picture what was measured. */
static void add_subtitle(cJSON *o, const bench_state *s, const prism_info *info, const char *cpu)
{
    char text[512];
    const bench_tensors *t = &s->tensors;
    machine_name(info, cpu, text, sizeof text);
    int n = (int)strlen(text);
    if (s->args->what == BENCH_PREFILL)
        n += snprintf(text + n, sizeof text - (size_t)n, "; %s", base_name(s->args->model));
    else
        n += snprintf(text + n, sizeof text - (size_t)n, "; %d heads of %d, %d KV heads, %s", t->n_head, t->d_head,
                      t->n_kv_head, bench_dtype_names[t->dtype]);
    if (s->args->what != BENCH_PREFILL && n < (int)sizeof text) {
        if (s->model)
            snprintf(text + n, sizeof text - (size_t)n, "; layer %d of %s", s->layer, base_name(s->args->model));
        else
            snprintf(text + n, sizeof text - (size_t)n, "; noise");
    }
    cJSON_AddStringToObject(o, "subtitle", text);
}

cJSON *bench_report_create(const bench_state *s)
{
    char cpu[128];
    prism_info info = {.struct_size = sizeof info};
    prism_get_info(s->ctx, &info);
    cpu_name(cpu, sizeof cpu);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "bench", bench_names[s->args->what]);
    add_subtitle(o, s, &info, cpu);
    add_machine(o, &info, cpu);
    add_source(o, s);
    if (s->args->what != BENCH_PREFILL)
        cJSON_AddItemToObject(o, "density_imposed",
                              s->density > 0 ? cJSON_CreateNumber(s->density) : cJSON_CreateNull());
    cJSON_AddNumberToObject(o, "repetitions_at_most", s->args->limits.reps);
    cJSON_AddNumberToObject(o, "seconds_at_most", s->args->limits.seconds);
    return cJSON_AddArrayToObject(o, "results") ? o : (cJSON_Delete(o), NULL);
}

/* ------------------------------------------------------------------------------------------------- rows ---- */

enum { name_width = 26, cell_width = 12 };

/* A member of a row: in the report under its key, in the table under its head. */
typedef struct cell {
    const char *key;
    double value;              /* NAN: not measured. null in the report, "-" in the table */
    const char *head, *format; /* head NULL: only in the report */
    double scale;              /* of the value in the table */
    const char *text;          /* in the place of the value */
} cell;

static cell shown(const char *key, double value, const char *head, const char *format, double scale)
{
    return (cell){key, value, head, format, scale, NULL};
}

static cell kept(const char *key, double value)
{
    return (cell){.key = key, .value = value};
}

static cell worded(const char *key, const char *text, const char *head)
{
    return (cell){.key = key, .text = text, .head = head};
}

static double if_positive(double x)
{
    return x > 0 ? x : NAN;
}

static void add_cell(cJSON *row, const cell *c)
{
    if (c->text)
        cJSON_AddStringToObject(row, c->key, c->text);
    else if (isnan(c->value))
        cJSON_AddNullToObject(row, c->key);
    else
        cJSON_AddNumberToObject(row, c->key, c->value);
}

/* The row's last members in the report; kernel "": on the CPU. */
static void add_end(cJSON *row, const bench_time *whole, const char *kernel)
{
    cJSON_AddNumberToObject(row, "repetitions", whole->n);
    cJSON_AddBoolToObject(row, "warm", whole->warm);
    if (kernel[0])
        cJSON_AddStringToObject(row, "kernel", kernel);
}

static cJSON *add_row(const bench_state *s, const char *method, int32_t n_token, const cell *cells, int n)
{
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "method", method);
    cJSON_AddNumberToObject(row, "tokens", n_token);
    for (int i = 0; i < n; i++)
        add_cell(row, &cells[i]);
    cJSON_AddItemToArray(s->rows, row);
    return row;
}

static void print_heads(const bench_state *s, int32_t n_token, const char *name, const cell *cells, int n)
{
    printf("%s%d tokens\n  %-*s", s->rows->child ? "\n" : "", n_token, name_width, name);
    for (int i = 0; i < n; i++)
        if (cells[i].head)
            printf("%*s", cell_width, cells[i].head);
    putchar('\n');
}

static void print_row(const char *name, const cell *cells, int n, const char *note)
{
    printf("  %-*s", name_width, name);
    for (int i = 0; i < n; i++) {
        const cell *c = &cells[i];
        char text[32] = "-";
        if (!c->head)
            continue;
        if (!c->text && !isnan(c->value))
            snprintf(text, sizeof text, c->format, c->value * c->scale);
        printf("%*s", cell_width, c->text ? c->text : text);
    }
    puts(note);
}

/* ---------------------------------------------------------------------------------------------- attention ---- */

static void print_kernel(const bench_attention_result *r)
{
    if (r->kernel[0])
        printf("  %s: attention on the GPU by kernel %s\n", r->label, cli_kernel_text(r->kernel));
}

static void report_attention(bench_state *s, const bench_attention_result *r, bool first)
{
    static const char *const paths[] = {[PRISM_PATH_SPARSE] = "sparse",
                                        [PRISM_PATH_DENSE] = "dense",
                                        [PRISM_PATH_DENSE_SHORT] = "dense_short",
                                        [PRISM_PATH_DENSE_OVERFLOW] = "dense_overflow"};
    const double work = (r->select_flop + r->correct_flop + r->attend_flop) / r->dense_flop;
    const double added = (double)(r->workspace_bytes - r->attend_workspace_bytes);
    const double peak = r->select_peak_bytes >= 0 ? (double)r->select_peak_bytes : NAN;
    const cell cells[] = {
        shown("select_seconds", r->select.median, "select ms", "%.3f", 1e3),
        kept("pool_seconds", r->pool.median),
        shown("attend_seconds", r->attend.median, "attend ms", "%.3f", 1e3),
        shown("call_seconds", r->call.median, "call ms", "%.3f", 1e3),
        kept("call_seconds_min", r->call.min),
        kept("call_seconds_max", r->call.max),
        shown("speedup", if_positive(r->speedup), "speed-up", "%.2fx", 1),
        shown("density", r->density, "density", "%.3f", 1),
        kept("density_of_method", r->density_of_method),
        kept("select_flop", r->select_flop),
        kept("correct_flop", r->correct_flop),
        kept("attend_flop", r->attend_flop),
        kept("dense_flop", r->dense_flop),
        shown("work", work, "work", "%.3f", 1),
        shown("attend_gflops", r->attend_flop / r->attend.median * 1e-9, "GFLOP/s", "%.1f", 1),
        kept("workspace_bytes", (double)r->workspace_bytes),
        shown("select_workspace_bytes", added, "+workspace", "%.2f", 0x1p-20),
        shown("select_peak_bytes", peak, "memory MiB", "%.2f", 0x1p-20),
        worded("path", paths[r->path], NULL),
    };
    enum { n = sizeof cells / sizeof *cells };
    char note[64];
    snprintf(note, sizeof note, "%s%s", r->call.warm ? "" : "  cold",
             r->path == PRISM_PATH_DENSE_SHORT ? "  short: dense" : "");
    if (first && !s->args->base.json)
        print_heads(s, r->n_token, "method", cells, n);
    if (!s->args->base.json)
        print_row(r->label, cells, n, note);
    add_end(add_row(s, r->label, r->n_token, cells, n), &r->call, r->kernel);
}

void bench_report_attention(bench_state *s, const bench_attention_result *results)
{
    for (int32_t i = 0; i < s->parsed.n; i++)
        report_attention(s, &results[i], i == 0);
    for (int32_t i = 0; !s->args->base.json && i < s->parsed.n; i++)
        print_kernel(&results[i]);
    fflush(stdout);
}

/* ------------------------------------------------------------------------------------------------- stages ---- */

void bench_report_peaks(bench_state *s, const bench_peaks *peaks)
{
    cJSON *o = cJSON_AddObjectToObject(s->report, "peaks");
    cJSON_AddNumberToObject(o, "fma_gflops", peaks->fma_flops * 1e-9);
    if (peaks->dot_flops > 0)
        cJSON_AddNumberToObject(o, "dot_gflops", peaks->dot_flops * 1e-9);
    cJSON_AddNumberToObject(o, "read_gbytes_s", peaks->read_bytes_s * 1e-9);
    cJSON_AddNumberToObject(o, "copy_gbytes_s", peaks->copy_bytes_s * 1e-9);
    cJSON *tiers = cJSON_AddArrayToObject(o, "tiers");
    for (int32_t i = 0; i < peaks->n_tier; i++) {
        cJSON *tier = cJSON_CreateObject();
        cJSON_AddStringToObject(tier, "name", peaks->tiers[i].name);
        cJSON_AddStringToObject(tier, "what", peaks->tiers[i].what);
        cJSON_AddNumberToObject(tier, "gflops", peaks->tiers[i].flops * 1e-9);
        cJSON_AddItemToArray(tiers, tier);
    }
    if (s->args->base.json)
        return;
    prism_info info = {.struct_size = sizeof info};
    prism_get_info(s->ctx, &info);
    char name[256];
    machine_name(&info, "CPU", name, sizeof name);
    printf("peaks, %s\n", name);
    for (int32_t i = 0; i < peaks->n_tier; i++)
        printf(
            "  %-10s %-18s%10.1f GFLOP/s%s\n", peaks->tiers[i].name, peaks->tiers[i].what, peaks->tiers[i].flops * 1e-9,
            peaks->tiers[i].flops == peaks->fma_flops || peaks->tiers[i].flops == peaks->dot_flops ? "  in use" : "");
    printf("  %-29s%10.1f GB/s\n  %-29s%10.1f GB/s, read and written\n\n", "memory read", peaks->read_bytes_s * 1e-9,
           "memory copy", peaks->copy_bytes_s * 1e-9);
    fflush(stdout);
}

/* opens: the stage is the first of its method; first: the method is also the first of its table. */
static void report_stage(bench_state *s, const bench_attention_result *r, const bench_stage *g, bool opens, bool first)
{
    char name[name_width];
    const double share = g->seconds / r->call.median;
    const cell cells[] = {
        worded("stage", g->name, NULL),
        shown("seconds", g->seconds, "ms", "%.3f", 1e3),
        shown("share_of_call", share, "of the call", "%.1f %%", 100),
        shown("flop", g->flop, "GFLOP", "%.4g", 1e-9),
        shown("bytes", g->bytes, "MB", "%.4g", 1e-6),
        shown("gflops", g->flop / g->seconds * 1e-9, "GFLOP/s", "%.3g", 1),
        shown("gbytes_s", g->bytes / g->seconds * 1e-9, "GB/s", "%.3g", 1),
        worded("bound", g->bound_by_memory ? "memory" : "compute", "bound"),
        shown("share_of_roofline", g->share, "of roofline", "%.1f %%", 100),
        kept("density", r->density),
        kept("call_seconds", r->call.median),
    };
    enum { n = sizeof cells / sizeof *cells };
    snprintf(name, sizeof name, "  %s", g->name);
    if (first && !s->args->base.json)
        print_heads(s, r->n_token, "method, stage", cells, n);
    if (opens && !s->args->base.json)
        printf("  %s, density %.3f%s\n", r->label, r->density, r->call.warm ? "" : ", cold");
    if (!s->args->base.json)
        print_row(name, cells, n, "");
    add_end(add_row(s, r->label, r->n_token, cells, n), &r->call, r->kernel);
}

void bench_report_stages(bench_state *s, const bench_attention_result *results, const bench_peaks *peaks)
{
    for (int32_t i = 0; i < s->parsed.n; i++) {
        const bench_attention_result *r = &results[i];
        bench_stage stages[BENCH_N_STAGE];
        bench_stages(&s->tensors, r, &s->methods[i].options, peaks, stages);
        bool opens = true;
        for (int k = 0; k < BENCH_N_STAGE; k++)
            if (stages[k].flop > 0) { /* the method has that stage */
                report_stage(s, r, &stages[k], opens, opens && i == 0);
                opens = false;
            }
        if (!s->args->base.json)
            print_kernel(r);
    }
    fflush(stdout);
}

/* ------------------------------------------------------------------------------------------------ prefill ---- */

void bench_report_prefill(bench_state *s, const bench_prefill_result *results)
{
    for (int32_t i = 0; i < s->parsed.n; i++) {
        const bench_prefill_result *r = &results[i];
        const cell cells[] = {
            shown("prefill_seconds", r->prefill.median, "prefill s", "%.3f", 1),
            kept("prefill_seconds_min", r->prefill.min),
            kept("prefill_seconds_max", r->prefill.max),
            shown("tokens_per_second", r->n_token / r->prefill.median, "tokens/s", "%.0f", 1),
            shown("select_seconds", r->select.median, "select s", "%.4f", 1),
            shown("attend_seconds", r->attend.median, "attend s", "%.3f", 1),
            shown("linear_seconds", r->linear.median, "linear s", "%.3f", 1),
            shown("speedup", if_positive(r->speedup), "speed-up", "%.2fx", 1),
            shown("attention_speedup", if_positive(r->attention_speedup), "attention", "%.2fx", 1),
            shown("density", r->density, "density", "%.3f", 1),
            kept("work_flop", r->work_flop),
            kept("dense_flop", r->dense_flop),
            shown("work", r->work_flop / r->dense_flop, "work", "%.3f", 1),
            shown("peak_bytes", r->peak_bytes >= 0 ? (double)r->peak_bytes : NAN, "peak MiB", "%.0f", 0x1p-20),
        };
        enum { n = sizeof cells / sizeof *cells };
        if (i == 0 && !s->args->base.json)
            print_heads(s, r->n_token, "method", cells, n);
        if (!s->args->base.json)
            print_row(r->label, cells, n, r->prefill.warm ? "" : "  cold");
        add_end(add_row(s, r->label, r->n_token, cells, n), &r->prefill, "");
    }
    fflush(stdout);
}
