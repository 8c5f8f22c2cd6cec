/* Calls of the launch functions (cuda/launch.h), made of the tests' cases: tensors behind guard pages, foreign memory
 * poisoned, plans as lists. The GPU computes on this memory (ck_gpu_begin). */
#ifndef TESTS_CUDA_LAUNCH_CASE_H
#define TESTS_CUDA_LAUNCH_CASE_H

#include "checkkern.h"
#include "cuda/launch.h"

/* Lengths and features of a case. Sequences of n_q queries end at key n_kv; n_beyond more keys are there, all NaN. */
typedef struct launch_spec {
    shape s;
    double density; /* part of the blocks that a row lists beside its own; 0: no lists, every block */
    double keys;    /* part of the other keys that it lists one by one */
    double empty;   /* part of the rows that list nothing */
    bool has_scale; /* scale below is meant, even 0; else twice the default, so that scores spread */
    float scale;
    bool init;  /* attention starts from a state */
    bool split; /* rows are few and long: scratch is given, and it must be asked for */
    enum { FLAG_NONE, FLAG_CLEAR, FLAG_SET } full; /* FLAG_SET: the lists must not be followed */
} launch_spec;

enum { LAUNCH_MAX_MEMORY = 24 };

typedef struct launch {
    launch_spec spec;
    test_case *c;
    uint8_t *mask[MAX_SEQ], *keys[MAX_SEQ]; /* as oracle_attend_from() takes them; keys NULL: none */
    double *out0[MAX_SEQ], *lse0[MAX_SEQ];  /* the state, or NULL */
    placed init_o, init_lse;
    prism_cu_attend a;
    int32_t *ticket;
    guarded memory[LAUNCH_MAX_MEMORY];
    int n_memory;
    char name[160];
} launch;

/* Sets lengths: a single sequence, token after token; the shape's other fields stay. */
void launch_lengths(launch_spec *spec, int n_q, int n_kv, int n_head, int n_kv_head);

/* Memory that the GPU reads, up to a guard page; filled with byte. Freed with the case. */
void *launch_memory(launch *l, size_t bytes, int byte);

prism_cu_view launch_view(const placed *p, int n_head, int d, int n_token);
prism_cu_shape launch_shape(const test_case *c);

/* Row pointers, indices and, if order is not NULL, the order of rows (longest rows of each KV head first) of the masks of
 * all sequences. width: columns of a row of sequence s. */
void launch_lists(launch *l, uint8_t *const *mask, bool by_key, const int64_t **row_ptr, const int32_t **index,
                  const int32_t **order);

launch *launch_new(const launch_spec *spec, rng *r);
void launch_free(launch *l);

/* Poisons the outputs, launches and waits. */
typedef cudaError_t launch_function(const prism_cu_attend *a, cudaStream_t stream);
cudaError_t launch_run(launch *l, launch_function *run);

/* The oracle's output and log-sum-exp of sequence s, for the caller to free. */
typedef struct launch_answer {
    double *out, *lse;
    long n_out, n_lse;
} launch_answer;
launch_answer launch_expect(const launch *l, int s);
launch_answer launch_read(const launch *l, int s);
void launch_answer_free(launch_answer *a);

/* ||got - want|| / ||want|| over n elements, those left out that are not finite in either. */
double launch_distance(const double *got, const double *want, long n);

/* True if both are NaN, both the same infinity or both finite, element by element. weights_underflow: NaN may stand for an
 * infinity, because weights below 2^-25 are 0 in float16 and 0 x Inf is NaN. */
bool launch_same_kind(const double *got, const double *want, long n, bool weights_underflow);

/* 10 * major + minor of the GPU: 90 on an H100 or H200. */
int launch_compute(void);

#endif
