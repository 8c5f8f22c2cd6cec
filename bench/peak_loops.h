/*
 * bench/peak_loops.h - what the processor can do at most: operations in registers and bytes moved per second.
 *
 * Sees include/ only, so that the kernel checker can compile it, too. A rate is the sum of the threads' best pieces.
 * Without all threads to itself for at least moments, a machine looks slower than it is.
 */
#ifndef BENCH_PEAK_LOOPS_H
#define BENCH_PEAK_LOOPS_H

#include <stddef.h>
#include <stdint.h>

#include <prism_attn/prism.h>

typedef enum bench_peak_kind {
    BENCH_PEAK_FMA, /* multiply-adds of float32 */
    BENCH_PEAK_DOT  /* dot products of bfloat16 */
} bench_peak_kind;

/* Returns floating-point operations per second with the instructions of one tier, measured for `seconds`. The machine
 * must run that tier. 0: the tier has no such instructions of its own; multiply-adds are then those of the nearest
 * lower tier that has some. */
double bench_peak_flops(prism_isa isa, bench_peak_kind kind, double seconds, int32_t n_thread);

typedef enum bench_peak_move { BENCH_PEAK_READ, BENCH_PEAK_COPY } bench_peak_move;

/* Returns bytes per second over a buffer of each thread's own; a copy counts bytes read and bytes written. A small
 * buffer stays in cache, a large one does not. buffer_bytes: a power of two from 256. 0: there is no memory. */
double bench_peak_traffic(size_t buffer_bytes, bench_peak_move move, double seconds, int32_t n_thread);

#endif
