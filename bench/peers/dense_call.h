/* Full attention by libprismattn, for measurements beside other libraries. All tensors [head][token][d]. */
#ifndef BENCH_PEERS_DENSE_CALL_H
#define BENCH_PEERS_DENSE_CALL_H

#include <stdint.h>

typedef struct dense_shape {
    int32_t n_q, n_kv, n_head, n_kv_head, d_head, n_thread;
    int32_t q_dtype, kv_dtype; /* prism_dtype; the output's is q_dtype */
} dense_shape;

typedef struct dense_call dense_call;

/* The queries are the last n_q of n_kv tokens. Borrows the data. NULL: refused. */
dense_call *dense_call_new(const dense_shape *shape, void *q, void *k, void *v, void *o);
int dense_call_run(dense_call *c); /* 0, or a prism_status */
void dense_call_free(dense_call *c);

#endif
