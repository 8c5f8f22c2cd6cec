/* Finds the CUDA backend. */
#ifndef PRISM_API_CUDA_H
#define PRISM_API_CUDA_H

#include "stages.h"

/* The CUDA backend out of its plug-in library, loaded once and kept; NULL if there is none, and *problem (if given)
 * says why. */
const prism_backend *prism_cuda_plugin(const char **problem);

#endif
