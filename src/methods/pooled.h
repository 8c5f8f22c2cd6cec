/* What methods prism and meanpool share: scores of pooled queries and keys. */
#ifndef PRISM_METHODS_POOLED_H
#define PRISM_METHODS_POOLED_H

#include "methods/method.h"

size_t prism_select_pooled_bytes(const prism_plan_job *job);
/* Pools, scores, keeps the mass top_p in each band, and unites the bands. bands NULL: one band of all dimensions. */
void prism_select_pooled(const prism_plan_job *job, const prism_bands *bands, float top_p_high, float top_p_low);

#endif
