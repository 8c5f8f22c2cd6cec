/* checkkern on a GPU: the driver maps the tests' memory, so that layouts, poison and guard pages serve there too. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "checkkern.h"
#include "prism_attn/prism_cuda.h"

/* The driver's API by name: the tests build without CUDA. */
typedef int host_register(void *p, size_t bytes, unsigned flags);
typedef int host_unregister(void *p);
typedef int synchronize(void);

static host_register *map_memory;
static host_unregister *unmap_memory;
static synchronize *wait;

static void on_new(void *data, size_t bytes)
{
    enum { portable = 1, device_map = 2 };
    const int error = map_memory(data, bytes, portable | device_map);
    if (error) {
        fprintf(stderr, "the driver does not map %zu bytes: error %d\n", bytes, error);
        exit(2);
    }
}

static void on_free(void *data)
{
    unmap_memory(data);
}

static void on_wait(void)
{
    const int error = wait();
    ck_ok(error == 0, "the GPU failed: error %d", error);
}

bool ck_gpu_begin(void)
{
    prism_cuda_info info = {.struct_size = sizeof info};
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (prism_cuda_describe(0, &info) != PRISM_OK || !driver) {
        fprintf(stderr, "checkkern: %s\n", info.problem);
        return false;
    }
    *(void **)&map_memory = dlsym(driver, "cuMemHostRegister_v2");
    *(void **)&unmap_memory = dlsym(driver, "cuMemHostUnregister");
    *(void **)&wait = dlsym(driver, "cuCtxSynchronize");
    prism_ctx *ctx = ck_context(1); /* leaves the device's primary context current, which mapping needs */
    const bool ok = map_memory && unmap_memory && wait && ctx;
    prism_destroy(ctx);
    guarded_on_new = on_new;
    guarded_on_free = on_free;
    runner_wait = on_wait;
    return ok;
}

void ck_gpu_fit(shape *s, bool choosing)
{
    static const int dims[] = {64, 96, 128, 192, 256};
    if (!ck.gpu)
        return;
    s->out_dtype = s->dtype;
    s->big = 1e12; /* energies of means are float32 sums of squares there: past 1e18 they count as not finite */
    layout *const layouts[] = {&s->q_layout, &s->kv_layout, &s->o_layout};
    for (int i = 0; i < 3; i++)
        if (*layouts[i] == STRIDED)
            *layouts[i] = TOKEN_MAJOR;
    if (choosing)
        s->d = dims[s->d % 5];
}

double ck_weight_unit(int tier, const prism_ctx *ctx, prism_dtype dtype)
{
    return ck_is_gpu(tier) && strcmp(prism_cuda_attend_kernel(ctx), "any") != 0 ? value_unit(dtype) : 0;
}
