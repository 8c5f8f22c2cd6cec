/*
 * bench/bench.h - measurements: one attention call, its stages, a whole model's prefill, and the machine's limits.
 *
 *   bench_tensors_random(), _capture()   Q, K, V: seeded noise, or what a layer of a model made of a real prompt
 *   bench_attention()                    methods side by side: time, density, work, memory of selection
 *   bench_stages()                       one method: pool, score + select, attend against the roofline
 *   bench_prefill()                      methods side by side: a prompt through the whole model
 *   bench_measure_peaks()                multiply-adds, reads and copies per second, by loops that do nothing else
 *
 * Every function that can fail returns false and fills lm_error. Nothing here prints. A measurement uses the threads of
 * its prism_ctx and wants the machine for itself.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lm/lm.h"

/* ---------------------------------------------------------------------------------------------- methods ---- */

typedef struct bench_method {
    const char *label;     /* names it in results; borrowed */
    prism_options options; /* without bands: those of the tensors or of the model */
} bench_method;

/* Each method runs once to warm up, then until it has `reps` repetitions or has used `seconds`, at least once. Methods
 * take turns, so that a machine that slows down slows all of them. A method whose warm-up alone took longer than
 * `seconds` is not run again: its warm-up is the measurement (bench_time.warm is then false). */
typedef struct bench_limits {
    int32_t reps;
    double seconds;
} bench_limits;

typedef struct bench_time {
    double median, min, max; /* seconds */
    int32_t n;               /* repetitions */
    bool warm;
} bench_time;

/* what: the method's label; n_token: of how many tokens; done: rounds finished of at most total. */
typedef void bench_progress(void *user, const char *what, int32_t n_token, int32_t done, int32_t total);

/* Methods side by side: for bench_attention() and bench_prefill(). */
typedef struct bench_spec {
    const bench_method *methods;
    int32_t n_method, n_token;
    bench_limits limits;
    bench_progress *progress; /* NULL: not wanted */
    void *user;
    /* bench_attention() */
    double density; /* above 0: every method but dense attends over the same random plan of this density */
    uint64_t seed;  /* of that plan */
    bool measures_memory;
    /* bench_prefill() */
    const int32_t *tokens; /* [n_token] */
    int32_t chunk;
} bench_spec;

/* ---------------------------------------------------------------------------------------------- tensors ---- */

/* Q, K, V of one layer and room for O, [n_token][heads][d_head] each. */
typedef struct bench_tensors {
    int32_t n_token, n_head, n_kv_head, d_head;
    prism_dtype dtype;
    void *q, *k, *v, *o;
    prism_rope rope;
} bench_tensors;

typedef struct bench_shape {
    int32_t n_token, n_head, n_kv_head, d_head;
    prism_dtype dtype;
} bench_shape;

/* Makes uniform noise of variance 1, with rotary frequencies of base 1e6. Equal seeds give equal noise for any number
 * of threads. The caller owns *out: bench_tensors_free(), also after a failure. */
bool bench_tensors_random(const bench_shape *shape, uint64_t seed, int32_t n_thread, bench_tensors *out, lm_error *err);

/* Captures Q, K and V of one layer while the model reads the tokens under full attention, and rounds them to dtype. On
 * a GPU dtype is f16 or bf16, and the model runs in it. The first n rows of a causal model depend on the first n tokens
 * alone, so a shorter prompt is a prefix of a longer one. The caller owns *out, also after a failure. */
bool bench_tensors_capture(const lm_model *model, prism_ctx *ctx, const int32_t *tokens, int32_t n_token, int32_t layer,
                           prism_dtype dtype, lm_progress *progress, void *user, bench_tensors *out, lm_error *err);
void bench_tensors_free(bench_tensors *t); /* {0} is allowed */

/* Returns the call of the first n_token tokens. */
prism_call bench_tensors_call(const bench_tensors *t, int32_t n_token);

/* -------------------------------------------------------------------------------------------- attention ---- */

