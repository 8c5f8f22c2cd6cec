/*
 * prism_attn/prism.h - block-sparse attention for the prefill of long prompts.
 *
 * The method is "Prism: Spectral-Aware Block-Sparse Attention" (arXiv 2602.08426). The caller gives queries and keys
 * after RoPE, and values. The library chooses blocks of keys and computes exact attention over these blocks:
 *
 *   Q [n_q][n_head][d]  K,V [n_kv][n_kv_head][d]
 *    -> pool    mean of every block of queries and of keys
 *    -> score   block-pair logits, in a high- and a low-frequency band
 *    -> select  for each query block, the key blocks that hold top_p of the mass in either band     = the plan
 *    -> attend  exact attention over the planned blocks                                             -> O
 *
 * Three doors, in order of power:
 *   1. prism_attention()                          Q, K, V -> O
 *   2. prism_plan_build(), prism_attend()         look at the plan, keep it, reuse it, bring your own
 *   3. prism_pool_append(), prism_call.pooled     engines that prefill in chunks and keep pooled keys
 *
 * Conventions
 *   - Every function that can fail returns a prism_status. After any status but PRISM_OK nothing was computed, outputs
 *     are untouched, and prism_last_error() has a sentence for a person if the function was given a context.
 *   - Structs that may grow start with struct_size and have an _init function: call it, then set fields.
 *   - Only the _create functions allocate. All other memory is the caller's: the workspace, the pooled keys.
 *   - Sizes and strides are in elements unless the name ends in _bytes. Counts of tokens and blocks are int32_t.
 *   - Positions are absolute: query row i of a sequence stands at position q_start + i and sees keys 0 .. q_start + i.
 *     Blocks lie on the absolute grid: block b holds positions [b * block_size, (b + 1) * block_size).
 *   - The library never prints, never aborts, has no global mutable state, and reads one environment variable:
 *     PRISM_ISA (c, avx2, avx512, avx512bf16, amx, neon, neonbf16) caps the CPU kernels that prism_create() may choose.
 */
#ifndef PRISM_ATTN_PRISM_H
#define PRISM_ATTN_PRISM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define PRISM_API
#else
#define PRISM_API __attribute__((visibility("default")))
#endif

#define PRISM_VERSION_MAJOR 0
#define PRISM_VERSION_MINOR 1
#define PRISM_VERSION_PATCH 0

/* ------------------------------------------------------------------------------------------------ status ---- */

/* Values are frozen. */
typedef enum prism_status {
    PRISM_OK = 0,
    PRISM_ERROR_INVALID = 1,     /* an argument is NULL, out of range, or contradicts another */
    PRISM_ERROR_UNSUPPORTED = 2, /* well formed, but not something this library computes */
    PRISM_ERROR_MEMORY = 3,      /* an allocation failed (create functions only) */
    PRISM_ERROR_WORKSPACE = 4,   /* workspace smaller than prism_workspace_bytes() or misaligned */
    PRISM_ERROR_CAPACITY = 5,    /* the plan or the pooled keys have no room for this call */
    PRISM_ERROR_DEVICE = 6       /* the device is absent or failed */
} prism_status;

/* Returns "PRISM_ERROR_INVALID" for PRISM_ERROR_INVALID; never NULL. */
PRISM_API const char *prism_status_name(prism_status status);

/* Returns "0.1.0". */
PRISM_API const char *prism_version(void);

/* ----------------------------------------------------------------------------------------------- context ---- */

/* Values are frozen. */
typedef enum prism_device {
    PRISM_DEVICE_CPU = 0,
    PRISM_DEVICE_CUDA = 1 /* an NVIDIA GPU: see prism_cuda.h */
} prism_device;

/* Tiers of CPU kernels, in climbing order for each architecture. A machine that runs one tier runs every lower tier of
 * its architecture. */
