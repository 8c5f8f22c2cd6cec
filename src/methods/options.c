/* Options by rows. The common rows stand here; a method's own rows stand beside its functions. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "methods/method.h"

const prism_option_row prism_option_top_p = {
    PRISM_ROW(top_p, 0.95, FLT_TRUE_MIN, 1, "mass that a row's blocks must hold; 1 is dense")};
const prism_option_row prism_option_keep_sink = {PRISM_ROW(keep_sink, 1, 0, 1, "1: every row keeps block 0")};
const prism_option_row prism_option_keep_own = {
    PRISM_ROW(keep_own, 1, 0, 1, "1: every row keeps the block of its own positions")};

static const char *const corrections[] = {"default", "none", "mean", "moments"};
static const char *const precisions[] = {"default", "fp8"};

static const prism_option_row common[] = {
    {PRISM_ROW(block_size, 128, 64, 128, "tokens in a block: 64 or 128"), .power_of_two = true},
    {PRISM_ROW(min_tokens, -1, -1, INT32_MAX,
               "sequences with fewer keys take the dense plan; -1: the measured default")},
    {PRISM_NAMED_ROW(correct, PRISM_CORRECTION_DEFAULT, corrections, "what pruned blocks contribute")},
    {PRISM_NAMED_ROW(precision, PRISM_PRECISION_DEFAULT, precisions,
                     "products of attention: default, or fp8 on an H100 or H200")},
};
enum { n_common = sizeof common / sizeof common[0] };

/* -------------------------------------------------------------------------------------- walks over rows ---- */

/* Whether a method before this one also has the row. */
static bool is_repeated(const prism_option_row *row, prism_method method)
{
    for (int32_t m = 0; m < (int32_t)method; m++)
        for (const prism_option_row *const *r = prism_method_get((prism_method)m)->options; r && *r; r++)
            if (*r == row)
                return true;
    return false;
}

/* Returns row i of all rows, each once: the common rows, then the methods' in their order. NULL past the last. */
static const prism_option_row *row_at(int32_t i)
{
    if (i < 0 || i < n_common)
        return i < 0 ? NULL : &common[i];
    i -= n_common;
    for (int32_t m = 0; m < prism_method_count(); m++)
        for (const prism_option_row *const *r = prism_method_get((prism_method)m)->options; r && *r; r++)
            if (!is_repeated(*r, (prism_method)m) && i-- == 0)
                return *r;
    return NULL;
}

static const prism_option_row *find(const char *name)
{
    const prism_option_row *row;
    for (int32_t i = 0; (row = row_at(i)); i++)
        if (!strcmp(row->name, name))
            return row;
    return NULL;
}

static void store(prism_options *options, const prism_option_row *row, double value)
{
    char *at = (char *)options + row->offset;
    if (row->kind == PRISM_OPTION_FLOAT)
        *(float *)at = (float)value;
    else
        *(int32_t *)at = (int32_t)value; /* enums are int-sized */
}

static double load(const prism_options *options, const prism_option_row *row)
{
    const char *at = (const char *)options + row->offset;
    return row->kind == PRISM_OPTION_FLOAT ? (double)*(const float *)at : (double)*(const int32_t *)at;
}

static bool fits(const prism_option_row *row, double value)
{
    return value >= row->min && value <= row->max &&
           !(row->power_of_two && ((int32_t)value & ((int32_t)value - 1)));
}

/* ------------------------------------------------------------------------------------ the public header ---- */

void prism_options_init(prism_options *options)
{
    if (!options)
        return;
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
    options->method = PRISM_METHOD_PRISM;
    const prism_option_row *row;
    for (int32_t i = 0; (row = row_at(i)); i++)
        store(options, row, row->value);
}

prism_status prism_option_at(int32_t i, prism_option_info *info)
{
    const prism_option_row *row = row_at(i);
    if (!row || !info || info->struct_size < sizeof *info)
        return PRISM_ERROR_INVALID;
    *info = (prism_option_info){.struct_size = info->struct_size,
                                .name = row->name,
                                .text = row->text,
                                .kind = row->kind,
                                .value = row->value,
                                .min = row->min,
                                .max = row->max,
                                .names = row->names,
                                .n_name = row->names ? (int32_t)row->max + 1 : 0};
    return PRISM_OK;
}

