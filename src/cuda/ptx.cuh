/*
 * The few PTX instructions that CUDA C++ has no name for, one small function each.
 *
 * Shared-memory addresses are 32-bit "shared window" addresses (smem_addr()); barriers are 8-byte words.
 */
#ifndef PRISM_CUDA_PTX_CUH
#define PRISM_CUDA_PTX_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#include <type_traits>

namespace prism
{

__device__ __forceinline__ uint32_t smem_addr(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float rsqrt_fast(float x)
{
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* NaN if either is. */
__device__ __forceinline__ float max_nan(float a, float b)
{
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

__device__ __forceinline__ float log2_fast(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two floats to a pair of 16-bit numbers, lo in the low half. */
template <class T> __device__ __forceinline__ uint32_t pack2(float lo, float hi);
template <> __device__ __forceinline__ uint32_t pack2<__nv_bfloat16>(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
template <> __device__ __forceinline__ uint32_t pack2<__half>(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

__device__ __forceinline__ float2 widen(const __nv_bfloat16 *pair)
{
    return __bfloat1622float2(*(const __nv_bfloat162 *)pair);
}
__device__ __forceinline__ float2 widen(const __half *pair)
{
    return __half22float2(*(const __half2 *)pair);
}

/* Numbers of pairs of 16 bits that are Inf or NaN: bit 15 and bit 31 of the result. */
template <class T> __device__ __forceinline__ uint32_t nonfinite2(uint32_t x);
template <> __device__ __forceinline__ uint32_t nonfinite2<__nv_bfloat16>(uint32_t x)
{
    return ((x & 0x7f807f80u) + 0x00800080u) & 0x80008000u;
}
template <> __device__ __forceinline__ uint32_t nonfinite2<__half>(uint32_t x)
{
    return ((x & 0x7c007c00u) + 0x04000400u) & 0x80008000u;
}
template <class T> __device__ __forceinline__ bool nonfinite8(uint4 x)
{
    return (nonfinite2<T>(x.x) | nonfinite2<T>(x.y) | nonfinite2<T>(x.z) | nonfinite2<T>(x.w)) != 0;
}
/* The same numbers, NaN in the place of those. */
template <class T> __device__ __forceinline__ uint32_t nan2(uint32_t x)
{
    return x | (nonfinite2<T>(x) >> 15) * 0x7fffu;
}
/* The same numbers, 0 in the place of those. */
template <class T> __device__ __forceinline__ uint32_t finite2(uint32_t x)
{
    uint32_t bad = nonfinite2<T>(x);
    return x & ~((bad >> 15) * 0xffffu);
}
template <class T> __device__ __forceinline__ uint4 finite8(uint4 x)
{
    return make_uint4(finite2<T>(x.x), finite2<T>(x.y), finite2<T>(x.z), finite2<T>(x.w));
}

/* Four floats to e4m3, a in the lowest byte; beyond +-448: +-448, NaN: NaN. */
__device__ __forceinline__ uint32_t pack_e4m3(float a, float b, float c, float d)
{
    uint32_t r;
    asm("{\n.reg .b16 lo, hi;\ncvt.rn.satfinite.e4m3x2.f32 lo, %2, %1;\ncvt.rn.satfinite.e4m3x2.f32 hi, %4, %3;\n"
        "mov.b32 %0, {lo, hi};\n}"
        : "=r"(r)
        : "f"(a), "f"(b), "f"(c), "f"(d));
    return r;
}
/* Place in its row of 16-byte column c of row r of a tile in shared memory: columns change places within groups of 8,
 * so that the 8 rows that ldmatrix reads together lie in different banks. */
__device__ __forceinline__ int swizzled(int r, int c)
{
    return (c & ~7) | ((c ^ r) & 7);
}

/* Over the four neighbouring lanes that share rows of an accumulator. */
__device__ __forceinline__ void quad_max(float &x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
template <class T> __device__ __forceinline__ void quad_add(T &x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    x += __shfl_xor_sync(~0u, x, 2);
}
/* Over the lanes of a warp: the same bits in all. */
__device__ __forceinline__ float warp_add(float x)
{
    for (int m = 1; m < 32; m *= 2)
        x += __shfl_xor_sync(~0u, x, m);
    return x;
}

/* ------------------------------------------------------------------------------------------- clusters ---- */

/* Waits for all threads of the cluster. In code for older GPUs a CTA is a cluster of its own. */
__device__ __forceinline__ void cluster_sync()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
#else
    __syncthreads();
#endif
}
/* 16 bytes in the shared memory of the cluster's CTA `rank`, at this CTA's address of them. */
__device__ __forceinline__ float4 cluster_lds128(const float *p, int rank)
{
#if __CUDA_ARCH__ >= 900
    uint32_t addr;
    float4 v;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(addr) : "r"(smem_addr(p)), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(addr)
                 : "memory");
    return v;
#else
    return *(const float4 *)p;
#endif
}

/* ------------------------------------------------------------------------------------------ mbarriers ---- */

__device__ __forceinline__ void mbar_init(uint32_t bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
__device__ __forceinline__ void mbar_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* After all lanes of a warp have read what the barrier guards: one lane arrives for the warp. */
__device__ __forceinline__ void release(int lane, uint32_t bar)
{
    if (lane == 0)
        mbar_arrive(bar);
}
__device__ __forceinline__ void mbar_arrive_expect(uint32_t bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
/* Waits until the phase of the given parity has completed. */
__device__ __forceinline__ void mbar_wait(uint32_t bar, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra finished;\n"
                 "bra again;\n"
                 "finished:\n"
                 "}" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}

/* ------------------------------------------------------------------------ bulk tensor copies and proxies ---- */

__device__ __forceinline__ void tma_prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/* Coordinates, innermost first: element in the 64-wide column group, token, column group, head, sequence or page. */
__device__ __forceinline__ void tma_load(uint32_t dst, const CUtensorMap *map, uint32_t bar, int c0, int c1, int c2,
                                         int c3, int c4)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(dst),
                 "l"(map), "r"(bar), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
                 : "memory");
}
/* bytes, a multiple of 16, of global to shared memory; the barrier is told so many. */
__device__ __forceinline__ void bulk_copy(uint32_t to, const void *from, int bytes, uint32_t bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(bar)
                 : "memory");
}
__device__ __forceinline__ void prefetch_l2(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}
/* Orders this thread's ordinary shared-memory accesses before later ones of the tensor cores and the copy engine. */
__device__ __forceinline__ void fence_async_proxy()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---------------------------------------------------------------- named barriers, registers of a warpgroup ---- */

/* Waits for so many threads; returns whether any of them came with true. */
__device__ __forceinline__ bool bar_any(int id, int threads, bool x)
{
    int any;
    asm volatile("{\n.reg .pred p, q;\nsetp.ne.b32 p, %3, 0;\n"
                 "barrier.cta.red.or.pred q, %1, %2, p;\nselp.s32 %0, 1, 0, q;\n}"
                 : "=r"(any)
                 : "r"(id), "r"(threads), "r"((int)x)
                 : "memory");
    return any;
}
template <int N> __device__ __forceinline__ void regs_grow()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void regs_shrink()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

__device__ __forceinline__ void stmatrix4(uint32_t addr, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(addr), "r"(a), "r"(b), "r"(c),
                 "r"(d)
                 : "memory");
}
__device__ __forceinline__ uint4 lds128(uint32_t addr)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(addr));
    return v;
}
__device__ __forceinline__ void sts128(uint32_t addr, uint4 v)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(addr), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

__device__ __forceinline__ float2 lds_float2(uint32_t addr)
{
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(addr));
    return v;
}
__device__ __forceinline__ void sts32(uint32_t addr, uint32_t x)
{
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(addr), "r"(x) : "memory");
}
/* Nobody waits for it, as the compiler makes of atomicOr() in a loop. */
__device__ __forceinline__ void global_or(uint32_t *to, uint32_t x)
{
    asm volatile("red.global.or.b32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}
__device__ __forceinline__ void smem_add(uint32_t addr, uint32_t x)
{
    asm volatile("red.shared.add.u32 [%0], %1;" ::"r"(addr), "r"(x) : "memory");
}

/* ------------------------------------------------------------------------------- warpgroup matrix products ---- */

__device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* Tells the compiler that the registers change here, so that it moves no use of them across. */
template <int N> __device__ __forceinline__ void wgmma_hold(float (&r)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(r[i]));
}
template <int N> __device__ __forceinline__ void wgmma_hold(uint32_t (&r)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+r"(r[i]));
}

/* Of a tile whose rows are D = 64 or 128 bytes, swizzled over as many, groups of 8 rows one behind the other. */
template <int D> __device__ __forceinline__ uint64_t wgmma_desc8(uint32_t addr)
{
    static_assert(D == 64 || D == 128, "a swizzle");
    return (uint64_t)((addr & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(8 * D >> 4) << 32 |
           (uint64_t)(D == 128 ? 1 : 2) << 62;
}
/*
 * Matrix descriptor of a tile whose rows are 128 bytes, swizzled over 128 bytes, groups of 8 rows 1024 bytes apart.
 * group_bytes: distance between 64-column groups, used only where the columns are the outer (N) direction.
 */
__device__ __forceinline__ uint64_t wgmma_desc(uint32_t addr, uint32_t group_bytes)
{
    return (uint64_t)((addr & 0x3ffff) >> 4) | (uint64_t)(group_bytes >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}

#define PRISM_ACC8(a, i)                                                                                               \
    "+f"(a[i]), "+f"(a[i + 1]), "+f"(a[i + 2]), "+f"(a[i + 3]), "+f"(a[i + 4]), "+f"(a[i + 5]), "+f"(a[i + 6]),        \
        "+f"(a[i + 7])
#define PRISM_ACC32(a) PRISM_ACC8(a, 0), PRISM_ACC8(a, 8), PRISM_ACC8(a, 16), PRISM_ACC8(a, 24)
#define PRISM_ACC64(a) PRISM_ACC32(a), PRISM_ACC8(a, 32), PRISM_ACC8(a, 40), PRISM_ACC8(a, 48), PRISM_ACC8(a, 56)
#define PRISM_REG32                                                                                                    \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"   \
    "%30,%31"
#define PRISM_REG64                                                                                                    \
    PRISM_REG32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,"    \
                "%56,%57,%58,%59,%60,%61,%62,%63"

/* acc[64 x N] (+)= A[64 x 16] B[N x 16]^T, both from shared memory, 16 contiguous. */
#define PRISM_WGMMA_SS128(TYPE)                                                                                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                                          \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" PRISM_REG64                         \
                 "}, %64, %65, p, 1, 1, 0, 0;\n}"                                                                      \
                 : PRISM_ACC64(acc)                                                                                    \
                 : "l"(a), "l"(b), "r"(add))
#define PRISM_WGMMA_SS64(TYPE)                                                                                         \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                                          \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" PRISM_REG32                          \
                 "}, %32, %33, p, 1, 1, 0, 0;\n}"                                                                      \
                 : PRISM_ACC32(acc)                                                                                    \
                 : "l"(a), "l"(b), "r"(add))
/* acc[64 x N] (+)= A[64 x 16] (registers) B[16 x N] (shared memory, N contiguous). */
#define PRISM_WGMMA_RS128(TYPE)                                                                                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"                                                          \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" PRISM_REG64                         \
                 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"                                                        \
                 : PRISM_ACC64(acc)                                                                                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
#define PRISM_WGMMA_RS64(TYPE)                                                                                         \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                                          \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" PRISM_REG32                          \
                 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"                                                        \
                 : PRISM_ACC32(acc)                                                                                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))

/* The same in e4m3, 32 at a time, B from shared memory, 32 contiguous. */
__device__ __forceinline__ void wgmma_ss_e4m3(float (&acc)[64], uint64_t a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" PRISM_REG64 "}, %64, %65, p, 1, 1;\n}"
                 : PRISM_ACC64(acc)
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_rs_e4m3(float (&acc)[64], const uint32_t *a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" PRISM_REG64
                 "}, {%64, %65, %66, %67}, %68, p, 1, 1;\n}"
                 : PRISM_ACC64(acc)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_rs_e4m3(float (&acc)[32], const uint32_t *a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" PRISM_REG32
                 "}, {%32, %33, %34, %35}, %36, p, 1, 1;\n}"
                 : PRISM_ACC32(acc)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

template <class T> struct wgmma_ss;
template <> struct wgmma_ss<__nv_bfloat16> {
    static __device__ __forceinline__ void go(float (&acc)[64], uint64_t a, uint64_t b, int add)
    {
        PRISM_WGMMA_SS128("bf16");
    }
    static __device__ __forceinline__ void go(float (&acc)[32], uint64_t a, uint64_t b, int add)
    {
        PRISM_WGMMA_SS64("bf16");
    }
};
template <> struct wgmma_ss<__half> {
    static __device__ __forceinline__ void go(float (&acc)[64], uint64_t a, uint64_t b, int add)
    {
        PRISM_WGMMA_SS128("f16");
    }
    static __device__ __forceinline__ void go(float (&acc)[32], uint64_t a, uint64_t b, int add)
    {
        PRISM_WGMMA_SS64("f16");
    }
};

template <class T> struct wgmma_rs;
template <> struct wgmma_rs<__nv_bfloat16> {
    static __device__ __forceinline__ void go(float (&acc)[64], const uint32_t *a, uint64_t b, int add)
    {
        PRISM_WGMMA_RS128("bf16");
    }
    static __device__ __forceinline__ void go(float (&acc)[32], const uint32_t *a, uint64_t b, int add)
    {
        PRISM_WGMMA_RS64("bf16");
    }
};
template <> struct wgmma_rs<__half> {
    static __device__ __forceinline__ void go(float (&acc)[64], const uint32_t *a, uint64_t b, int add)
    {
        PRISM_WGMMA_RS128("f16");
    }
    static __device__ __forceinline__ void go(float (&acc)[32], const uint32_t *a, uint64_t b, int add)
    {
        PRISM_WGMMA_RS64("f16");
    }
};

/* acc[64 x 64] (+)= a[64 x 16] (registers) b[64 x 16]^T (shared memory, 16 contiguous), f16. */
__device__ __forceinline__ void wgmma_tile(float (&acc)[32], const uint32_t *a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" PRISM_REG32
                 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
                 : PRISM_ACC32(acc)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
/* The same in all lanes, and the compiler told so: descriptors are made in uniform registers. */
__device__ __forceinline__ uint32_t uniform(uint32_t x)
{
    return __shfl_sync(~0u, x, 0);
}
/* The tile so many bytes behind another. No carry: shared memory ends before 16 bits of low word do. */
__device__ __forceinline__ uint64_t desc_behind(uint64_t desc, int bytes)
{
    return (desc & ~(uint64_t)~0u) | ((uint32_t)desc + bytes / 16);
}

/* ------------------------------------------------------------------------- copies and products of one warp ---- */

/* 16 or 4 bytes of global memory to shared memory, on their way; zeros where nothing is. */
__device__ __forceinline__ void cp_async16(uint32_t to, const void *from, bool there = true)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void cp_async4(uint32_t to, const void *from, bool there = true)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(there ? 4 : 0) : "memory");
}
__device__ __forceinline__ void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until all but the last N groups of this thread have arrived. */
template <int N> __device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
/* Four 8 x 8 matrices of 16 bits, _t: transposed; lane l gives the address of row l % 8 of matrix l / 8. */
#define PRISM_LDMATRIX(TRANS)                                                                                          \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" TRANS ".shared.b16 {%0,%1,%2,%3}, [%4];"                              \
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])                                                      \
                 : "r"(addr)                                                                                           \
                 : "memory")
__device__ __forceinline__ void ldmatrix4(uint32_t (&m)[4], uint32_t addr)
{
    PRISM_LDMATRIX("");
}
__device__ __forceinline__ void ldmatrix4_t(uint32_t (&m)[4], uint32_t addr)
{
    PRISM_LDMATRIX(".trans");
}
/* c[16 x 8] += a[16 x 16] b[16 x 8], by one warp. */
#define PRISM_WARP_MMA(TYPE)                                                                                           \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, " \
                 "{%0,%1,%2,%3};"                                                                                      \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <class T> __device__ __forceinline__ void warp_mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1)
{
    if constexpr (std::is_same<T, __half>::value)
        PRISM_WARP_MMA("f16");
    else
        PRISM_WARP_MMA("bf16");
}

} // namespace prism
#endif
