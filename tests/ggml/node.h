/* Attention nodes as llama.cpp builds them, without ggml: tensors by hand over a KV cache of any cells. */
#ifndef TESTS_GGML_NODE_H
#define TESTS_GGML_NODE_H

#include "plugin.h"

#include "oracle.h"
#include "support.h"

enum { NODE_MAX_GROUP = 8 };

/* Tokens of one sequence: n_old in the cache before, n_new queries now. cell[i] of position i; NULL: 0, 1, 2, ... */
typedef struct node_sequence {
    int stream, n_old, n_new;
    const int *cell;
    uint64_t seed; /* of its keys, values and queries, by position: two with one seed are one prompt */
} node_sequence;

typedef struct node_shape {
    int d, n_head, n_kv_head, n_stream, n_cell;
    int type;    /* of the cache */
    int n_mixed; /* Hadamard order, 0: none */
    bool no_rope;
    int n_sequence;
    node_sequence sequence[NODE_MAX_GROUP];
} node_shape;

typedef struct node {
    node_shape shape;
    ggml_tensor q, q_view, mixed, matrix, rope, turned, k, v, k_cache, mask, out;
    /* What was stored, per sequence, in double: q [n_head][n_new][d], k and v [n_kv_head][n_old + n_new][d], both as
     * before the mixing */
    double *q_of[NODE_MAX_GROUP], *k_of[NODE_MAX_GROUP], *v_of[NODE_MAX_GROUP];
    int first_row[NODE_MAX_GROUP];
} node;

void node_codes(void); /* gives ggml.op some values */
void node_make(node *n, const node_shape *shape);
void node_rewrite(node *n,
                  const node_shape *shape); /* the same cache memory: cells of other sequences keep what they hold */
void node_free(node *n);

/* Largest difference between the node's output and the double-precision attention of sequence s. */
double node_error(const node *n, int s);

#endif
