/* lm/cuda/device.h - a session's state on the GPU, for the plug-in's own files. */
#ifndef LM_CUDA_DEVICE_H
#define LM_CUDA_DEVICE_H

#include "../backend.h"
#include "blas.h"

/* One allocation of the session. */
typedef struct lm_cuda_block {
    void *data;
    size_t bytes;
} lm_cuda_block;

enum { LM_CUDA_MAX_BLOCKS = 64 };

typedef struct lm_cuda {
    lm_backend base; /* first: the same pointer */
    const lm_config *config;
    int32_t ordinal;
    bool bf16;
    prism_rope rope;
    cudaStream_t stream;
    lm_blas blas;
    lm_weights weights;   /* on the device; the list of layers is the host's */
    float *coarse, *fine; /* rotation tables */
    int32_t *best;        /* of choose(), on the device */
    lm_cuda_block blocks[LM_CUDA_MAX_BLOCKS];
    cudaEvent_t *marks; /* [n_mark]; NULL: never set */
    int32_t n_mark;
    char problem[256]; /* the first thing that went wrong since finish() told of one; "" */
} lm_cuda;

/* allocate.c. Notes what went wrong first, for finish() to tell; does nothing for cudaSuccess. */
void lm_cuda_note(lm_cuda *c, cudaError_t status, const char *what);
void lm_cuda_note_text(lm_cuda *c, const char *why, const char *what);
/* As lm_backend_ops has them. */
void *lm_cuda_allocate(lm_backend *b, size_t bytes);
void lm_cuda_release(lm_backend *b, void *memory);

/* weights.c. Copies the model's weights to the device: matrices in 16 bits, norms and biases in float32. */
bool lm_cuda_upload(lm_cuda *c, const lm_weights *from, lm_error *err);
/* Fills c->coarse and c->fine for n_ctx positions. */
bool lm_cuda_rotation_tables(lm_cuda *c, int32_t n_ctx, double scale, lm_error *err);

#endif