int32_t prism_method_uses(prism_method method, const char *name)
{
    const prism_method_impl *m = prism_method_get(method);
    if (m && name && !strcmp(name, "bands"))
        return m->needs_bands;
    const prism_option_row *row = m && name ? find(name) : NULL;
    if (!row)
        return 0;
    if (row >= common && row < common + n_common)
        return 1;
    for (const prism_option_row *const *r = m->options; r && *r; r++)
        if (*r == row)
            return 1;
    return 0;
}

/* Returns the place of text among the row's names, or its number; NaN: neither. */
static double parse(const prism_option_row *row, const char *text)
{
    if (row->kind == PRISM_OPTION_NAME) {
        for (int32_t i = 0; i <= (int32_t)row->max; i++)
            if (!strcmp(text, row->names[i]))
                return i;
        return NAN;
    }
    /* No space, + or 0x, which strtod() takes. */
    const bool is_int = row->kind == PRISM_OPTION_INT;
    const char *digits = text + (*text == '-');
    const size_t n = strspn(digits, is_int ? "0123456789" : "0123456789.eE+-");
    const bool thousands = is_int && n && (digits[n] == 'K' || digits[n] == 'k');
    char *end;
    const double number = strtod(text, &end);
    if (!n || digits[n + thousands] || digits[0] == '+' || end != digits + n)
        return NAN;
    return is_int ? number * (thousands ? 1024 : 1) : (double)(float)number; /* what will be stored: 1e-60 is 0 */
}

prism_status prism_options_set(prism_options *options, const char *name, const char *value)
{
    if (!options || !name || !value)
        return PRISM_ERROR_INVALID;
    if (!strcmp(name, "method"))
        return prism_method_find(value, &options->method);
    const prism_option_row *row = find(name);
    const double number = row ? parse(row, value) : NAN;
    if (!row || !fits(row, number)) /* NaN fits nowhere */
        return PRISM_ERROR_INVALID;
    store(options, row, number);
    return PRISM_OK;
}

/* ------------------------------------------------------------------------------- what options come to ---- */

static void put_limit(char *text, size_t n, double x)
{
    if (x == FLT_TRUE_MIN)
        snprintf(text, n, "above 0");
    else if (x == INT32_MAX || x == FLT_MAX)
        snprintf(text, n, "any");
    else
        snprintf(text, n, "%g", x);
}

/* Returns false, after the problem was told. */
static bool tell(prism_option_problem *problem, const char *name, double value, const char *wanted)
{
    if (problem) {
        *problem = (prism_option_problem){.name = name, .value = value};
        snprintf(problem->wanted, sizeof problem->wanted, "%s", wanted);
    }
    return false;
}

static bool tell_range(prism_option_problem *problem, const prism_option_row *row, double value)
{
    char low[16], high[16], wanted[64];
    put_limit(low, sizeof low, row->min);
    put_limit(high, sizeof high, row->max);
    snprintf(wanted, sizeof wanted, "%s to %s%s is taken", low, high, row->power_of_two ? ", a power of two," : "");
    return tell(problem, row->name, value, wanted);
}

bool prism_options_fit(const prism_options *options, prism_option_problem *problem)
{
    const prism_option_row *row;
    for (int32_t i = 0; (row = row_at(i)); i++)
        if (!fits(row, load(options, row)))
            return tell_range(problem, row, load(options, row));
    const prism_method_impl *m = prism_method_get(options->method);
    if (!m)
        return tell(problem, "method", options->method, "there is no such method");
    /* A correction stands for whole blocks, and single keys are none. */
    if (m->list && options->correct > PRISM_CORRECTION_NONE)
        return tell(problem, "correct", options->correct, "a method that lists single keys takes none (1)");
    return true;
}

prism_correction prism_options_correction(const prism_options *options)
{
    if (options->correct != PRISM_CORRECTION_DEFAULT)
        return options->correct;
    const prism_method_impl *m = prism_method_get(options->method);
    return m->correct != PRISM_CORRECTION_DEFAULT ? m->correct : PRISM_CORRECTION_NONE;
}

bool prism_options_are_full(const prism_options *options)
{
    const prism_method_impl *m = prism_method_get(options->method);
    return !m->select || (m->is_full && m->is_full(options));
}

bool prism_options_need_moments(const prism_options *options, bool attends)
{
    return prism_method_get(options->method)->needs_moments ||
           (attends && prism_options_correction(options) != PRISM_CORRECTION_NONE);
}
