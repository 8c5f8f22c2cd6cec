/* Prism (arXiv 2602.08426): pooled queries and keys score blocks twice, in a high- and in a low-frequency band. Each
 * band's strength is restored from its energy. A row keeps the blocks that hold top_p of the mass in either band. */
#include "core/work.h"
#include "methods/pooled.h"

static const char *const calibrations[] = {"global", "causal"};
static const prism_option_row calibration = {
    PRISM_NAMED_ROW(calibration, PRISM_CALIBRATION_CAUSAL, calibrations,
                    "band energies over the whole call, or over what a row can see")};
static const prism_option_row top_p_high = {
    PRISM_ROW(top_p_high, 0, 0, 1, "top_p of the high-frequency band; 0: top_p")};
static const prism_option_row top_p_low = {
    PRISM_ROW(top_p_low, 0, 0, 1, "top_p of the low-frequency band; 0: top_p")};
static const prism_option_row *const options[] = {&calibration,           &prism_option_top_p,    &top_p_high, &top_p_low,
                                                  &prism_option_keep_sink, &prism_option_keep_own, NULL};

static float high(const prism_options *o)
{
    return o->top_p_high > 0 ? o->top_p_high : o->top_p;
}

static float low(const prism_options *o)
{
    return o->top_p_low > 0 ? o->top_p_low : o->top_p;
}

/* The bands unite, so one band that keeps everything is enough. */
static bool is_full(const prism_options *o)
{
    return high(o) >= 1 || low(o) >= 1;
}

static void select_prism(const prism_plan_job *job)
{
    prism_select_pooled(job, job->options->bands, high(job->options), low(job->options));
}

static double flop_prism(const prism_problem *p, const prism_options *o, const prism_seq *q, int32_t n_pooled)
{
    const int32_t n_dim = o->bands->n_high + o->bands->n_low;
    return prism_work_pool_queries(p, q) + prism_work_pool_keys(p, q, n_pooled) + prism_work_blocks(p, q, n_dim);
}

const prism_method_impl prism_method_prism = {
    .name = "prism",
    .text = "the paper's: block means scored in two frequency bands, calibrated",
    .flop_text = "2ndH + (n/B)²(d_high + d_low)H",
    .workspace_text = "4(n/B)d per head",
    .options = options,
    .needs_bands = true,
    .needs_means = true,
    .stage = PRISM_STAGE_SELECT,
    .is_full = is_full,
    .scratch_bytes = prism_select_pooled_bytes,
    .select = select_prism,
    .flop = flop_prism,
};