typedef enum prism_isa {
    PRISM_ISA_AUTO = 0,
    PRISM_ISA_C = 1,
    PRISM_ISA_AVX2 = 2,       /* x86-64 with AVX2, FMA and F16C */
    PRISM_ISA_AVX512 = 3,     /* AVX-512 F, BW, DQ, VL */
    PRISM_ISA_AVX512BF16 = 4, /* + dot products of bfloat16, used in calls whose q, k, v and o are all BF16 */
    PRISM_ISA_AMX = 5,        /* + products of bfloat16 tiles (AMX-BF16), used in the same calls */
    PRISM_ISA_NEON = 6,       /* AArch64 */
    PRISM_ISA_NEONBF16 = 7,   /* + dot products of bfloat16, used in the same calls */
    PRISM_N_ISA               /* not a tier: one past the last */
} prism_isa;

/* Returns "avx512" for PRISM_ISA_AVX512; NULL for a tier that this build does not have. */
PRISM_API const char *prism_isa_name(prism_isa isa);

typedef struct prism_config {
    size_t struct_size;
    prism_device device;
    int32_t n_thread; /* 0: what OpenMP gives: OMP_NUM_THREADS, else all processors this process may use */
    prism_isa isa;    /* PRISM_ISA_AUTO: the best tier of this machine. A tier that it cannot run is refused */
    int32_t ordinal;  /* number of the GPU, with PRISM_DEVICE_CUDA */
} prism_config;

/* A device, its kernels and its threads. One thread at a time may use a context; different contexts are independent.
 * In a child of fork() a context of the CPU works with one thread, since fork() copies no threads. */
typedef struct prism_ctx prism_ctx;

PRISM_API void prism_config_init(prism_config *config);

/* Creates a context. config NULL: defaults. The caller owns *out and ends it with prism_destroy(); *out is NULL on
 * failure. DEVICE: the tier or the GPU cannot be used; prism_cuda_describe() says why a GPU cannot. */
PRISM_API prism_status prism_create(const prism_config *config, prism_ctx **out);
PRISM_API void prism_destroy(prism_ctx *ctx); /* NULL is allowed */

/* Returns the sentence about the last call on ctx that failed; "" if none did. Valid until the next call on ctx. */
PRISM_API const char *prism_last_error(const prism_ctx *ctx);

typedef enum prism_dtype {
    PRISM_F32 = 0,
    PRISM_F16 = 1,
    PRISM_BF16 = 2,
    /* Quantised caches in GGUF's format: 32 elements are a float16 factor and 32 signed bytes, together 34 bytes. For k
     * and v, on the CPU. d_head and all strides (in elements) are multiples of 32; stride_dim is 1. */
    PRISM_Q8_0 = 3
} prism_dtype;

PRISM_API size_t prism_dtype_bytes(prism_dtype dtype); /* Returns bytes of one element; 0: PRISM_Q8_0, unknown */

typedef struct prism_info {
    size_t struct_size;
    prism_device device;
    prism_isa isa; /* the tier in use */
    int32_t n_thread;
    const char *isa_name;     /* "avx512" */
    const char *cpu_features; /* "avx2 avx512 avx512bf16": the tiers that this machine runs beside c; owned by ctx */
    int32_t ordinal;          /* number of the GPU, as in prism_config */
    int32_t min_tokens;       /* the default of prism_options.min_tokens here: sequences with fewer keys are dense */
    prism_dtype fast_type;    /* attention is fastest where q, k, v and o all have this type: PRISM_BF16 in tiers with
                                 dot products of bfloat16, PRISM_F16 on a GPU, else PRISM_F32 */
} prism_info;

/* Fills *info. The caller sets info->struct_size = sizeof *info. */
PRISM_API prism_status prism_get_info(const prism_ctx *ctx, prism_info *info);

/* ----------------------------------------------------------------------------------------------- tensors ---- */

