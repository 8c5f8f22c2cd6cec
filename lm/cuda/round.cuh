/* lm/cuda/round.cuh - float32 to the two 16-bit types and back, two and four at a time. */
#ifndef LM_CUDA_ROUND_CUH
#define LM_CUDA_ROUND_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

static __device__ __forceinline__ void round_to(float x, __half *out)
{
    *out = __float2half_rn(x);
}
static __device__ __forceinline__ void round_to(float x, __nv_bfloat16 *out)
{
    *out = __float2bfloat16_rn(x);
}
static __device__ __forceinline__ float widen(__half x)
{
    return __half2float(x);
}
static __device__ __forceinline__ float widen(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

/* out: aligned to 4 elements. */
template <typename T> static __device__ __forceinline__ void store4(T *out, float a, float b, float c, float d)
{
    union {
        T element[4];
        uint2 word;
    } packed;
    round_to(a, &packed.element[0]);
    round_to(b, &packed.element[1]);
    round_to(c, &packed.element[2]);
    round_to(d, &packed.element[3]);
    *(uint2 *)out = packed.word;
}

/* Calls launch with pointer as one to the 16-bit type, and returns how the launch went. */
template <typename Launch> static cudaError_t in_type(bool bf16, void *pointer, Launch launch)
{
    if (bf16)
        launch((__nv_bfloat16 *)pointer);
    else
        launch((__half *)pointer);
    return cudaGetLastError();
}

static __device__ __forceinline__ float sum_of_warp(float x)
{
    for (int step = 16; step; step /= 2)
        x += __shfl_xor_sync(0xffffffff, x, step);
    return x;
}

#endif
