/* prism info */
#include "cli.h"

#if defined(__clang__)
#define COMPILER __VERSION__ /* names itself */
#else
#define COMPILER "gcc " __VERSION__
#endif

static const char help[] = "usage: prism info [--json]\n\n"
                           "This machine as the library sees it: kernel tiers, the one in use (PRISM_ISA=c, avx2,\n"
                           "avx512, avx512bf16, amx, neon or neonbf16 in the environment caps it), threads, devices,\n"
                           "and how prism was built.\n";

static int print_info(const prism_info *info)
{
    printf("prism %s\n", prism_version());
    printf("  build         %s, %s\n", COMPILER, sizeof(void *) == 8 ? "64 bit" : "32 bit");
    printf("  kernel tiers  c %s\n", info->cpu_features);
    printf("  kernels       %s\n", info->isa_name);
    printf("  threads       %d\n", info->n_thread);
    printf("  devices       cpu\n");
    printf("  methods      ");
    for (int32_t m = 0; m < prism_method_count(); m++)
        printf(" %s", prism_method_name((prism_method)m));
    putchar('\n');
    return EXIT_DONE;
}

static int print_info_json(const prism_info *info)
{
    cJSON *o = cJSON_CreateObject(), *methods = cJSON_AddArrayToObject(o, "methods");
    cJSON *devices = cJSON_AddArrayToObject(o, "devices");
    cJSON_AddStringToObject(o, "version", prism_version());
    cJSON_AddStringToObject(o, "build", COMPILER);
    cJSON_AddStringToObject(o, "cpu_features", info->cpu_features);
    cJSON_AddStringToObject(o, "kernels", info->isa_name);
    cJSON_AddNumberToObject(o, "threads", info->n_thread);
    cJSON_AddItemToArray(devices, cJSON_CreateString("cpu"));
    for (int32_t m = 0; m < prism_method_count(); m++)
        cJSON_AddItemToArray(methods, cJSON_CreateString(prism_method_name((prism_method)m)));
    return cli_print_json(o);
}

int cli_info(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, OPT_JSON}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    bool json = false;
    opterr = 0;
    for (int o; (o = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
        if (o == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (o != OPT_JSON)
            return cli_bad_option(argv, "info");
        json = true;
    }
    if (optind < argc)
        return cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    prism_ctx *ctx;
    const prism_status status = prism_create(NULL, &ctx);
    if (status)
        return cli_fail(EXIT_RUN, "cannot start the library: %s", prism_status_name(status));
    prism_info info = {.struct_size = sizeof info};
    prism_get_info(ctx, &info);
    const int code = json ? print_info_json(&info) : print_info(&info);
    prism_destroy(ctx);
    return code;
}
