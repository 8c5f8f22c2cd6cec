/* prism info */
#include <string.h>

#include "cli.h"

#include <prism_attn/prism_cuda.h>

#if defined(__clang__)
#define COMPILER __VERSION__ /* names itself */
#else
#define COMPILER "gcc " __VERSION__
#endif

/* The first GPU, what runs on it, and why not. */
typedef struct gpu {
    prism_cuda_info info;
    bool usable, runs_models;
    char runner[128]; /* "cuBLAS 13.1.0" */
    lm_error runner_error;
} gpu;

static gpu look_for_gpu(void)
{
    gpu g = {.info = {.struct_size = sizeof g.info}};
    g.usable = prism_cuda_describe(0, &g.info) == PRISM_OK;
    g.runs_models = g.usable && lm_cuda_probe(g.runner, sizeof g.runner, &g.runner_error);
    return g;
}

static void print_gpu(const gpu *g)
{
    const prism_cuda_info *i = &g->info;
    if (!g->usable) {
        printf("  GPU           none; %s\n", i->problem);
        return;
    }
    printf("  GPU           %s, sm_%d%d, %d multiprocessors, %.0f GiB", i->name, i->compute_major, i->compute_minor,
           i->n_multiprocessor, (double)i->memory_bytes / 0x1p30);
    printf(i->n_device > 1 ? ", the first of %d\n" : "\n", i->n_device);
    printf("  CUDA          driver %d.%d, runtime %d.%d\n", i->driver_version / 1000, i->driver_version % 1000 / 10,
           i->runtime_version / 1000, i->runtime_version % 1000 / 10);
    printf("  models on it  %s%s\n",
           g->runs_models ? "yes, with " : "no: ", g->runs_models ? g->runner : g->runner_error.text);
}

static cJSON *gpu_to_json(const gpu *g)
{
    const prism_cuda_info *i = &g->info;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddBoolToObject(o, "usable", g->usable);
    if (!g->usable) {
        cJSON_AddStringToObject(o, "problem", i->problem);
        return o;
    }
    cJSON_AddStringToObject(o, "name", i->name);
    cJSON_AddNumberToObject(o, "count", i->n_device);
    cJSON_AddNumberToObject(o, "compute_capability", i->compute_major + i->compute_minor * 0.1);
    cJSON_AddNumberToObject(o, "multiprocessors", i->n_multiprocessor);
    cJSON_AddNumberToObject(o, "memory_bytes", (double)i->memory_bytes);
    cJSON_AddNumberToObject(o, "driver_version", i->driver_version);
    cJSON_AddNumberToObject(o, "runtime_version", i->runtime_version);
    cJSON_AddBoolToObject(o, "runs_models", g->runs_models);
    cJSON_AddStringToObject(o, "runner", g->runs_models ? g->runner : g->runner_error.text);
    return o;
}

/* Writes "bf16, attention in bf16" into text: what a model gets here unasked. */
static const char *kv_text(const prism_ctx *ctx, char *text, size_t n)
{
    lm_session_options so;
    lm_types types = {0};
    lm_session_options_init(&so);
    lm_session_types(ctx, &so, &types, NULL);
    snprintf(text, n, "%s, attention in %s", cli_dtype_name(types.kv), cli_dtype_name(types.attention));
    return text;
}

static int print_info(const prism_ctx *ctx, const prism_info *info)
{
    const gpu g = look_for_gpu();
    printf("prism %s\n", prism_version());
    printf("  build         %s, %s\n", COMPILER, sizeof(void *) == 8 ? "64 bit" : "32 bit");
    printf("  kernel tiers  c %s\n", info->cpu_features);
    printf("  kernels       %s\n", info->isa_name);
    char products[64];
    printf("  threads       %d\n", info->n_thread);
    printf("  products      %s\n", lm_products_text(products, sizeof products));
    printf("  KV cache      %s\n", kv_text(ctx, products, sizeof products));
    printf("  devices       cpu%s\n", g.usable ? " cuda" : "");
    print_gpu(&g);
    printf("  methods      ");
    for (int32_t m = 0; m < prism_method_count(); m++)
        printf(" %s", prism_method_name((prism_method)m));
    putchar('\n');
    return EXIT_DONE;
}

static int print_info_json(const prism_ctx *ctx, const prism_info *info)
{
    const gpu g = look_for_gpu();
    cJSON *o = cJSON_CreateObject(), *methods = cJSON_AddArrayToObject(o, "methods");
    cJSON *devices = cJSON_AddArrayToObject(o, "devices");
    cJSON_AddStringToObject(o, "version", prism_version());
    cJSON_AddStringToObject(o, "build", COMPILER);
    cJSON_AddStringToObject(o, "cpu_features", info->cpu_features);
    cJSON_AddStringToObject(o, "kernels", info->isa_name);
    char products[64];
    cJSON_AddNumberToObject(o, "threads", info->n_thread);
    cJSON_AddStringToObject(o, "products", lm_products_text(products, sizeof products));
    cJSON_AddStringToObject(o, "kv_cache", kv_text(ctx, products, sizeof products));
    cJSON_AddItemToArray(devices, cJSON_CreateString("cpu"));
    if (g.usable)
        cJSON_AddItemToArray(devices, cJSON_CreateString("cuda"));
    cJSON_AddItemToObject(o, "gpu", gpu_to_json(&g));
    for (int32_t m = 0; m < prism_method_count(); m++)
        cJSON_AddItemToArray(methods, cJSON_CreateString(prism_method_name((prism_method)m)));
    return cli_print_json(o);
}

int cli_info(int argc, char **argv)
{
    static const cli_option rows[] = {{"json", NULL, "one JSON object on stdout, for machines", CLI_FLAG, .offset = 0}};
    char tiers[256] = "\ntiers of this build:";
    for (int isa = PRISM_ISA_C; isa < PRISM_N_ISA; isa++) {
        const char *name = prism_isa_name((prism_isa)isa);
        snprintf(tiers + strlen(tiers), sizeof tiers - strlen(tiers), name ? " %s" : "", name);
    }
    const cli_command command = {
        .name = "info",
        .intro = "usage: prism info [--json]\n\n"
                 "This machine as the library sees it: kernel tiers, the one in use (PRISM_ISA=TIER in the\n"
                 "environment caps it), threads, whether a GPU can be used or why not, and how prism was built.\n\n",
        .end = strcat(tiers, "\n"),
        .own = rows,
        .n_own = 1,
    };
    bool json = false, helped = false;
    const int parsed = cli_parse(&command, argc, argv, &json, NULL, &helped);
    if (parsed || helped)
        return parsed;
    prism_ctx *ctx;
    const prism_status status = prism_create(NULL, &ctx);
    if (status)
        return cli_fail(EXIT_RUN, "cannot start the library: %s", prism_status_name(status));
    prism_info info = {.struct_size = sizeof info};
    prism_get_info(ctx, &info);
    const int code = json ? print_info_json(ctx, &info) : print_info(ctx, &info);
    prism_destroy(ctx);
    return code;
}