/*
 * A view of one tensor of a call: element (sequence s, token t, head h, dimension j). The caller owns the data.
 * Contiguous or padded:  data[s * stride_seq + t * stride_token + h * stride_head + j * stride_dim]
 * Ragged:                the same, with row_start[s] * stride_token instead of s * stride_seq
 * Paged:                 page = page_table[s * stride_table + t / page_size];
 *                        data[page * stride_page + (t % page_size) * stride_token + h * stride_head + j * stride_dim]
 *                        (page_size 1: the page table is a gather index; every page id must lie in 0 .. n_page - 1)
 * All strides are at least 0. Every element that the call addresses must exist; a call checks this if n_element is set.
 */
typedef struct prism_tensor {
    void *data;
    prism_dtype dtype;
    int64_t stride_seq, stride_token, stride_head, stride_dim;
    const int32_t *row_start;  /* [n_seq] or NULL */
    const int32_t *page_table; /* [n_seq][stride_table] or NULL */
    int64_t stride_table, stride_page;
    int32_t page_size, n_page;
    int64_t n_element; /* elements that exist from data on; 0: unknown, not checked */
} prism_tensor;

/* Return contiguous views. token_major: [n_token][n_head][d]; head_major: [n_head][n_token][d]. Sequences follow each
 * other. */
PRISM_API prism_tensor prism_tensor_token_major(void *data, prism_dtype dtype, int64_t n_token, int64_t n_head,
                                                int64_t d);
PRISM_API prism_tensor prism_tensor_head_major(void *data, prism_dtype dtype, int64_t n_token, int64_t n_head,
                                               int64_t d);

/*
 * Makes a view of a DLPack DLTensor (the struct, not the managed one) with 3 or 4 axes. order names the axes, in any
 * arrangement: 'n' (token), 'h' (head), 'd' (dimension) and, with 4 axes, 'b' (sequence): "nhd", "hnd", "bhnd".
 * The view borrows the data of dl_tensor. INVALID: malformed input. UNSUPPORTED: another dtype or device, or a negative
 * stride.
 */
PRISM_API prism_status prism_tensor_from_dlpack(const void *dl_tensor, const char *order, prism_tensor *out);

/* ----------------------------------------------------------------------------------- rotary frequencies ---- */

#define PRISM_MAX_D_HEAD 256

typedef enum prism_rope_layout {
    PRISM_ROPE_HALF_SPLIT = 0, /* pair j = dimensions j and j + n_dim / 2 (GPT-NeoX, Llama in transformers, Qwen) */
    PRISM_ROPE_INTERLEAVED = 1 /* pair j = dimensions 2j and 2j + 1       (GPT-J, GLM, Llama in GGUF) */
} prism_rope_layout;

/*
 * How a head's dimensions turn with the position. Each rotated pair has two dimensions and an angular frequency
 * (radians per token, after any scaling). Dimensions in no pair do not turn. Pairs stand in the order of the model's
 * frequency index. This is plain data: fill it by hand where no helper fits.
 */
typedef struct prism_rope {
    int32_t d_head, n_pair;
    int16_t dim[PRISM_MAX_D_HEAD / 2][2];
    double frequency[PRISM_MAX_D_HEAD / 2];
} prism_rope;

PRISM_API prism_status prism_rope_init(prism_rope *rope, int32_t d_head); /* no pair: nothing turns */

/* Adds n_dim / 2 pairs on dimensions first_dim .. first_dim + n_dim - 1; pair j has frequency base^(-2j / n_dim). One
 * call makes a full or a partial rotation. Where each axis has its own dimensions and frequencies, call once for
 * each. */
PRISM_API prism_status prism_rope_add(prism_rope *rope, prism_rope_layout layout, int32_t first_dim, int32_t n_dim,
                                      double base);

/* Scalings change every pair that was added before. */
PRISM_API prism_status prism_rope_scale_linear(prism_rope *rope, double factor);
/* YaRN (arXiv 2309.00071): a linear ramp over the pair index, between the pair that turns beta_fast times in
 * n_ctx_original tokens and the pair that turns beta_slow times. beta_fast must be the larger. truncate rounds these
 * two indices outwards, as transformers does by default. */
