/* Layout of shared memory, and what the warps of attend_sm90.cu agree on. */
#ifndef PRISM_CUDA_ATTEND_SM90_LAYOUT_CUH
#define PRISM_CUDA_ATTEND_SM90_LAYOUT_CUH

#include "cuda/attend/attend.cuh"

namespace prism
{

/* What a consumer must know of a row; beside the row's Q tile. */
struct RowInfo {
    int32_t n_tile;            /* 0: no more rows */
    int32_t diagonal;          /* the first tile is the row's own: mask it */
    int32_t n_key_tile;        /* keys that exist in the first tile */
    int32_t lo, hi;            /* local rows that hold queries */
    int32_t slot, lead;        /* as in Row */
    int32_t seq, kv_head, key; /* first key of the first tile */
    int64_t o, lse;            /* element offsets of local row 0 */
    int64_t bad;               /* from the guard: the first tile of V holds what is not finite */
};

/* A row as the scout found it. */
struct Found {
    RowInfo info;
    Row w;
    int32_t index[32]; /* the first key tiles */
};

/* B: tokens of a query tile and of a key tile. Tiles are [d / 64][B rows][64] with 128-byte swizzle, as one bulk copy
 * writes them. */
template <int D, int B> struct Layout {
    static_assert(D % 64 == 0 && D <= 256, "tiles are column groups of 64; one product has at most 256 columns");
    static_assert(B == 64 || B == 128, "a warpgroup computes 64 rows; two of them share a tile of 128");
    static constexpr int kB = B, kConsumers = B / 64, kThreads = 128 * (1 + kConsumers);
    static constexpr int kPerSm = B == 64 && D <= 128 ? 2 : 1;                    /* CTAs */
    static constexpr int kRegs = kPerSm == 2 ? 216 : kConsumers == 2 ? 232 : 240; /* of a consumer; 40 of the others */
    static constexpr int kStage = D * B <= 64 * 128 ? 4 : 2;
    static constexpr uint32_t kGroup = B * 128, kTile = B * D * 2; /* bytes of 64 columns, of all */
    static constexpr uint32_t kQ = 0, kK = 2 * kTile, kV = kK + kStage * kTile, kInfo = kV + kStage * kTile;
    static constexpr uint32_t kFound = kInfo + 2 * sizeof(RowInfo), kBars = kFound + 2 * sizeof(Found);
    static constexpr uint32_t kFullRow = kBars, kNextRow = kFullRow + 16, kFullQ = kNextRow + 8, kEmptyQ = kFullQ + 16,
                              kFirstV = kEmptyQ + 16, kFullK = kFirstV + 16;
    static constexpr uint32_t kEmptyK = kFullK + 8 * kStage, kFullV = kEmptyK + 8 * kStage;
    static constexpr uint32_t kEmptyV = kFullV + 8 * kStage, kBytes = kEmptyV + 8 * kStage;
    static_assert(kBytes <= 227 * 1024, "shared memory of a CTA");
};

/* Position in a ring of N slots. */
template <int N> struct Ring {
    int slot = 0, phase = 0;
    __device__ __forceinline__ void next()
    {
        if (++slot == N)
            slot = 0, phase ^= 1;
    }
};

struct Params {
    Job j;
    int32_t box; /* tokens per K, V copy */
};

} // namespace prism
#endif
