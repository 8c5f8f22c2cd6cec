/* calibrate: energies of pooled queries and keys -> the factor of every row and band. */
#include <math.h>

#include "cpu/cpu.h"

static prism_energy block_energy(const float *mean, int32_t d, const prism_bands *bands)
{
    prism_energy e = {0, 0, 0};
    for (int32_t j = 0; j < d; j++)
        e.full += (double)mean[j] * mean[j];
    if (!isfinite(e.full))
        return (prism_energy){0, 0, 0}; /* always selected; must not disturb the others */
    for (int32_t j = 0; j < bands->n_high; j++)
        e.high += (double)mean[bands->high[j]] * mean[bands->high[j]];
    for (int32_t j = 0; j < bands->n_low; j++)
        e.low += (double)mean[bands->low[j]] * mean[bands->low[j]];
    return e;
}

static void set_factors(float *factor, const prism_problem *p, const prism_bands *b, prism_energy q, prism_energy k)
{
    const int32_t d = p->call->d_head;
    if (b->n_high)
        factor[0] = prism_calibration_factor(p->scale, d, b->n_high, q.full, q.high, k.full, k.high);
    if (b->n_low)
        factor[1] = prism_calibration_factor(p->scale, d, b->n_low, q.full, q.low, k.full, k.low);
}

static void calibrate_head(const prism_select_job *job, int32_t s, int32_t h, const prism_energy *k_upto,
                           float *factors)
{
    const float *q_mean = job->q_mean;
    const prism_problem *p = job->problem;
    const prism_seq q = prism_problem_seq(p, s);
    const int64_t row = prism_problem_row(p, s, h, 0);
    const int32_t d = p->call->d_head;
    prism_energy all = {0, 0, 0};
    for (int32_t i = 0; i < q.n_qblk; i++)
        prism_energy_add(&all, block_energy(q_mean + (row + i) * d, d, job->bands));
    for (int32_t i = 0; i < q.n_qblk; i++) {
        float *factor = factors + (row + i) * PRISM_MAX_BAND;
        if (job->calibration == PRISM_CALIBRATION_GLOBAL)
            set_factors(factor, p, job->bands, all, k_upto[q.n_kblk - 1]);
        else
            set_factors(factor, p, job->bands, block_energy(q_mean + (row + i) * d, d, job->bands),
                        k_upto[q.first_qblk + i]);
    }
}

void prism_calibrate_cpu(const prism_select_job *job, float *factor, prism_energy *k_upto)
{
    const prism_problem *p = job->problem;
    const prism_call *c = p->call;
    for (int32_t s = 0; s < c->n_seq; s++)
        for (int32_t h_kv = 0; h_kv < c->n_kv_head; h_kv++) {
            const float *k = (const float *)job->k_mean + ((int64_t)s * c->n_kv_head + h_kv) * p->n_kblk * c->d_head;
            prism_energy sum = {0, 0, 0};
            for (int32_t v = 0; v < prism_problem_seq(p, s).n_kblk; v++) { /* k_upto[v]: energy of blocks 0 .. v */
                prism_energy_add(&sum, block_energy(k + (int64_t)v * c->d_head, c->d_head, job->bands));
                k_upto[v] = sum;
            }
            for (int32_t g = 0; g < p->group; g++)
                calibrate_head(job, s, h_kv * p->group + g, k_upto, factor);
        }
}