PRISM_API prism_status prism_rope_scale_yarn(prism_rope *rope, double base, double factor, double n_ctx_original,
                                             double beta_fast, double beta_slow, int truncate);
/* Llama 3.1: by wavelength, with low_freq_factor, high_freq_factor and the original context length. */
PRISM_API prism_status prism_rope_scale_llama3(prism_rope *rope, double factor, double low_freq_factor,
                                               double high_freq_factor, double n_ctx_original);
/* LongRoPE's short or long factors, or a GGUF rope_freqs tensor: frequency[j] /= factor[j]. n_factor must be n_pair. */
PRISM_API prism_status prism_rope_scale_factors(prism_rope *rope, const float *factor, int32_t n_factor);
/*
 * Several axes that share one list of frequencies (Qwen2.5-VL, Qwen3-VL): pair j turns with coordinate axis_of_pair[j].
 * A coordinate advances by advance[axis] per token on average: 1 for every axis in text, less for frames, rows and
 * columns of an image.
 */
PRISM_API prism_status prism_rope_set_axes(prism_rope *rope, const int32_t *axis_of_pair, int32_t n_pair,
                                           const double *advance, int32_t n_axis);

/* The two bands of a head: ascending lists of dimensions. The bands may overlap. */
typedef struct prism_bands {
    int32_t d_head, n_high, n_low;
    int16_t high[PRISM_MAX_D_HEAD], low[PRISM_MAX_D_HEAD];
} prism_bands;

/* Puts the n_high dimensions that turn fastest and the n_low that turn slowest into the bands. INVALID where a band
 * would hold half of a pair. Equal frequencies keep the order of the pairs. The paper's setting is 64 and 96 for d_head
 * 128. */
PRISM_API prism_status prism_bands_split(prism_bands *bands, const prism_rope *rope, int32_t n_high, int32_t n_low);

/* Chooses both sizes from the attenuation that averaging over block_size positions causes at each frequency. The result
 * is 64 and 96 for d_head 128, bases 5e5 and 1e6, and blocks of 128. See docs/algorithm.md, "Automatic split". */
PRISM_API prism_status prism_bands_auto(prism_bands *bands, const prism_rope *rope, int32_t block_size);

/* ----------------------------------------------------------------------------------------------- options ---- */

/* Values are frozen. */
typedef enum prism_method {
    PRISM_METHOD_PRISM = 0,    /* the paper: two bands, calibrated */
    PRISM_METHOD_DENSE = 1,    /* full attention: the plan lists every causal block */
    PRISM_METHOD_MEANPOOL = 2, /* one band of all dimensions, uncalibrated: what the paper improves on */
    /* Rivals, built from their papers and code. docs/methods.md has sources, parameters and differences. */
    PRISM_METHOD_MINFERENCE = 3,   /* vertical and slash lines found by the last queries; lists single keys too */
    PRISM_METHOD_FLEXPREFILL = 4,  /* lines of blocks, with a budget that reaches a mass; pooled scores in some heads */
    PRISM_METHOD_XATTENTION = 5,   /* antidiagonal sums of strided queries and keys */
    PRISM_METHOD_FLASHPREFILL = 6, /* query tokens against block means of keys, relative threshold */
    /* Past the paper (docs/moments.md): query tokens against mean and variance of a block's keys. A row keeps the
     * blocks that moments describe badly; the others contribute through their moments. */
    PRISM_METHOD_MOMENTS = 7
} prism_method;

/* What a block that a row does not list contributes to the row's softmax. For every method that lists whole blocks
 * only. Values are frozen. */
typedef enum prism_correction {
    PRISM_CORRECTION_DEFAULT = 0, /* MOMENTS with method moments, else NONE */
    PRISM_CORRECTION_NONE = 1,    /* nothing */
    PRISM_CORRECTION_MEAN = 2,    /* the block's mean value, with the weight of its mean key */
    PRISM_CORRECTION_MOMENTS = 3  /* the block's mean value and a part linear in the query, with the weight that mean and
                                     variance of its keys give */
} prism_correction;

