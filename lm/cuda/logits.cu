/* What is wanted of logits without copying them: the loss of given tokens, the best token. One block a row. */
#include "operations.h"

#include <math.h>

enum { THREADS = 256 };

/* Sum of exponentials relative to a maximum. */
struct softmax_sum {
    float max;
    double sum;
};

static __device__ softmax_sum merged(softmax_sum a, softmax_sum b)
{
    if (b.sum == 0)
        return a;
    if (a.sum == 0)
        return b;
    const float max = fmaxf(a.max, b.max);
    return {max, a.sum * exp((double)(a.max - max)) + b.sum * exp((double)(b.max - max))};
}

/* A few hundred terms a thread in float32, each between 0 and 1, are good to 1e-6; the threads' sums meet in double. */
static __device__ softmax_sum sum_of_thread(const float *x, int32_t n)
{
    float max = -INFINITY, sum = 0;
    for (int32_t i = threadIdx.x; i < n; i += THREADS) {
        if (x[i] > max) {
            sum *= expf(max - x[i]);
            max = x[i];
        }
        sum += expf(x[i] - max);
    }
    return {max, (double)sum};
}

__global__ void nll_rows(const float *logits, const int32_t *targets, int32_t n_vocab, double *nll)
{
    __shared__ softmax_sum shared[THREADS];
    const float *row = logits + (int64_t)blockIdx.x * n_vocab;
    const int32_t target = targets[blockIdx.x];
    if (target < 0) {
        if (threadIdx.x == 0)
            nll[blockIdx.x] = 0;
        return;
    }
    shared[threadIdx.x] = sum_of_thread(row, n_vocab);
    for (unsigned half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            shared[threadIdx.x] = merged(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    if (threadIdx.x == 0)
        nll[blockIdx.x] = log(shared[0].sum) + (double)shared[0].max - (double)row[target];
}

cudaError_t lm_cu_nll(const float *logits, const int32_t *targets, int32_t n, int32_t n_vocab, double *nll,
                      cudaStream_t stream)
{
    nll_rows<<<(unsigned)n, THREADS, 0, stream>>>(logits, targets, n_vocab, nll);
    return cudaGetLastError();
}

struct candidate {
    float value;
    int32_t index; /* -1: something is not finite */
};

static __device__ candidate better(candidate a, candidate b)
{
    if (a.index < 0 || b.index < 0)
        return {0, -1};
    return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

__global__ void argmax(const float *x, int32_t n, int32_t *best)
{
    __shared__ candidate shared[THREADS];
    candidate mine = {-INFINITY, INT32_MAX};
    for (int32_t i = threadIdx.x; i < n; i += THREADS)
        mine = better(mine, {x[i], isfinite(x[i]) ? i : -1});
    shared[threadIdx.x] = mine;
    for (unsigned half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            shared[threadIdx.x] = better(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    if (threadIdx.x == 0)
        *best = shared[0].index;
}

cudaError_t lm_cu_argmax(const float *x, int32_t n, int32_t *best, cudaStream_t stream)
{
    argmax<<<1, THREADS, 0, stream>>>(x, n, best);
    return cudaGetLastError();
}
