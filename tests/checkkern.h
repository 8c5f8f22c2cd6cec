/* checkkern: oracle -> C reference -> every tier this machine runs. One file per stage; main in checkkern.c. */
#ifndef TESTS_CHECKKERN_H
#define TESTS_CHECKKERN_H

#include <stdio.h>

#include "cases.h"

typedef struct ck_state {
    uint64_t seed;
    bool verbose, gpu;
    int every;        /* of the long series of cases, each so manieth */
    const char *what; /* the test under way */
    long n_check, n_fail;
} ck_state;

extern ck_state ck;

/* Counts a check; a failing one is printed (the first few of each test), with its test and the seed that replays it. */
bool ck_ok(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* |got - want| <= bound; both NaN, or both the same infinity, agree too. */
bool ck_near(double got, double want, double bound, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Tiers under test, the C reference first: then those of this processor, or the GPU with --device cuda. ck_tiers has
 * the processor's only. */
enum { CK_MAX_TIER = 8 };
extern prism_isa ck_tiers[CK_MAX_TIER];
int ck_n_tier(void);
const char *ck_tier_name(int tier);
prism_ctx *ck_context(int tier);

/* With --device cuda: the GPU computes on the tests' own memory, guard pages included, which ck_gpu_begin() has the
 * driver map. A shape is fitted to what the GPU computes. */
bool ck_is_gpu(int tier);
bool ck_gpu_begin(void);
void ck_gpu_fit(shape *s, bool choosing);
/* Unit of the weights' rounding before the product with the values: the tensor cores take them in the call's type. */
double ck_weight_unit(int tier, const prism_ctx *ctx, prism_dtype dtype);

/* A seed of its own for every test, derived from --seed. */
rng ck_rng(const char *test);

void ck_rows(void);
void ck_gemm(void);
void ck_softmax(void);
void ck_select(void);
void ck_attend(void);
void ck_moments(void);
void ck_nonfinite(void);

/* tests/cuda: the launch functions of the CUDA backend, in builds with it. */
void ck_launch_attend(void);
void ck_launch_plan(void);
void ck_launch_moments(void);
void ck_launch_fp8(void);

void ck_bench(bool on_shared_machine);

#endif