/* The precision of attention's products: queries times keys, and weights times values. Values are frozen. */
typedef enum prism_precision {
    PRISM_PRECISION_DEFAULT = 0, /* 16 bits on tensor cores; on the CPU bfloat16 or float32, see prism_isa */
    PRISM_PRECISION_FP8 = 1      /* e4m3, 4 significant bits, on an H100 or H200: faster and less exact (docs/cuda.md).
                                    Refused elsewhere, and for shapes that its kernel does not take */
} prism_precision;

typedef enum prism_calibration {
    PRISM_CALIBRATION_GLOBAL = 0, /* band energies over all blocks of the call, as in the paper */
    PRISM_CALIBRATION_CAUSAL = 1  /* default: band energies over the row's queries and the key blocks up to its own. The
                                     plan of a row then does not depend on how the prompt was cut into block-aligned
                                     chunks. Accuracy and density are those of global (docs/eval.md) */
} prism_calibration;

/*
 * How a call chooses its blocks. prism_option_at() gives each option's meaning, default and range. prism_method_uses()
 * tells which options a method reads.
 */
typedef struct prism_options {
    size_t struct_size;
    prism_method method; /* prism_options_init(): PRISM_METHOD_PRISM */
    prism_calibration calibration;
    int32_t block_size; /* 64 or 128 */
    float top_p;        /* (0, 1] */
    float top_p_high;   /* each band's own threshold; 0: top_p */
    float top_p_low;
    int32_t keep_sink;        /* method moments ignores it when it corrects: its single keys hold the sink then */
    int32_t keep_own;
    int32_t min_tokens;       /* -1: prism_info.min_tokens */
    const prism_bands *bands; /* method prism requires them; borrowed for the call */
    /* The rivals' parameters. The defaults are those of each rival's authors. Budgets count keys. */
    int32_t minference_vertical;
    int32_t minference_slash;
    float minference_budget;
    float flex_gamma;
    float flex_tau;
    int32_t flex_min_budget;
    int32_t flex_max_budget;
    int32_t xattn_stride;
    float xattn_threshold;
    float flash_alpha;
    int32_t flash_sink;
    int32_t flash_window;
    int32_t flash_last;
    prism_correction correct;
    float moments_error; /* the error of pruned blocks that a row allows (docs/moments.md, "Select") */
    prism_precision precision; /* of attention over the plan, not of choosing or correcting; a plan keeps it */
} prism_options;

/* Sets every option to its default. */
PRISM_API void prism_options_init(prism_options *options);

/* Sets the field called name from the text value, e.g. "top_p" from "0.9": for command lines and other languages. K
 * behind a whole number counts 1024: "8K". INVALID: an unknown name, a value out of range, or one with a space or a + in
 * front; *options is then unchanged. */
PRISM_API prism_status prism_options_set(prism_options *options, const char *name, const char *value);

typedef enum prism_option_kind {
    PRISM_OPTION_INT = 0,
    PRISM_OPTION_FLOAT = 1,
    PRISM_OPTION_NAME = 2 /* an int32_t whose values have names */
} prism_option_kind;

typedef struct prism_option_info {
    size_t struct_size;
    const char *name, *text; /* the field's name; a phrase for people */
    prism_option_kind kind;
    double value, min, max;   /* value: the default. Values in [min, max] are accepted, except where text says more */
    const char *const *names; /* [n_name] kind NAME: value i is called names[i]. Other kinds: NULL */
    int32_t n_name;
} prism_option_info;

/* Describes option i = 0, 1, ...: the fields that prism_options_set() knows, except method and bands. The caller sets
 * info->struct_size. INVALID: i is past the last option. Strings are constants. */
PRISM_API prism_status prism_option_at(int32_t i, prism_option_info *info);