typedef struct bench_attention_result {
    const char *label;
    const char *kernel; /* that attended, as prism_cuda_attend_kernel() has it; "" on the CPU */
    int32_t n_token;
    prism_path path;                       /* of the plan that was attended over */
    bench_time pool, select, attend, call; /* pool is a part of select; call: select and attend */
    double density;                        /* of the plan that was attended over */
    double density_of_method;              /* of the plan that the method chose: the same unless density was imposed */
    double select_flop, correct_flop, attend_flop, dense_flop; /* a correction is a part of attend's time */
    double speedup;   /* of the median call over the first dense method's; 0 where there is none */
    int64_t n_listed; /* blocks and single keys of the attended plan */
    size_t workspace_bytes, attend_workspace_bytes; /* of the whole call; of attention alone */
    int64_t select_peak_bytes; /* resident memory that selection added, workspace and plan; -1 on a GPU */
} bench_attention_result;

/* Runs one attention call by each method and fills results[n_method]. */
bool bench_attention(prism_ctx *ctx, const bench_tensors *t, const bench_spec *spec, bench_attention_result *results,
                     lm_error *err);

/* Fills a plan with random rows, equal for equal seeds. Every row lists its first and its own block. Random
 * other blocks bring the total of each head to density * causal blocks, within one block, unless two blocks a row
 * exceed that. */
bool bench_impose_density(prism_ctx *ctx, const prism_call *call, int32_t block_size, double density, uint64_t seed,
                          prism_plan *plan, lm_error *err);

/* ----------------------------------------------------------------------------------------------- stages ---- */

typedef struct bench_peaks {
    double fma_flops;    /* of the tier in use, float32, all threads */
    double dot_flops;    /* of its dot products of bfloat16; 0: it has none */
    double read_bytes_s; /* bytes read from memory per second */
    double copy_bytes_s; /* bytes copied per second, counted once read and once written */
    struct {
        const char *name; /* "avx512" */
        const char *what; /* "f32 multiply-add" */
        double flops;
    } tiers[2 * PRISM_N_ISA]; /* every tier that this machine runs */
    int32_t n_tier;
} bench_peaks;

/* Measures each peak for `seconds`, on the threads of ctx (peak_loops.h). On a GPU: the best of a dozen large products
 * of dtype, f16 or bf16, by cuBLAS, and of copies within its memory. */
bool bench_measure_peaks(prism_ctx *ctx, prism_dtype dtype, double seconds, bench_peaks *out, lm_error *err);

enum { BENCH_POOL, BENCH_SELECT, BENCH_ATTEND, BENCH_N_STAGE };

typedef struct bench_stage {
    const char *name;
    double seconds; /* median */
    double flop;
    double bytes; /* compulsory traffic: every operand and result once */
    bool bound_by_memory;
    double share; /* least time that the peaks allow / seconds */
} bench_stage;

/* Sets the stages of one result of bench_attention() against the peaks. options: of that result's method. A correction
 * counts in attend. A stage that the method lacks has no operations. */
void bench_stages(const bench_tensors *t, const bench_attention_result *r, const prism_options *options,
                  const bench_peaks *peaks, bench_stage stages[BENCH_N_STAGE]);

/* ---------------------------------------------------------------------------------------------- prefill ---- */

typedef struct bench_prefill_result {
    const char *label;
    int32_t n_token;
    bench_time prefill, select, attend, linear;
    double density;                    /* mean over the layers */
    double work_flop, dense_flop;      /* of attention, all layers: selection included; full attention */
    double speedup, attention_speedup; /* over the first dense method; 0 where there is none */
    int64_t peak_bytes;                /* of the process during the run; on a GPU what the session took there */
} bench_prefill_result;

/* Runs the prompt through the model by each method and fills results[n_method]. */
bool bench_prefill(const lm_model *model, prism_ctx *ctx, const bench_spec *spec, bench_prefill_result *results,
                   lm_error *err);

/* ----------------------------------------------------------------------------------------------- shared ---- */

/* Counts the operations of attention over a plan as the library does: 4 d for each query and each key of a listed
 * block, whole blocks. view NULL: every causal block is listed. The call has one sequence. */
double bench_attend_flop(const prism_call *call, int32_t block_size, const prism_plan_view *view);

/* Returns median and range; sorts the samples. */
bench_time bench_summarize(double *samples, int32_t n, bool warm);

/* Return resident memory now, and its peak since the last reset; -1 if the system does not tell. */
int64_t bench_resident_bytes(void);
int64_t bench_peak_bytes(void);
bool bench_reset_peak(void); /* false: the peak is since the start */
/* Makes the allocator map and unmap every larger block, so that freed memory does not hide what a later call needs. */
void bench_return_freed_memory(void);

#endif
