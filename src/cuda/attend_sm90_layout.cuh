/* Layout of shared memory, and what producer and consumers of attend_sm90.cu agree on. */
#ifndef PRISM_CUDA_ATTEND_SM90_LAYOUT_CUH
#define PRISM_CUDA_ATTEND_SM90_LAYOUT_CUH

#include "cuda/attend.cuh"
#include "cuda/ptx.cuh"

namespace prism
{

constexpr int kConsumers = 2, kThreads = 128 * (1 + kConsumers);

/* What a consumer must know of a row; written by the producer beside the row's Q tile. */
struct RowInfo {
    int32_t n_tile;     /* 0: no more rows */
    int32_t diagonal;   /* the first tile is the row's own block: mask it */
    int32_t n_key_tile; /* keys that exist in the first tile, 128 unless ones beyond the end must be cleared */
    int32_t lo, hi;     /* local rows that hold queries */
    int32_t pad;
    int64_t o, lse; /* element offsets of local row 0 */
};

/* Tiles are [d / 64][128 rows][64] with 128-byte swizzle, as one bulk copy writes them. */
template <int D> struct Layout {
    static constexpr int kStage = D == 128 ? 2 : 4;
    static constexpr uint32_t kTile = kBlock * D * 2;
    static constexpr uint32_t kQ = 0, kK = 2 * kTile, kV = kK + kStage * kTile, kInfo = kV + kStage * kTile;
    static constexpr uint32_t kBars = kInfo + 2 * sizeof(RowInfo);
    static constexpr uint32_t kFullQ = kBars, kEmptyQ = kFullQ + 16, kFullK = kEmptyQ + 16;
    static constexpr uint32_t kEmptyK = kFullK + 8 * kStage, kFullV = kEmptyK + 8 * kStage;
    static constexpr uint32_t kEmptyV = kFullV + 8 * kStage, kBytes = kEmptyV + 8 * kStage;
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
    prism_cu_attend a;
    int32_t n_item, box; /* rows of the plan; tokens per K, V copy */
    float scale_log2;
};

} // namespace prism
#endif