/* Returns "prism", "dense", ...; NULL for an unknown value. */
PRISM_API const char *prism_method_name(prism_method method);
/* Returns one sentence about the method; NULL for an unknown value. */
PRISM_API const char *prism_method_text(prism_method method);
/* Finds a method by its name. INVALID: no method has this name. */
PRISM_API prism_status prism_method_find(const char *name, prism_method *out);
/* Returns the number of methods: their values are 0 .. count - 1. */
PRISM_API int32_t prism_method_count(void);
/* Returns 1 if the option called name can change this method's plan or result, else 0. For "bands": 1 if the method
 * requires them. */
PRISM_API int32_t prism_method_uses(prism_method method, const char *name);

/* --------------------------------------------------------------------------------------------- the call ---- */

/*
 * Moments of whole blocks, for each KV head (docs/moments.md has the formulas). The queries of a KV head are the
 * queries of all its query heads.
 */
typedef struct prism_block_moments {
    float *key;       /* [block][n_kv_head][d_head]: mean key, tilted towards the mean query */
    float *variance;  /* [block][n_kv_head][(d_head + 7) / 8]: variance of the keys, mean over 8 dimensions */
    float *value;     /* [block][n_kv_head][d_head]: mean value, with the weights of the mean key */
    float *log_count; /* [block][n_kv_head]: logarithm of the number of keys that the means stand for */
    float *query_sum; /* [block][n_kv_head][d_head]: sum of sampled queries from position 0 to the block's end */
    int32_t *n_query; /* [block][n_kv_head]: how many queries are in query_sum */
    /* [slot][n_kv_head][d_head + 1][d_head]: covariances of values (rows) and keys (columns) inside blocks, and in the
     * last row the tilts' mean queries, summed over a slot's blocks. Slot 0 has block 0, slot j blocks 2^(j-1) .. 2^j - 1 */
    float *covariance;
} prism_block_moments;

/*
 * Pooled keys of one sequence: for each block and KV head the sum of its keys. Sums make appending exact. The memory is
 * the caller's: 1/block_size of a float32 key cache; with moments (method moments, corrections) 4.2 times as much and
 * d_head (d_head + 1) floats for each KV head and power of two of blocks.
 * To go back to fewer keys, set n_token to a multiple of block_size.
 */
typedef struct prism_pooled {
    size_t struct_size;
    int32_t n_kv_head, d_head, block_size;
    int32_t n_token; /* keys pooled so far */
    int32_t n_token_max;
    float *key_sum;              /* [block][n_kv_head][d_head] */
    prism_block_moments moments; /* all NULL: the state keeps no moments */
} prism_pooled;

/*
 * Gives the bytes of such a state. The options give block_size and decide whether the state keeps moments: it does
 * where the method or the correction needs them. Pooling of moments reads values too: call->v must hold every token
 * whose key the state lacks. If an earlier call began a block, the call that completes it reads the block's keys and
 * values from the block's start. INVALID: options or sizes out of range.
 */
PRISM_API prism_status prism_pooled_bytes(const prism_options *options, int32_t n_kv_head, int32_t d_head,
                                          int32_t n_token_max, size_t *bytes);
/* Makes an empty state in memory, which has at least prism_pooled_bytes() bytes, aligned to 64. The state borrows
 * memory until the caller stops using *pooled. CAPACITY: bytes is too small. */
PRISM_API prism_status prism_pooled_init(prism_pooled *pooled, const prism_options *options, int32_t n_kv_head,
                                         int32_t d_head, int32_t n_token_max, void *memory, size_t bytes);

/*
 * One call: n_seq independent sequences of one layer. n_q, n_kv and q_start hold for every sequence. Where the arrays
 * n_q_of, n_kv_of, q_start_of ([n_seq]) are given, they hold the lengths, and n_q and n_kv are upper bounds.
 */
