#ifndef PRISM_CORE_OPTIONS_H
#define PRISM_CORE_OPTIONS_H

#include "prism_attn/prism.h"

/* Name of the first field whose value is out of range; NULL if all are fine. */
const char *prism_options_problem(const prism_options *options);

/* A band's threshold. */
static inline float prism_options_top_p(const prism_options *options, float of_band)
{
    return of_band > 0 ? of_band : options->top_p;
}

/* What pruned blocks contribute, the default resolved. */
static inline prism_correction prism_options_correction(const prism_options *options)
{
    if (options->correct != PRISM_CORRECTION_DEFAULT)
        return options->correct;
    return options->method == PRISM_METHOD_MOMENTS ? PRISM_CORRECTION_MOMENTS : PRISM_CORRECTION_NONE;
}

#endif
