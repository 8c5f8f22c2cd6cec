/*
 * plugin.h - the rooms of the llama.cpp plug-in. One attention node walks through them in this order:
 *
 *   claim     may this node be ours?                      shapes and parameters, when the graph is planned
 *   groups    mask -> sequences, their rows and cells     refuses what is not causal
 *   rotation  graph -> frequencies of the positions
 *   cache     cells of the KV cache -> views of tensors   mixed keys are written out
 *   pooled    sums of key blocks kept from earlier calls
 *   attention the library's call
 *
 * A node that falls out on the way is computed by ggml's own CPU backend, and PRISM_STATS says why.
 */
#ifndef PLUGIN_H
#define PLUGIN_H

#include "prism_attn/prism.h"

#include "ggml_abi.h"

/* -------------------------------------------------------------------------------------------------- settings ---- */

typedef struct plugin_settings {
    prism_options options; /* without bands */
    bool delegate_all;     /* method "ggml": ggml's own kernels, timed like ours */
    char error[200];       /* "" or what is wrong with the environment */
} plugin_settings;

extern plugin_settings plugin_options;
void plugin_settings_read(void); /* from the environment, once */

/* ----------------------------------------------------------------------------------------------------- claim ---- */

/* Queries of a node below which it stays with ggml. llama.cpp's probe for flash attention, one token a sequence, must
 * not be claimed: it would switch flash attention off. */
enum { PLUGIN_MIN_QUERIES = 64 };

bool plugin_claims(const ggml_tensor *node);

/* ---------------------------------------------------------------------------------------------------- memory ---- */

typedef struct plugin_buffer {
    void *data;
    size_t bytes;
} plugin_buffer;

/* Returns at least `bytes` bytes, aligned to 64. A buffer that grows loses its contents. NULL: no memory. */
void *plugin_buffer_reserve(plugin_buffer *buffer, size_t bytes);
void plugin_buffer_free(plugin_buffer *buffer);

/* ---------------------------------------------------------------------------------------------------- groups ---- */

/* Rows of one stream whose tokens follow each other in one sequence: a row sees one cell more than the row before. */
typedef struct plugin_group {
    int32_t stream, row, n_row; /* rows row .. row + n_row - 1 of the stream's mask */
    int32_t n_kv;               /* cells that the last row sees */
    int32_t first_cell;         /* index into plugin_groups.cell */
    bool contiguous;            /* its cells are consecutive */
} plugin_group;

typedef struct plugin_groups {
    int32_t n_group;
    plugin_group *group;
    int32_t *cell; /* of each group, in order of position: row i sees the first n_kv - n_row + 1 + i */
    int64_t n_cell, n_group_max, n_cell_max;
} plugin_groups;

/* Finds the groups of all streams. Returns NULL, or why the mask is not causal attention of whole sequences. */
const char *plugin_groups_find(plugin_groups *groups, const ggml_tensor *mask, int64_t n_q, int64_t n_stream);
void plugin_groups_free(plugin_groups *groups);

/* -------------------------------------------------------------------------------------------------- rotation ---- */

typedef struct plugin_rotation {
    bool found; /* rope says how the queries were turned */
    prism_rope rope;
    int32_t n_mixed; /* order of the Hadamard matrix that then mixed queries and keys; 0: none did */
} plugin_rotation;

void plugin_rotation_find(const ggml_tensor *q, int32_t d_head, plugin_rotation *rotation);

/* x <- H x for consecutive stretches of n_mixed values. H is its own inverse. */
void plugin_unmix(float *x, int32_t n, int32_t n_mixed);

/* ----------------------------------------------------------------------------------------------------- cache ---- */

typedef struct plugin_cache_type {
    int32_t type; /* ggml's */
    prism_dtype dtype;
    uint32_t block, bytes; /* `block` elements take `bytes` bytes */
} plugin_cache_type;

/* NULL: a type that the plug-in does not take. */
const plugin_cache_type *plugin_cache_type_of(const ggml_tensor *cache);

/* Makes a view of K or V for all groups. `index` holds one page table entry a key where cells are scattered, else one
 * row a group. */
bool plugin_cache_view(const ggml_tensor *cache, const plugin_groups *groups, int32_t n_kv_max, plugin_buffer *index,
                       prism_tensor *view);

/* The same for keys of a Q8_0 cache that a Hadamard matrix of order n_mixed has mixed: `copy` holds them as float32, as
 * they were before. */
bool plugin_cache_unmix(const ggml_tensor *cache, const plugin_groups *groups, int32_t n_mixed, int n_thread,
                        plugin_buffer *copy, plugin_buffer *index, prism_tensor *view);

/* ---------------------------------------------------------------------------------------------------- pooled ---- */

typedef struct plugin_pooled_set plugin_pooled_set;

plugin_pooled_set *plugin_pooled_create(void);
void plugin_pooled_destroy(plugin_pooled_set *set);

/* Returns the pooled keys of each group ([n_group]) as far as they are still true, for one call. plugin_pooled_store()
 * then takes them back. NULL: there are more groups than are kept, or no memory. */
prism_pooled *plugin_pooled_load(plugin_pooled_set *set, const ggml_tensor *k, const ggml_tensor *v,
                                 const plugin_groups *groups, const prism_options *options);
void plugin_pooled_store(plugin_pooled_set *set, const ggml_tensor *k, const ggml_tensor *v,
                         const plugin_groups *groups);

/* ------------------------------------------------------------------------------------------------- attention ---- */

typedef struct plugin_clock {
    double seconds, cpu_seconds; /* cpu_seconds: of the whole process; other programs disturb it less */
} plugin_clock;

typedef struct plugin_report {
    const char *path;   /* "sparse", "dense", "short" or "ggml" */
    const char *reason; /* of path "ggml": why; else NULL */
    int32_t n_group;
    int64_t n_reused; /* keys that earlier calls had pooled */
    prism_stats stats;
} plugin_report;

typedef struct plugin_engine plugin_engine;

plugin_engine *plugin_engine_create(void);
void plugin_engine_destroy(plugin_engine *engine);
/* Returns NULL: the node's output is written; or why it is not, and nothing is. */
const char *plugin_engine_compute(plugin_engine *engine, int n_thread, const ggml_tensor *node, plugin_report *report);

/* ----------------------------------------------------------------------------------------------------- stats ---- */

void plugin_stats_open(void); /* PRISM_STATS=file: one JSON object a line, for each node */
bool plugin_stats_wanted(void);
plugin_clock plugin_stats_clock(void);
void plugin_stats_write(const ggml_tensor *node, plugin_clock start, const plugin_report *report);

#endif
