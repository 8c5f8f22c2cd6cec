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

#endif
