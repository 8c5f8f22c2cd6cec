/* prism bench: tables and JSON. Rows are flat, so that a row of JSON is a line of CSV. */
#include "bench.h"

#include <prism_attn/prism_cuda.h>

#include <string.h>

static const char *const dtype_names[] = {[PRISM_F32] = "f32", [PRISM_F16] = "f16", [PRISM_BF16] = "bf16"};

static const char *path_name(prism_path path)
{
    static const char *const names[] = {[PRISM_PATH_SPARSE] = "sparse",
                                        [PRISM_PATH_DENSE] = "dense",
                                        [PRISM_PATH_DENSE_SHORT] = "dense_short",
                                        [PRISM_PATH_DENSE_OVERFLOW] = "dense_overflow"};
    return names[path];
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ------------------------------------------------------------------------------------------------- tables ---- */

enum { name_width = 26, cell_width = 12 };

static void print_name(const char *name)
{
    printf("  %-*s", name_width, name);
}

static void print_heads(const char *first, const char *const *heads, int n)
{
    print_name(first);
    for (int i = 0; i < n; i++)
        printf("%*s", cell_width, heads[i]);
    putchar('\n');
}

/* "-" for what was not measured. */
static void print_cell(const char *format, double value, bool known)
{
    char text[32];
    snprintf(text, sizeof text, format, value);
    printf("%*s", cell_width, known ? text : "-");
}

/* Of what there is nothing to measure. */
static void print_blanks(int n)
{
    while (n-- > 0)
        printf("%*s", cell_width, "-");
}

static void print_title(const bench_state *s, int32_t n_token)
{
    if (s->rows->child)
        putchar('\n');
    printf("%d tokens\n", n_token);
}

/* --------------------------------------------------------------------------------------------------- json ---- */

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
    cJSON_AddStringToObject(source, "dtype", dtype_names[s->tensors.dtype]);
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
                      t->n_kv_head, dtype_names[t->dtype]);
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
    static const char *const names[] = {"attention", "stages", "prefill"};
    char cpu[128];
    prism_info info = {.struct_size = sizeof info};
    prism_get_info(s->ctx, &info);
    cpu_name(cpu, sizeof cpu);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "bench", names[s->args->what]);
    add_subtitle(o, s, &info, cpu);
    add_machine(o, &info, cpu);
    add_source(o, s);
    if (s->args->what != BENCH_PREFILL) {
        const double density = s->args->density < 0 ? (s->model ? 0 : 0.1) : s->args->density;
        cJSON_AddItemToObject(o, "density_imposed", density > 0 ? cJSON_CreateNumber(density) : cJSON_CreateNull());
    }
    cJSON_AddNumberToObject(o, "repetitions_at_most", s->args->limits.reps);
    cJSON_AddNumberToObject(o, "seconds_at_most", s->args->limits.seconds);
    return cJSON_AddArrayToObject(o, "results") ? o : (cJSON_Delete(o), NULL);
}

static void add_number_if(cJSON *o, const char *name, double value, bool known)
{
    cJSON_AddItemToObject(o, name, known ? cJSON_CreateNumber(value) : cJSON_CreateNull());
}

static cJSON *add_row(const bench_state *s, const char *method, int32_t n_token)
{
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "method", method);
    cJSON_AddNumberToObject(row, "tokens", n_token);
    cJSON_AddItemToArray(s->rows, row);
    return row;
}

static void add_times(cJSON *row, const bench_time *whole)
{
    cJSON_AddNumberToObject(row, "repetitions", whole->n);
    cJSON_AddBoolToObject(row, "warm", whole->warm);
}

/* ---------------------------------------------------------------------------------------------- attention ---- */

static double work_share(const bench_attention_result *r)
{
    return (r->select_flop + r->correct_flop + r->attend_flop) / r->dense_flop;
}

static double extra_workspace(const bench_attention_result *r)
{
    return (double)(r->workspace_bytes - r->attend_workspace_bytes);
}

