/* The peaks of the machine that a context computes on. */
#include "bench_device.h"
#include "peak_loops.h"

enum { buffer_bytes = 64 << 20 }; /* of each thread: more than its share of any usual cache */

/* The library knows what the machine runs. */
static bool runs(prism_isa isa)
{
    prism_config config;
    prism_config_init(&config);
    config.n_thread = 1;
    config.isa = isa;
    prism_ctx *ctx;
    const bool ok = !prism_create(&config, &ctx);
    prism_destroy(ctx);
    return ok;
}

static double measure(prism_isa isa, bench_peak_kind kind, double seconds, int32_t n_thread, bench_peaks *out)
{
    static const char *const texts[] = {[BENCH_PEAK_FMA] = "f32 multiply-add", [BENCH_PEAK_DOT] = "bf16 dot product"};
    const double flops = bench_peak_flops(isa, kind, seconds, n_thread);
    if (flops > 0) {
        out->tiers[out->n_tier].name = prism_isa_name(isa);
        out->tiers[out->n_tier].what = texts[kind];
        out->tiers[out->n_tier++].flops = flops;
    }
    return flops;
}

bool bench_measure_peaks(prism_ctx *ctx, prism_dtype dtype, double seconds, bench_peaks *out, lm_error *err)
{
    prism_info info = {.struct_size = sizeof info};
    *out = (bench_peaks){0};
    if (prism_get_info(ctx, &info))
        return lm_fail(err, LM_ERROR_USAGE, "the context of libprismattn cannot be used");
    if (info.device != PRISM_DEVICE_CPU)
        return bench_device_peaks(ctx, dtype, out, err);
    for (int i = PRISM_ISA_C; i < PRISM_N_ISA; i++) {
        const prism_isa isa = (prism_isa)i;
        if (!runs(isa))
            continue;
        const double fma = measure(isa, BENCH_PEAK_FMA, seconds, info.n_thread, out);
        const double dot = measure(isa, BENCH_PEAK_DOT, seconds, info.n_thread, out);
        if (fma > 0 && isa <= info.isa) /* the last one: the nearest to the tier in use */
            out->fma_flops = fma;
        if (isa == info.isa)
            out->dot_flops = dot;
    }
    out->read_bytes_s = bench_peak_traffic(buffer_bytes, BENCH_PEAK_READ, seconds, info.n_thread);
    out->copy_bytes_s = bench_peak_traffic(buffer_bytes, BENCH_PEAK_COPY, seconds, info.n_thread);
    return (out->read_bytes_s > 0 && out->copy_bytes_s > 0) ||
           lm_fail(err, LM_ERROR_MEMORY, "no memory for two buffers of %d MiB for each thread", buffer_bytes >> 20);
}
