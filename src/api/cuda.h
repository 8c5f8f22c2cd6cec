/* Finds the backend of another device. */
#ifndef PRISM_API_DEVICE_H
#define PRISM_API_DEVICE_H

#include "stages.h"

/* The CUDA backend out of its plug-in library, loaded once and kept; NULL if there is none, and *problem (if given)
 * says why. */
const prism_backend *prism_cuda_plugin(const char **problem);

#endif
