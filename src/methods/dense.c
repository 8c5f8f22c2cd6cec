/* Full attention: every causal block. */
#include "methods/method.h"

const prism_method_impl prism_method_dense = {.name = "dense", .text = "full attention: every causal block"};
