/* Layout of shared memory, and what the warps of attend_fp8.cu agree on. */
#ifndef PRISM_CUDA_ATTEND_FP8_LAYOUT_CUH
#define PRISM_CUDA_ATTEND_FP8_LAYOUT_CUH

#include "cuda/attend/attend_sm90_layout.cuh"
#include "cuda/attend/fp8.cuh"

namespace prism
{

struct Params8 {
    Job j;
    Image8 image;
};

/* A row as the consumers see it, beside its Q tile. */
struct Slot8 {
    RowInfo info;
    Row w;
    float scale[kBlock8]; /* of each query's scores, in units of log2, without the keys' */
};

/* Tiles of 128 rows: Q [128][D], K [128][D], V [D][128], bytes. A stage of the ring is a tile of K and the tile of V
 * before it, which the consumers need together. */
template <int D> struct Layout8 {
    static_assert(D == 64 || D == 128, "rows of a tile are swizzled over their D bytes");
    static constexpr int kB = kBlock8, kConsumers = 2, kThreads = 128 * (1 + kConsumers);
    static constexpr int kRegs = 216, kOtherRegs = 72, kQueryThreads = 64;
    static constexpr int kStage = 4;
    static constexpr uint32_t kTile = kBlock8 * D;
    static constexpr uint32_t kQ = 0, kK = 2 * kTile, kV = kK + kStage * kTile, kSum = kV + kStage * kTile;
    static constexpr uint32_t kWarpSum = 16 * D * 4; /* O of a warp in f32; results pass through it too */
    static constexpr uint32_t kScale = kSum + 8 * kWarpSum, kSlot = kScale + kStage * sizeof(BlockScale);
    static constexpr uint32_t kFound = kSlot + 2 * sizeof(Slot8), kBars = kFound + 2 * sizeof(Found);
    static constexpr uint32_t kFullRow = kBars, kNextRow = kFullRow + 16, kFullQ = kNextRow + 8, kEmptyQ = kFullQ + 16,
                              kFull = kEmptyQ + 16, kEmpty = kFull + 8 * kStage, kBytes = kEmpty + 8 * kStage;
    static_assert(kBytes <= 227 * 1024, "shared memory of a CTA");
};

} // namespace prism
#endif
