/* bench/turns.h - methods that take turns, for bench/'s own files. */
#ifndef BENCH_TURNS_H
#define BENCH_TURNS_H

#include "bench.h"

enum { BENCH_N_PART = 4 };

/* The times of one method: part[0] is the whole run, the others are parts of it. */
typedef struct bench_times {
    bench_time part[BENCH_N_PART];
} bench_times;

/* Runs method number i once and fills seconds, the whole run first. */
typedef bool bench_run(void *user, int32_t i, double seconds[BENCH_N_PART], lm_error *err);

/* Runs every method of the spec as bench_limits says, and fills times[n_method]. USAGE: the spec has no methods, no
 * repetitions or no tokens. */
bool bench_take_turns(const bench_spec *spec, bench_run *run, void *user, bench_times *times, lm_error *err);

/* The number of the first dense method; -1: there is none. */
int32_t bench_first_dense(const bench_spec *spec);

#endif
