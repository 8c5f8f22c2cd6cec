/* The plug-in that holds the CUDA backend, and the functions of prism_cuda.h. */
#define _GNU_SOURCE /* dladdr */
#include "api/cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/request.h"

#define PLUGIN "libprismattn_cuda.so"

static struct {
    pthread_once_t once;
    const prism_backend *backend;
    char problem[256];
} plugin = {.once = PTHREAD_ONCE_INIT};

/* Opens the plug-in: beside the file of this code (library or program), in ../lib from there, or where the loader
 * looks. */
static void *open_plugin(void)
{
    static const char *const places[] = {"", "../lib/"};
    Dl_info self;
    char path[4096];
    const char *slash = dladdr((void *)open_plugin, &self) && self.dli_fname ? strrchr(self.dli_fname, '/') : NULL;
    for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
        const int n = (int)(slash + 1 - self.dli_fname);
        if (snprintf(path, sizeof path, "%.*s%s" PLUGIN, n, self.dli_fname, places[i]) < (int)sizeof path &&
            access(path, F_OK) == 0)
            return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    return dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
}

static void load(void)
{
    void *library = open_plugin();
    prism_cuda_plugin_entry *entry = NULL;
    if (library)
        *(void **)&entry = dlsym(library, PRISM_CUDA_PLUGIN_ENTRY);
    if (!library) {
        snprintf(plugin.problem, sizeof plugin.problem, "the CUDA backend cannot be loaded: %s", dlerror());
    } else if (!entry || !(plugin.backend = entry(PRISM_CUDA_PLUGIN_VERSION))) {
        snprintf(plugin.problem, sizeof plugin.problem, PLUGIN " is of another version of this library");
        dlclose(library);
    }
}

const prism_backend *prism_cuda_plugin(const char **problem)
{
    pthread_once(&plugin.once, load);
    if (problem)
        *problem = plugin.problem;
    return plugin.backend;
}

prism_status prism_cuda_describe(int32_t device, prism_cuda_info *info)
{
    if (!info || info->struct_size < sizeof *info || device < 0)
        return PRISM_ERROR_INVALID;
    *info = (prism_cuda_info){.struct_size = info->struct_size};
    const char *problem;
    const prism_backend *backend = prism_cuda_plugin(&problem);
    if (backend)
        return backend->cuda->describe(device, info);
    snprintf(info->problem, sizeof info->problem, "%s", problem);
    return PRISM_ERROR_DEVICE;
}

prism_status prism_cuda_set_stream(prism_ctx *ctx, void *stream)
{
    if (!ctx || !ctx->backend->cuda)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "not a CUDA context");
    ctx->backend->cuda->set_stream(ctx, stream);
    return PRISM_OK;
}

const char *prism_cuda_attend_kernel(const prism_ctx *ctx)
{
    return ctx && ctx->backend->cuda ? ctx->backend->cuda->attend_name(ctx) : "";
}

prism_status prism_cuda_plan_counts(prism_ctx *ctx, const prism_plan *plan, int64_t *counts)
{
    if (!ctx || !ctx->backend->cuda || !plan || plan->backend != ctx->backend || !counts)
        return prism_fail(ctx, PRISM_ERROR_INVALID, "not a CUDA context and a plan of it, or counts is NULL");
    ctx->backend->cuda->plan_counts(ctx, plan, counts);
    return ctx->backend->status(ctx);
}