static void add_kernel(cJSON *row, const bench_attention_result *r)
{
    if (r->kernel[0])
        cJSON_AddStringToObject(row, "kernel", r->kernel);
}

static void print_kernel(const bench_attention_result *r)
{
    if (r->kernel[0])
        printf("  %s: attention on the GPU by kernel %s\n", r->label, cli_kernel_text(r->kernel));
}

static void add_attention(const bench_state *s, const bench_attention_result *r)
{
    cJSON *row = add_row(s, r->label, r->n_token);
    cJSON_AddNumberToObject(row, "select_seconds", r->select.median);
    cJSON_AddNumberToObject(row, "pool_seconds", r->pool.median);
    cJSON_AddNumberToObject(row, "attend_seconds", r->attend.median);
    cJSON_AddNumberToObject(row, "call_seconds", r->call.median);
    cJSON_AddNumberToObject(row, "call_seconds_min", r->call.min);
    cJSON_AddNumberToObject(row, "call_seconds_max", r->call.max);
    add_times(row, &r->call);
    add_number_if(row, "speedup", r->speedup, r->speedup > 0);
    add_number_if(row, "speedup_over_cudnn", r->speedup_over_peer, r->speedup_over_peer > 0);
    cJSON_AddNumberToObject(row, "density", r->density);
    cJSON_AddNumberToObject(row, "density_of_method", r->density_of_method);
    cJSON_AddNumberToObject(row, "select_flop", r->select_flop);
    cJSON_AddNumberToObject(row, "correct_flop", r->correct_flop);
    cJSON_AddNumberToObject(row, "attend_flop", r->attend_flop);
    cJSON_AddNumberToObject(row, "dense_flop", r->dense_flop);
    cJSON_AddNumberToObject(row, "work", work_share(r));
    cJSON_AddNumberToObject(row, "attend_gflops", r->attend_flop / r->attend.median * 1e-9);
    cJSON_AddNumberToObject(row, "workspace_bytes", (double)r->workspace_bytes);
    cJSON_AddNumberToObject(row, "select_workspace_bytes", extra_workspace(r));
    add_number_if(row, "select_peak_bytes", (double)r->select_peak_bytes, r->select_peak_bytes >= 0);
    cJSON_AddStringToObject(row, "path", path_name(r->path));
    add_kernel(row, r);
}

static void add_peer(bench_state *s, const bench_peer_result *peer, int32_t n_token)
{
    cJSON *list = cJSON_GetObjectItemCaseSensitive(s->report, "peers"), *o = cJSON_CreateObject();
    if (!list)
        list = cJSON_AddArrayToObject(s->report, "peers");
    cJSON_AddItemToArray(list, o);
    cJSON_AddStringToObject(o, "peer", "cudnn");
    cJSON_AddNumberToObject(o, "tokens", n_token);
    if (peer->problem.kind) {
        cJSON_AddStringToObject(o, "problem", peer->problem.text);
        return;
    }
    cJSON_AddStringToObject(o, "version", peer->version);
    cJSON_AddNumberToObject(o, "call_seconds", peer->call.median);
    cJSON_AddNumberToObject(o, "call_seconds_min", peer->call.min);
    cJSON_AddNumberToObject(o, "call_seconds_max", peer->call.max);
    add_times(o, &peer->call);
    add_number_if(o, "speedup", peer->speedup, peer->speedup > 0);
    cJSON_AddNumberToObject(o, "flop", peer->flop);
    cJSON_AddNumberToObject(o, "gflops", peer->flop / peer->call.median * 1e-9);
    cJSON_AddNumberToObject(o, "workspace_bytes", (double)peer->workspace_bytes);
}

static void print_peer(const bench_peer_result *peer)
{
    char name[64];
    if (peer->problem.kind) {
        printf("  peer: %s\n", peer->problem.text);
        return;
    }
    snprintf(name, sizeof name, "peer: cudnn %s", peer->version);
    print_name(name);
    print_blanks(1);
    print_cell("%.3f", peer->call.median * 1e3, true);
    print_cell("%.3f", peer->call.median * 1e3, true);
    print_cell("%.2fx", peer->speedup, peer->speedup > 0);
    print_blanks(2);
    print_cell("%.1f", peer->flop / peer->call.median * 1e-9, true);
    print_blanks(2);
    print_cell("%.2fx", 1, true);
    puts(peer->call.warm ? "" : "  cold");
}

