/* The stages of a call against what the machine's peaks allow. */
#include "bench.h"

static bench_stage against_roof(const char *name, double seconds, double flop, double bytes, double peak_flops,
                                const bench_peaks *peaks)
{
    const double compute = flop / peak_flops, memory = bytes / peaks->read_bytes_s;
    return (bench_stage){.name = name,
                         .seconds = seconds,
                         .flop = flop,
                         .bytes = bytes,
                         .bound_by_memory = memory > compute,
                         .share = seconds > 0 ? (memory > compute ? memory : compute) / seconds : 0};
}

void bench_stages(const bench_tensors *t, const bench_attention_result *r, const prism_options *options,
                  const bench_peaks *peaks, bench_stage stages[BENCH_N_STAGE])
{
    const double n = r->n_token, d = t->d_head, element = (double)prism_dtype_bytes(t->dtype);
    const double n_block = (r->n_token + options->block_size - 1) / options->block_size;
    const double every_head = t->n_head + t->n_kv_head;
    /* pool: one addition for an element of Q and K; reads them, writes means in float32. One method pools K alone. */
    const bool selects = r->select_flop > 0, pools = selects && r->pool.median > 0;
    const double pooled_heads = !pools ? 0 : options->method == PRISM_METHOD_FLASHPREFILL ? t->n_kv_head : every_head;
    const double pool_flop = n * pooled_heads * d, means = 4 * n_block * pooled_heads * d;
    /* select: reads the means, and what of Q and K was not pooled; writes the list */
    const double unpooled = n * (every_head - pooled_heads) * d * element;
    const double select_bytes = selects ? means + unpooled + 4.0 * (double)r->n_listed : 0;
    stages[BENCH_POOL] =
        against_roof("pool", r->pool.median, pool_flop, pool_flop * element + means, peaks->fma_flops, peaks);
    stages[BENCH_SELECT] =
        against_roof("score+select", r->select.median - r->pool.median, selects ? r->select_flop - pool_flop : 0,
                     select_bytes, peaks->fma_flops, peaks);
    /* attend, a correction included: Q, K and V read, O written; in dot products of bfloat16 where the tier has them
     * for such tensors */
    const double products = t->dtype == PRISM_BF16 && peaks->dot_flops > 0 ? peaks->dot_flops : peaks->fma_flops;
    stages[BENCH_ATTEND] = against_roof("attend", r->attend.median, r->attend_flop + r->correct_flop,
                                        2 * n * every_head * d * element, products, peaks);
}
