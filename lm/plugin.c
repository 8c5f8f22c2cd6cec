/* Which backend a context wants; finds and loads the GPU's part, libprismlm_cuda.so: beside the program, where it is
 * installed, or by the loader. */
#include "backend.h"
#include "linear.h"

#include <prism_attn/prism_cuda.h>

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "libprismlm_cuda.so";

/* "DIR/" of the program; "" if unknown. */
static void program_directory(char *out, size_t n)
{
    const ssize_t length = readlink("/proc/self/exe", out, n - 1);
    out[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(out, '/');
    out[slash ? slash - out + 1 : 0] = '\0';
}

static void *open_plugin(char *why, size_t n)
{
    static const char *const places[] = {"", LM_PLUGIN_DIR "/"};
    char directory[3072], path[4096];
    program_directory(directory, sizeof directory);
    for (size_t i = 0; directory[0] && i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s%s%s", directory, places[i], name);
        if (access(path, R_OK) != 0)
            continue;
        void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!plugin)
            snprintf(why, n, "%s", dlerror());
        return plugin;
    }
    void *plugin = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!plugin)
        snprintf(why, n, "%s is neither beside the program nor installed; build it with -DPRISM_CUDA=ON", name);
    return plugin;
}

static const lm_cuda_plugin *load(lm_error *err)
{
    char why[400] = "";
    void *library = open_plugin(why, sizeof why); /* stays: closing would take its CUDA context with it */
    if (!library)
        return lm_error_set(err, LM_ERROR_RUN, "the runner's part for GPUs cannot be loaded: %s", why), NULL;
    lm_cuda_plugin_entry *entry;
    void *const found = dlsym(library, LM_CUDA_PLUGIN_ENTRY);
    memcpy(&entry, &found, sizeof entry); /* ISO C has no cast from objects to functions */
    const lm_cuda_plugin *plugin = entry ? entry(LM_CUDA_PLUGIN_VERSION) : NULL;
    if (!plugin)
        lm_error_set(err, LM_ERROR_RUN, "%s is of another version of this program", name);
    return plugin;
}

bool lm_backend_cuda(const lm_backend_spec *spec, lm_backend **out, lm_error *err)
{
    const lm_cuda_plugin *plugin = load(err);
    return plugin && plugin->create(spec, out, err);
}

bool lm_session_types(const prism_ctx *ctx, const lm_session_options *options, lm_types *out, lm_error *err)
{
    prism_info info = {.struct_size = sizeof info};
    if (prism_get_info(ctx, &info) != PRISM_OK)
        return lm_fail(err, LM_ERROR_USAGE, "the context of libprismattn cannot be used");
    const bool any = options->kv_type == LM_KV_AUTO;
    const prism_dtype kv = any ? PRISM_F16 : options->kv_type;
    if (info.device != PRISM_DEVICE_CPU) {
        *out = (lm_types){kv, kv, kv};
        return true;
    }
    const bool product = lm_linear_rounds(options->product), fast = product && info.fast_type == PRISM_BF16;
    *out = (lm_types){.kv = any && fast ? PRISM_BF16 : kv, .product = product ? PRISM_BF16 : PRISM_F32};
    out->attention = fast && out->kv == PRISM_BF16 ? PRISM_BF16 : PRISM_F32;
    return true;
}

bool lm_backend_create(const lm_backend_spec *spec, prism_ctx *ctx, lm_backend **out, lm_error *err)
{
    prism_info info = {.struct_size = sizeof info};
    const lm_session_options asked = {.kv_type = spec->kv_type, .product = spec->product};
    lm_backend_spec full = *spec;
    lm_types types;
    if (!lm_session_types(ctx, &asked, &types, err))
        return false;
    prism_get_info(ctx, &info);
    full.kv_type = types.kv;
    full.attention = types.attention;
    full.n_thread = info.n_thread > 0 ? info.n_thread : 1;
    full.ordinal = info.ordinal;
    const bool cpu = info.device == PRISM_DEVICE_CPU;
    if (!(cpu ? lm_backend_cpu : lm_backend_cuda)(&full, out, err))
        return false;
    (*out)->min_tokens = info.min_tokens;
    (*out)->kv_type = full.kv_type;
    if (!cpu)
        prism_cuda_set_stream(ctx, (*out)->stream);
    return true;
}

bool lm_cuda_probe(char *text, size_t n, lm_error *err)
{
    const lm_cuda_plugin *plugin = load(err);
    return plugin && plugin->probe(text, n, err);
}