static void print_attention(const bench_attention_result *r)
{
    print_name(r->label);
    print_cell("%.3f", r->select.median * 1e3, true);
    print_cell("%.3f", r->attend.median * 1e3, true);
    print_cell("%.3f", r->call.median * 1e3, true);
    print_cell("%.2fx", r->speedup, r->speedup > 0);
    print_cell("%.3f", r->density, true);
    print_cell("%.3f", work_share(r), true);
    print_cell("%.1f", r->attend_flop / r->attend.median * 1e-9, true);
    print_cell("%.2f", extra_workspace(r) / 0x1p20, true);
    print_cell("%.2f", (double)r->select_peak_bytes / 0x1p20, r->select_peak_bytes >= 0);
    if (r->speedup_over_peer > 0)
        print_cell("%.2fx", r->speedup_over_peer, true);
    printf("%s%s\n", r->call.warm ? "" : "  cold", r->path == PRISM_PATH_DENSE_SHORT ? "  short: dense" : "");
}

void bench_report_attention(bench_state *s, const bench_attention_result *results, const bench_peer_result *peer)
{
    static const char *const heads[] = {"select ms", "attend ms", "call ms",    "speed-up",   "density",
                                        "work",      "GFLOP/s",   "+workspace", "memory MiB", "over cudnn"};
    const bool shown = !s->args->base.json, compares = peer && !peer->problem.kind;
    if (shown) {
        print_title(s, results->n_token);
        print_heads("method", heads, compares ? 10 : 9);
    }
    for (int32_t i = 0; i < s->parsed.n; i++) {
        add_attention(s, &results[i]);
        if (shown)
            print_attention(&results[i]);
    }
    if (peer)
        add_peer(s, peer, results->n_token);
    if (peer && shown)
        print_peer(peer);
    for (int32_t i = 0; shown && i < s->parsed.n; i++)
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

static void add_stage(const bench_state *s, const bench_attention_result *r, const bench_stage *stage)
{
    cJSON *row = add_row(s, r->label, r->n_token);
    cJSON_AddStringToObject(row, "stage", stage->name);
    cJSON_AddNumberToObject(row, "seconds", stage->seconds);
    cJSON_AddNumberToObject(row, "share_of_call", stage->seconds / r->call.median);
    cJSON_AddNumberToObject(row, "flop", stage->flop);
    cJSON_AddNumberToObject(row, "bytes", stage->bytes);
    cJSON_AddNumberToObject(row, "gflops", stage->flop / stage->seconds * 1e-9);
    cJSON_AddNumberToObject(row, "gbytes_s", stage->bytes / stage->seconds * 1e-9);
    cJSON_AddStringToObject(row, "bound", stage->bound_by_memory ? "memory" : "compute");
    cJSON_AddNumberToObject(row, "share_of_roofline", stage->share);
    cJSON_AddNumberToObject(row, "density", r->density);
    cJSON_AddNumberToObject(row, "call_seconds", r->call.median);
    add_times(row, &r->call);
    add_kernel(row, r);
}

void bench_report_stages(bench_state *s, const bench_attention_result *results, const bench_peaks *peaks)
{
    static const char *const heads[] = {"ms", "of the call", "GFLOP", "MB", "GFLOP/s", "GB/s", "bound", "of roofline"};
    const bool shown = !s->args->base.json;
    if (shown) {
        print_title(s, results->n_token);
        print_heads("method, stage", heads, sizeof heads / sizeof *heads);
    }
    for (int32_t i = 0; i < s->parsed.n; i++) {
        const bench_attention_result *r = &results[i];
        bench_stage stages[BENCH_N_STAGE];
        bench_stages(&s->tensors, r, &s->methods[i].options, peaks, stages);
        if (shown)
            printf("  %s, density %.3f%s\n", r->label, r->density, r->call.warm ? "" : ", cold");
        for (int k = 0; k < BENCH_N_STAGE; k++) {
            const bench_stage *g = &stages[k];
            if (g->flop <= 0) /* the method lacks it */
                continue;
            add_stage(s, r, g);
            if (!shown)
                continue;
            printf("    %-*s", name_width - 2, g->name);
            print_cell("%.3f", g->seconds * 1e3, true);
            print_cell("%.1f %%", 100 * g->seconds / r->call.median, true);
            print_cell("%.4g", g->flop * 1e-9, true);
            print_cell("%.4g", g->bytes * 1e-6, true);
            print_cell("%.3g", g->flop / g->seconds * 1e-9, true);
            print_cell("%.3g", g->bytes / g->seconds * 1e-9, true);
            printf("%*s", cell_width, g->bound_by_memory ? "memory" : "compute");
            print_cell("%.1f %%", 100 * g->share, true);
            putchar('\n');
        }
        if (shown)
            print_kernel(r);
    }
    fflush(stdout);
}

/* ------------------------------------------------------------------------------------------------ prefill ---- */

static void add_prefill(const bench_state *s, const bench_prefill_result *r)
{
    cJSON *row = add_row(s, r->label, r->n_token);
    cJSON_AddNumberToObject(row, "prefill_seconds", r->prefill.median);
    cJSON_AddNumberToObject(row, "prefill_seconds_min", r->prefill.min);
    cJSON_AddNumberToObject(row, "prefill_seconds_max", r->prefill.max);
    add_times(row, &r->prefill);
    cJSON_AddNumberToObject(row, "tokens_per_second", r->n_token / r->prefill.median);
    cJSON_AddNumberToObject(row, "select_seconds", r->select.median);
    cJSON_AddNumberToObject(row, "attend_seconds", r->attend.median);
    cJSON_AddNumberToObject(row, "linear_seconds", r->linear.median);
    add_number_if(row, "speedup", r->speedup, r->speedup > 0);
    add_number_if(row, "attention_speedup", r->attention_speedup, r->attention_speedup > 0);
    cJSON_AddNumberToObject(row, "density", r->density);
    cJSON_AddNumberToObject(row, "work_flop", r->work_flop);
    cJSON_AddNumberToObject(row, "dense_flop", r->dense_flop);
    cJSON_AddNumberToObject(row, "work", r->work_flop / r->dense_flop);
    add_number_if(row, "peak_bytes", (double)r->peak_bytes, r->peak_bytes >= 0);
}

void bench_report_prefill(bench_state *s, const bench_prefill_result *results)
{
    static const char *const heads[] = {"prefill s", "tokens/s",  "select s", "attend s", "linear s",
                                        "speed-up",  "attention", "density",  "work",     "peak MiB"};
    const bool shown = !s->args->base.json;
    if (shown) {
        print_title(s, results->n_token);
        print_heads("method", heads, sizeof heads / sizeof *heads);
    }
    for (int32_t i = 0; i < s->parsed.n; i++) {
        const bench_prefill_result *r = &results[i];
        add_prefill(s, r);
        if (!shown)
            continue;
        print_name(r->label);
        print_cell("%.3f", r->prefill.median, true);
        print_cell("%.0f", r->n_token / r->prefill.median, true);
        print_cell("%.4f", r->select.median, true);
        print_cell("%.3f", r->attend.median, true);
        print_cell("%.3f", r->linear.median, true);
        print_cell("%.2fx", r->speedup, r->speedup > 0);
        print_cell("%.2fx", r->attention_speedup, r->attention_speedup > 0);
        print_cell("%.3f", r->density, true);
        print_cell("%.3f", r->work_flop / r->dense_flop, true);
        print_cell("%.0f", (double)r->peak_bytes / 0x1p20, r->peak_bytes >= 0);
        puts(r->prefill.warm ? "" : "  cold");
    }
    fflush(stdout);
}
