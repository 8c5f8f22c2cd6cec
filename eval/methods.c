#include "eval/methods.h"
#include "eval/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

eval_method_names eval_methods_using(const char *option)
{
    eval_method_names names = {.all = true};
    size_t used = 0;
    for (int32_t i = 0; i < prism_method_count(); i++) {
        if (option && !prism_method_uses((prism_method)i, option)) {
            names.all = false;
            continue;
        }
        const char *name = prism_method_name((prism_method)i);
        if (used + strlen(name) + 3 <= sizeof names.text)
            used += (size_t)sprintf(names.text + used, "%s%s", used ? ", " : "", name);
    }
    return names;
}

/* What values an option takes: "a number above 0, up to 1", "none or mean". */
static const char *values_text(const prism_option_info *o, char *text, size_t n)
{
    char low[32], high[32] = "";
    if (o->kind == PRISM_OPTION_NAME)
        return lm_list_text(o->names, (size_t)o->n_name, "or", text, n);
    const bool above_zero = o->min > 0 && o->min < 1e-30; /* the least float */
    snprintf(low, sizeof low, above_zero ? "above 0" : "from %g", o->min);
    if (o->max < INT32_MAX)
        snprintf(high, sizeof high, above_zero ? ", up to %g" : " to %g", o->max);
    snprintf(text, n, "a %snumber %s%s", o->kind == PRISM_OPTION_INT ? "whole " : "", low, high);
    return text;
}

bool eval_option_problem(const char *name, const char *value, lm_error *err)
{
    const char *names[64];
    char text[256];
    size_t n = 0;
    prism_option_info o = {.struct_size = sizeof o};
    if (!strcmp(name, "method"))
        return lm_fail(err, LM_ERROR_USAGE, "no method '%s'; there are %s: 'prism info' lists them", value,
                       eval_methods_using(NULL).text);
    for (int32_t i = 0; n < 64 && !prism_option_at(i, &o); names[n++] = o.name, i++)
        if (!strcmp(o.name, name))
            return lm_fail(err, LM_ERROR_USAGE, "option %s=%s: give %s (%s)", name, value,
                           values_text(&o, text, sizeof text), o.text);
    const char *nearest = eval_nearest(name, names, n);
    return lm_fail(err, LM_ERROR_USAGE, "option %s=%s: there is no such option%s%s%s", name, value,
                   nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

/* name=value, in place. */
static bool apply(char *option, const char *label, prism_options *options, lm_error *err)
{
    char *equals = strchr(option, '=');
    if (!equals || equals == option)
        return lm_fail(err, LM_ERROR_USAGE, "methods '%s': '%s' is not NAME=VALUE", label, option);
    *equals = '\0';
    if (!strcmp(option, "method"))
        return lm_fail(err, LM_ERROR_USAGE, "methods '%s': the method is the item's first word", label);
    if (prism_options_set(options, option, equals + 1))
        return eval_option_problem(option, equals + 1, err);
    return prism_method_uses(options->method, option) ||
           lm_fail(err, LM_ERROR_USAGE, "methods '%s': %s does not go by %s, but %s", label,
                   prism_method_name(options->method), option, eval_methods_using(option).text);
}

static bool parse_item(const char *text, size_t n, const prism_options *base, eval_method *out, lm_error *err)
{
    while (n && text[0] == ' ')
        text++, n--;
    while (n && text[n - 1] == ' ')
        n--;
    if (!n || n >= sizeof out->label)
        return lm_fail(err, LM_ERROR_USAGE,
                       n ? "methods '%.*s': longer than %d characters" : "methods '%.*s': an item is empty", (int)n,
                       text, EVAL_METHOD_LABEL - 1);
    memcpy(out->label, text, n);
    out->label[n] = '\0';
    out->options = *base;
    char copy[EVAL_METHOD_LABEL], *rest = copy;
    memcpy(copy, out->label, n + 1);
    const char *name = strsep(&rest, ":");
    if (prism_method_find(name, &out->options.method))
        return lm_fail(err, LM_ERROR_USAGE, "methods '%s': no such method; there are %s", out->label,
                       eval_methods_using(NULL).text);
    while (rest)
        if (!apply(strsep(&rest, ":"), out->label, &out->options, err))
            return false;
    return true;
}

static bool parse_all(const char *text, const prism_options *base, eval_methods *out, lm_error *err)
{
    for (;;) {
        const size_t n = strcspn(text, ",");
        eval_method *more = realloc(out->items, (size_t)(out->n + 1) * sizeof *more);
        if (!more)
            return lm_fail(err, LM_ERROR_MEMORY, "out of memory for the list of methods");
        out->items = more;
        eval_method *m = &more[out->n];
        memset(m, 0, sizeof *m);
        if (!parse_item(text, n, base, m, err))
            return false;
        for (int32_t i = 0; i < out->n; i++)
            if (!strcmp(more[i].label, m->label))
                return lm_fail(err, LM_ERROR_USAGE, "methods: '%s' is given twice", m->label);
        out->n++;
        if (!text[n])
            return true;
        text += n + 1;
    }
}

bool eval_methods_parse(const char *text, const prism_options *base, eval_methods *out, lm_error *err)
{
    prism_options defaults;
    prism_options_init(&defaults);
    eval_methods methods = {0};
    char usual[EVAL_METHOD_LABEL];
    snprintf(usual, sizeof usual, defaults.method == PRISM_METHOD_DENSE ? "dense" : "dense,%s",
             prism_method_name(defaults.method));
    if (!parse_all(text ? text : usual, base ? base : &defaults, &methods, err)) {
        eval_methods_free(&methods);
        return false;
    }
    *out = methods;
    return true;
}

void eval_methods_free(eval_methods *methods)
{
    if (!methods)
        return;
    free(methods->items);
    *methods = (eval_methods){0};
}
