/* Options: defaults, and setting a field by its name. */
#include "core/options.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void prism_options_init(prism_options *options)
{
    if (!options)
        return;
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
    options->method = PRISM_METHOD_PRISM;
    options->calibration = PRISM_CALIBRATION_CAUSAL;
    options->block_size = 128;
    options->top_p = 0.95f;
    options->keep_sink = 1;
    options->keep_own = 1;
    options->min_tokens = -1;
    options->minference_vertical = 1000;
    options->minference_slash = 6096;
    options->flex_gamma = 0.9f;
    options->flex_tau = 0.1f;
    options->flex_min_budget = 512;
    options->xattn_stride = 8;
    options->xattn_threshold = 0.9f;
    options->flash_alpha = 0.12f;
    options->flash_sink = 2;
    options->flash_window = 4;
    options->flash_last = 2;
    options->moments_error = 0.05f;
}

/* The methods that go by an option: bits. */
enum {
    to_prism = 1 << PRISM_METHOD_PRISM,
    to_meanpool = 1 << PRISM_METHOD_MEANPOOL,
    to_minference = 1 << PRISM_METHOD_MINFERENCE,
    to_flex = 1 << PRISM_METHOD_FLEXPREFILL,
    to_xattn = 1 << PRISM_METHOD_XATTENTION,
    to_flash = 1 << PRISM_METHOD_FLASHPREFILL,
    to_moments = 1 << PRISM_METHOD_MOMENTS,
    to_masses = to_prism | to_meanpool,
    to_keepers = to_masses | to_flex | to_xattn | to_moments,
    to_all = ~0
};

/* Each option once: where it lives, what it may hold, whom it is for. */
typedef struct option_field {
    const char *name;
    enum { field_int, field_float } kind;
    size_t offset;
    double min, max;
    int methods;
} option_field;

#define INT(name, lo, hi, methods)                                                                                     \
    {                                                                                                                  \
#name, field_int, offsetof(prism_options, name), lo, hi, methods                                               \
    }
#define FLOAT(name, lo, hi, methods)                                                                                   \
    {                                                                                                                  \
#name, field_float, offsetof(prism_options, name), lo, hi, methods                                             \
    }
static const option_field fields[] = {
    INT(calibration, 0, 1, to_prism),
    INT(block_size, 64, 128, to_all),
    FLOAT(top_p, 0, 1, to_masses),
    FLOAT(top_p_high, 0, 1, to_prism),
    FLOAT(top_p_low, 0, 1, to_prism),
    INT(keep_sink, 0, 1, to_keepers),
    INT(keep_own, 0, 1, to_keepers),
    INT(min_tokens, -1, INT32_MAX, to_all),
    INT(minference_vertical, 0, INT32_MAX, to_minference),
    INT(minference_slash, 0, INT32_MAX, to_minference),
    FLOAT(minference_budget, 0, 1, to_minference),
    FLOAT(flex_gamma, 0, 1, to_flex),
    FLOAT(flex_tau, 0, 1, to_flex),
    INT(flex_min_budget, 0, INT32_MAX, to_flex),
    INT(flex_max_budget, 0, INT32_MAX, to_flex),
    INT(xattn_stride, 2, 64, to_xattn),
    FLOAT(xattn_threshold, 0, 1, to_xattn),
    FLOAT(flash_alpha, 0, 1, to_flash),
    INT(flash_sink, 0, INT32_MAX, to_flash),
    INT(flash_window, 1, INT32_MAX, to_flash),
    INT(flash_last, 0, INT32_MAX, to_flash),
    INT(correct, 0, 3, to_all),
    FLOAT(moments_error, 0, FLT_MAX, to_moments),
    INT(precision, 0, 1, to_all),
};
#undef INT
#undef FLOAT
enum { n_field = sizeof fields / sizeof fields[0] };

static double field_value(const prism_options *options, const option_field *f)
{
    const char *at = (const char *)options + f->offset;
    if (f->kind == field_float)
        return (double)*(const float *)at;
    return (double)*(const int32_t *)at; /* enums are int-sized */
}

/* A correction that a method cannot have: it stands for whole blocks. */
static bool corrects_lines(const prism_options *options)
{
    return options->method == PRISM_METHOD_MINFERENCE && options->correct > PRISM_CORRECTION_NONE;
}

static const char *field_problem(const option_field *f, double value)
{
    if (!(value >= f->min && value <= f->max))
        return f->name;
    if ((!strcmp(f->name, "top_p") || !strcmp(f->name, "xattn_threshold")) && value <= 0)
        return f->name;
    if (!strcmp(f->name, "xattn_stride") && ((int32_t)value & ((int32_t)value - 1)))
        return f->name;
    if (!strcmp(f->name, "block_size") && value != 64 && value != 128)
        return f->name;
    return NULL;
}

const char *prism_options_problem(const prism_options *options)
{
    for (int i = 0; i < n_field; i++) {
        const char *problem = field_problem(&fields[i], field_value(options, &fields[i]));
        if (problem)
            return problem;
    }
    if (corrects_lines(options))
        return "correct";
    return prism_method_name(options->method) ? NULL : "method";
}

int32_t prism_method_uses(prism_method method, const char *name)
{
    for (int i = 0; name && prism_method_name(method) && i < n_field; i++)
        if (!strcmp(name, fields[i].name))
            return fields[i].methods >> method & 1;
    return 0;
}

/* Options whose values have names: a name's place is its value. */
typedef struct named_option {
    const char *name;
    size_t offset;
    const char *value[4];
} named_option;

static const named_option named[] = {
    {"calibration", offsetof(prism_options, calibration), {"global", "causal"}},
    {"correct", offsetof(prism_options, correct), {"default", "none", "mean", "moments"}},
    {"precision", offsetof(prism_options, precision), {"default", "fp8"}},
};

static prism_status set_named(prism_options *options, const named_option *n, const char *value)
{
    for (int32_t i = 0; i < 4 && n->value[i]; i++)
        if (!strcmp(value, n->value[i])) {
            *(int32_t *)((char *)options + n->offset) = i; /* enums are int-sized */
            return PRISM_OK;
        }
    return PRISM_ERROR_INVALID;
}

prism_status prism_options_set(prism_options *options, const char *name, const char *value)
{
    if (!options || !name || !value)
        return PRISM_ERROR_INVALID;
    if (!strcmp(name, "method"))
        return prism_method_find(value, &options->method);
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        if (!strcmp(name, named[i].name))
            return set_named(options, &named[i], value);
    for (int i = 0; i < n_field; i++) {
        const option_field *f = &fields[i];
        if (strcmp(name, f->name))
            continue;
        char *end;
        double number = strtod(value, &end);
        if (f->kind == field_float)
            number = (double)(float)number; /* what will be stored: 1e-60 is 0 */
        if (end == value || *end || field_problem(f, number))
            return PRISM_ERROR_INVALID;
        char *at = (char *)options + f->offset;
        if (f->kind == field_float)
            *(float *)at = (float)number;
        else if (number == floor(number))
            *(int32_t *)at = (int32_t)number;
        else
            return PRISM_ERROR_INVALID;
        return PRISM_OK;
    }
    return PRISM_ERROR_INVALID;
}
