/*
 * eval/methods.h - the methods of a comparison, from one line of text:
 *
 *   "dense,prism,prism:top_p=0.9:calibration=causal"     items by comma, options of an item by colon
 */
#ifndef EVAL_METHODS_H
#define EVAL_METHODS_H

#include "lm/error.h"

#include <prism_attn/prism.h>

#define EVAL_METHOD_LABEL 128

typedef struct eval_method {
    char label[EVAL_METHOD_LABEL]; /* the item as it was written: names the method in tables and results */
    prism_options options;
} eval_method;

typedef struct eval_methods {
    eval_method *items;
    int32_t n;
} eval_methods;

/* Parses a list. text NULL: dense and the library's default method. Every item starts from base (NULL: the library's
 * defaults). LM_ERROR_USAGE: an unknown name, a value out of range, an option that the item's method does not use, or
 * an item that stands twice; or LM_ERROR_MEMORY. The caller owns *out: eval_methods_free(). */
bool eval_methods_parse(const char *text, const prism_options *base, eval_methods *out, lm_error *err);
void eval_methods_free(eval_methods *methods); /* {0} is allowed */

/* Fills err (USAGE) with why prism_options_set() refuses this name and value, and what it takes. Returns false. */
bool eval_option_problem(const char *name, const char *value, lm_error *err);

/* Returns the methods that use an option, "prism, meanpool"; "" if it does not exist. option NULL: all methods. */
typedef struct eval_method_names {
    char text[256];
    bool all;
} eval_method_names;
eval_method_names eval_methods_using(const char *option);

#endif
