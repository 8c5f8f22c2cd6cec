/*
 * lm/library.h - a library that need not be there: found by name when somebody wants it, its functions looked up.
 */
#ifndef LM_LIBRARY_H
#define LM_LIBRARY_H

#include "error.h"

typedef struct lm_symbol {
    const char *name;
    void *function; /* where its address goes: a pointer to a pointer to a function */
} lm_symbol;

/* Loads the first of names (NULL ends them) that the loader finds, and looks up n symbols; the library stays loaded.
 * what: its name for people, "cuBLAS". RUN: it is not found, or lacks one of them. */
bool lm_library_load(const char *what, const char *const *names, const lm_symbol *symbols, int n, lm_error *err);

#endif
