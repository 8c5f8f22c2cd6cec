/*
 * lm/backend.h - the operations of a forward pass on one device; forward.c is written once against this table.
 *
 *   cpu.c                  products from the weights as they stand in their file (linear.h); products and attention in
 *                          bfloat16 or float32, everything else in float32
 *   cuda/, a plug-in       products and attention in 16 bits with float32 sums, everything else in float32
 *
 * Operations are issued in order and may still run when the call returns; copy_out(), choose() and finish() wait.
 * What goes wrong on the way is kept, and told by finish(). Memory is the backend's (allocate) unless said otherwise.
 * Rows follow each other without gaps.
 */
#ifndef LM_BACKEND_H
#define LM_BACKEND_H

#include "model.h"

/* Of one session. Without a model: memory, copies, time and linear() only. */
typedef struct lm_backend_spec {
    const lm_model *model; /* or NULL */
    int32_t block_size;    /* of the session's plans */
    int32_t n_ctx, step;   /* most tokens, and most of one prefill step */
    prism_dtype kv_type;   /* or LM_KV_AUTO */
    lm_product_type product;
    /* lm_backend_create() settles kv_type and fills in what the context says: */
    prism_dtype attention; /* type of q and o */
    int32_t n_thread;
    int32_t ordinal; /* of the GPU */
} lm_backend_spec;

typedef struct lm_backend lm_backend;

/* y[t][r] = bias[r] + sum_c x[t][c] W[r][c], added to y where accumulate. */
typedef struct lm_product {
    const lm_matrix *w;
    const float *bias; /* or NULL */
    const void *x;     /* [n][cols], of the backend's type */
    int64_t position;  /* of row 0 in the sequence */
    int32_t n;
    float *y; /* [n][rows] */
    bool accumulate;
} lm_product;

/* Head norm and RoPE of q and k, rounding of all three to where attention reads them. */
typedef struct lm_rotation {
    const lm_layer *layer;
    float *q, *k;        /* [n][n_head][d_head], [n][n_kv_head][d_head]; used up */
    const float *v;      /* as k */
    int64_t position;    /* of row 0 */
    int32_t n;           /* at most the backend's tile */
    void *q_out;         /* of the backend's type; float32: q itself */
    void *k_row, *v_row; /* of the cache, of its type */
} lm_rotation;

typedef struct lm_backend_ops {
    void (*destroy)(lm_backend *b);

    /* Aligned to 64 bytes; NULL: there is none. What is not touched need not exist (available() counts all the same).
     */
    void *(*allocate)(lm_backend *b, size_t bytes);
    void (*release)(lm_backend *b, void *memory); /* NULL is allowed */
    uint64_t (*available)(lm_backend *b);
    /* Within the backend's memory. */
    void (*copy)(lm_backend *b, void *dst, const void *src, size_t bytes);
    /* From and to the caller's memory. */
    void (*copy_in)(lm_backend *b, void *dst, const void *src, size_t bytes);
    void (*copy_out)(lm_backend *b, void *dst, const void *src, size_t bytes);

    void (*embed)(lm_backend *b, const int32_t *tokens, int32_t n, float *hidden);
    /* RMS norm of n rows of d_model. */
    void (*norm)(lm_backend *b, const float *x, const float *weight, int32_t n, void *out);
    void (*linear)(lm_backend *b, const lm_product *p);
    void (*rotate)(lm_backend *b, const lm_rotation *r);
    /* out = silu(gate) * up, n rows of d_ff. float32: out is gate. */
    void (*swiglu)(lm_backend *b, float *gate, const float *up, int32_t n, void *out);
    /* nll[i] = -log p of targets[i] by row i of logits; 0 where the target is negative. */
    void (*nll)(lm_backend *b, const float *logits, const int32_t *targets, int32_t n, double *nll);
    /* The lowest id among the largest of n_vocab logits; -1 if one is not finite. */
    int32_t (*choose)(lm_backend *b, const float *logits);

    /* Time as the device sees it. reserve_marks(), called once, makes room for marks 0 .. n - 1. mark() sets mark i to
     * the moment when all that was issued so far is done. seconds(), from one mark to another, is known after
     * finish(). */
    bool (*reserve_marks)(lm_backend *b, int32_t n, lm_error *err);
    void (*mark)(lm_backend *b, int32_t i);
    double (*seconds)(lm_backend *b, int32_t from, int32_t to);

    bool (*finish)(lm_backend *b, lm_error *err);
} lm_backend_ops;

struct lm_backend {
    const lm_backend_ops *ops;
    const lm_weights *weights; /* where the operations read them */
    int32_t tile;              /* rows that go through projections and MLP together */
    int32_t logit_tile;        /* positions whose logits are made together; at most tile */
    prism_dtype type;          /* of what products and attention read: x, q, o */
    prism_dtype kv_type;       /* lm_backend_create() sets this, and prism_info.min_tokens of the context: */
    int32_t min_tokens;
    bool on_host;              /* its memory is the caller's too */
    size_t device_bytes;       /* allocated so far, weights included; 0 where on_host */
    void *stream;              /* that everything is issued on: a cudaStream_t; NULL where on_host */
};

double lm_seconds(void); /* on a clock that never goes back */

/* On the device of ctx, whose stream becomes the backend's. */
bool lm_backend_create(const lm_backend_spec *spec, prism_ctx *ctx, lm_backend **out, lm_error *err);
bool lm_backend_cpu(const lm_backend_spec *spec, lm_backend **out, lm_error *err);
/* RUN: no plug-in, no cuBLAS or no GPU, with the reason; UNSUPPORTED: a cache of float32. */
bool lm_backend_cuda(const lm_backend_spec *spec, lm_backend **out, lm_error *err);

/* What the plug-in exports. */
typedef struct lm_cuda_plugin {
    bool (*create)(const lm_backend_spec *spec, lm_backend **out, lm_error *err);
    bool (*probe)(char *text, size_t n, lm_error *err);
} lm_cuda_plugin;

/* Returns NULL if `version` is not the plug-in's own LM_CUDA_PLUGIN_VERSION: src/plugin_version.cmake. */
typedef const lm_cuda_plugin *lm_cuda_plugin_entry(uint32_t version);
#define LM_CUDA_PLUGIN_ENTRY "lm_cuda_plugin_of"

#endif
