/* Finds the CUDA backend. */
#ifndef PRISM_API_CUDA_H
#define PRISM_API_CUDA_H

#include "stages.h"

/* Returns the CUDA backend. Loads its plug-in library once and keeps it. NULL: there is none; *problem says why, unless
 * problem is NULL. */
const prism_backend *prism_cuda_plugin(const char **problem);

#endif
