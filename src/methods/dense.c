/* Full attention: every causal block. */
#include "methods/methods.h"

const prism_method_impl prism_method_dense = {.name = "dense"};