typedef struct prism_call {
    size_t struct_size;
    int32_t n_seq, n_head, n_kv_head, d_head; /* n_head: a multiple of n_kv_head; d_head: 1 .. 256 */
    int32_t n_q, n_kv;                        /* queries of this call; keys that exist, prefix included */
    int32_t q_start;                          /* position of query 0; -1: n_kv - n_q. At most n_kv - n_q */
    const int32_t *n_q_of, *n_kv_of, *q_start_of;
    prism_tensor q, k, v; /* q: n_head heads; k, v: n_kv_head heads. v may be empty where only a plan is built */
    prism_tensor o;       /* output, shaped like q, any dtype. INVALID: o or lse overlaps an input or each other */
    prism_tensor lse;     /* natural log of the softmax denominator for each query and head, F32, stride_dim unused;
                             data NULL: not wanted */
    prism_pooled *pooled; /* [n_seq] or NULL: pooled keys that the caller keeps; calls append what they lack */
    float scale;          /* softmax scale; 0: 1 / sqrt(d_head) */
    /* Features that this library does not have: any value but 0 and NULL is refused. */
    float softcap;
    int32_t window;
    const float *alibi_slope, *sink_logit;
} prism_call;

PRISM_API void prism_call_init(prism_call *call);

/* Gives the bytes of workspace that prism_plan_build(), prism_attend() and prism_attention() need for this call: an
 * upper bound that depends on shapes and options, not on data. The workspace must be aligned to 64 bytes. On a GPU a
 * call of few queries may need more than a call of many, because its rows are split to fill the GPU: ask for each
 * shape. */
PRISM_API prism_status prism_workspace_bytes(prism_ctx *ctx, const prism_options *options, const prism_call *call,
                                             size_t *bytes);

/* Appends to call->pooled[s] the keys that it lacks, up to position q_start + n_q - 1. A state with moments also reads
 * call->v, and call->q if it is given. */
PRISM_API prism_status prism_pool_append(prism_ctx *ctx, const prism_call *call);

/* ------------------------------------------------------------------------------------------------- plans ---- */

/*
 * Which key blocks each query block reads: compressed rows, one for each (sequence, head, query block). Several threads
 * may read one plan at a time (functions that take it const). Building and fetching need the plan for one thread alone.
 */
typedef struct prism_plan prism_plan;

/*
 * Creates a plan with room for calls up to this shape and for densities up to max_density (0 or 1: any density). Single
 * keys need up to block_size times the memory of blocks. So address space is reserved for the most that a plan can
 * list; if the system refuses, for half of that, a quarter, and so on. Memory is used only for keys that a plan lists.
 */
PRISM_API prism_status prism_plan_create(prism_ctx *ctx, const prism_call *call, int32_t block_size, float max_density,
                                         prism_plan **out);
PRISM_API void prism_plan_destroy(prism_plan *plan); /* NULL is allowed */

/* Builds the plan: pool -> score -> select. Reads q and k (or pooled keys); reads v only where call->pooled keeps
 * moments. CAPACITY: the plan is too small, for blocks or for single keys; the sentence says by how much. */
PRISM_API prism_status prism_plan_build(prism_ctx *ctx, const prism_options *options, const prism_call *call,
                                        prism_plan *plan, void *workspace, size_t workspace_bytes);

/* Fills a plan from the caller's mask, u8 [n_seq][n_head][n_qblk][n_kblk], as prism_plan_mask() writes it. INVALID: a
 * bit above the causal limit. A row without any bit gets its own block. The plan lists no single keys. */
PRISM_API prism_status prism_plan_from_mask(prism_ctx *ctx, const prism_call *call, int32_t block_size,
                                            const uint8_t *mask, size_t mask_bytes, prism_plan *plan);

typedef enum prism_path {
    PRISM_PATH_SPARSE = 0,
    PRISM_PATH_DENSE = 1,         /* the method or top_p = 1 asked for every block */
    PRISM_PATH_DENSE_SHORT = 2,   /* every sequence was below min_tokens */
    PRISM_PATH_DENSE_OVERFLOW = 3 /* the plan had too little room; on a GPU only, a CPU returns CAPACITY */
} prism_path;

