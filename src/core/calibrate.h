/* Calibration: the factor that turns a band's dot product of means into a logit of full strength (paper, section 3.3,
 * eq. 8-10). */
#ifndef PRISM_CORE_CALIBRATE_H
#define PRISM_CORE_CALIBRATE_H

#include <math.h>
#include <stdint.h>

/* Sums of squares of pooled vectors: over all dimensions, and over the dimensions of each band. */
typedef struct prism_energy {
    double full, high, low;
} prism_energy;

static inline void prism_energy_add(prism_energy *sum, prism_energy e)
{
    sum->full += e.full;
    sum->high += e.high;
    sum->low += e.low;
}

/*
 * logit_z = dot_z / (sqrt(d_z) tau_z),  tau_z = sqrt(d_z / d) (rq_z / rq) (rk_z / rk),  r = root of the mean square.
 * With a softmax scale s instead of 1 / sqrt(d) this is logit_z = dot_z * s * d rq rk / (d_z rq_z rk_z). The means over
 * blocks cancel: only ratios of energies remain. A band without energy has dot 0 everywhere; its factor is 0, and its
 * row is uniform.
 */
static inline float prism_calibration_factor(double scale, int32_t d, int32_t d_z, double q_full, double q_z,
                                             double k_full, double k_z)
{
    const double ratio = sqrt((q_full / d) * d_z) * sqrt((k_full / d) * d_z) / (sqrt(q_z) * sqrt(k_z));
    const double factor = scale * d / d_z * ratio;
    return isfinite(factor) && factor < 1e30 ? (float)factor : 0.0f;
}

#endif