typedef struct prism_plan_view {
    size_t struct_size;
    int32_t n_seq, n_head, n_qblk, n_kblk, block_size; /* n_qblk, n_kblk: of the longest sequence */
    int64_t n_row;                                     /* n_seq * n_head * n_qblk */
    const int64_t *row_ptr;                            /* [n_row + 1] */
    const int32_t *index; /* [row_ptr[n_row]] ascending in a row; NULL: every row lists blocks 0, 1, 2, ... */
    int64_t n_selected;   /* listed blocks */
    int64_t n_causal;     /* blocks that full attention reads */
    double density;       /* (n_selected + n_key_selected / block_size) / n_causal */
    prism_path path;
    /* Single keys beside the blocks: row r reads the keys at positions key_index[key_ptr[r]] ..
     * key_index[key_ptr[r + 1] - 1]. They ascend and lie in none of the row's blocks. A query sees the listed keys up
     * to its own position. NULL: no row lists single keys. */
    const int64_t *key_ptr;   /* [n_row + 1] */
    const int32_t *key_index; /* [key_ptr[n_row]] */
    int64_t n_key_selected;
    double select_flop;  /* work of choosing and correcting, counted as in prism_stats; 0 for a plan from a mask */
    double pool_seconds; /* the part of choosing that pooled queries and keys */
    prism_correction correct; /* what blocks that are not listed contribute; never PRISM_CORRECTION_DEFAULT */
    double correct_flop;      /* the part of select_flop for correcting. Includes pooling moments, unless choosing
                                 pooled them anyway */
} prism_plan_view;

/* Waits for the GPU that built the plan and copies the plan to the host, for prism_plan_read() and prism_plan_mask().
 * Does nothing on the CPU, or if the plan was copied already. prism_attention() with stats fetches by itself. */
PRISM_API prism_status prism_plan_fetch(prism_ctx *ctx, prism_plan *plan);

/* Fills *view. The caller sets view->struct_size. Pointers stay valid until the plan is built again or destroyed.
 * INVALID: a GPU built the plan, and prism_plan_fetch() has not copied it since. */
PRISM_API prism_status prism_plan_read(const prism_plan *plan, prism_plan_view *view);

/* Writes u8 [n_seq][n_head][n_qblk][n_kblk]: 1 where the whole block is listed, else 0. Single keys do not show.
 * INVALID: bytes is too small, or prism_plan_read() would be INVALID. */
PRISM_API prism_status prism_plan_mask(const prism_plan *plan, uint8_t *mask, size_t bytes);

/* --------------------------------------------------------------------------------------------- attention ---- */

/* Computes exact attention of each query over the listed blocks and keys, causal by position. Adds what the plan's
 * correction says for the other blocks. The plan must have been built for this shape. Writes call->o, and call->lse if
 * wanted. A correction first pools the keys and values that call->pooled lacks; with call->pooled NULL it pools all. */
PRISM_API prism_status prism_attend(prism_ctx *ctx, const prism_call *call, const prism_plan *plan, void *workspace,
                                    size_t workspace_bytes);

typedef struct prism_stats {
    size_t struct_size;
    double select_seconds; /* pool, score and select */
    double attend_seconds;
    int64_t n_selected, n_causal; /* blocks; block_size single keys count as one block, rounded */
    double density;               /* as in prism_plan_view */
    prism_path path;
    /* Work in floating-point operations: 2 for a multiply-add of a matrix product, 1 for an addition in pooling.
     * Exponentials, comparisons and sorting do not count. src/core/work.h has the formulas. */
    double work_flop;    /* this call: choosing, correcting, and attention over what is listed */
    double dense_flop;   /* attention over every causal block */
    double pool_seconds; /* the part of select_seconds that pooled queries and keys */
} prism_stats;

/* Does prism_plan_build() and prism_attend() in one call. stats NULL: not wanted; else the caller sets
 * stats->struct_size. */
PRISM_API prism_status prism_attention(prism_ctx *ctx, const prism_options *options, const prism_call *call,
                                       prism_plan *plan, void *workspace, size_t workspace_bytes, prism_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
