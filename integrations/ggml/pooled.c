/*
 * pooled: sums of key blocks, kept from one ubatch of a prompt to the next, for each layer and sequence.
 *
 * The plug-in sees only the ubatches that it computes: between two of them cells may have been freed and written again,
 * by another prompt, by a shift of the context or by restoring a state. What is kept is therefore recognised by
 * content. An entry remembers its cells in order and, for each block, a hash of the keys and values in the block's last
 * cell. Beyond the first layer these depend on every token before them, so that a prompt that differs anywhere earlier
 * differs there. Blocks are reused up to the first that does not match. In the first layer a differing token inside an
 * otherwise equal prompt can go unnoticed: 1/128 of one block's mean is then stale, which can change which blocks are
 * chosen, never what attention over them gives.
 */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

enum { max_entries = 8 }; /* sequences of which a layer keeps the pooled keys */

typedef struct entry {
    uint64_t used; /* time of last use; 0: never */
    int32_t n_cell_max;
    int32_t *cell;
    uint64_t *hash; /* [block] of the last pooled cell in it */
    void *memory;
    size_t bytes; /* of memory, as prism_pooled_bytes() says */
    prism_pooled pooled;
} entry;

typedef struct layer {
    const void *cache; /* data of the K cache */
    entry entry[max_entries];
} layer;

struct plugin_pooled_set {
    layer *layer;
    int32_t n_layer;
    uint64_t time;
    entry **loaded; /* [n_group] of the call under way */
    prism_pooled *out;
    plugin_buffer loaded_memory, out_memory;
};

plugin_pooled_set *plugin_pooled_create(void)
{
    return calloc(1, sizeof(plugin_pooled_set));
}

static void free_entry(entry *e)
{
    free(e->cell);
    free(e->hash);
    free(e->memory);
    *e = (entry){0};
}

void plugin_pooled_destroy(plugin_pooled_set *set)
{
    if (!set)
        return;
    for (int32_t i = 0; i < set->n_layer; i++)
        for (int32_t j = 0; j < max_entries; j++)
            free_entry(&set->layer[i].entry[j]);
    free(set->layer);
    plugin_buffer_free(&set->loaded_memory);
    plugin_buffer_free(&set->out_memory);
    free(set);
}

/* ------------------------------------------------------------------------------------------------------ hashes ---- */

static uint64_t hash_bytes(uint64_t h, const char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        memcpy(&word, data + i, bytes - i < 8 ? bytes - i : 8);
        h = (h ^ word) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return h;
}

static uint64_t hash_cell(const ggml_tensor *k, const ggml_tensor *v, int32_t stream, int32_t cell)
{
    const ggml_tensor *both[] = {k, v};
    uint64_t h = 1;
    for (int i = 0; i < 2; i++) {
        const ggml_tensor *t = both[i];
        const plugin_cache_type *type = plugin_cache_type_of(t);
        const size_t head_bytes = (size_t)t->ne[0] / type->block * type->bytes;
        const char *token = (const char *)t->data + (size_t)stream * t->nb[3] + (size_t)cell * t->nb[1];
        for (int64_t head = 0; head < t->ne[2]; head++)
            h = hash_bytes(h, token + (size_t)head * t->nb[2], head_bytes);
    }
    return h;
}

/* ----------------------------------------------------------------------------------------------------- entries ---- */

static layer *find_layer(plugin_pooled_set *set, const void *cache)
{
    for (int32_t i = 0; i < set->n_layer; i++)
        if (set->layer[i].cache == cache)
            return &set->layer[i];
    layer *grown = realloc(set->layer, (size_t)(set->n_layer + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    set->layer = grown;
    grown[set->n_layer] = (layer){.cache = cache};
    return &grown[set->n_layer++];
}

/* Returns how many keys of e, from the first on, are still those of the group's tokens before its new ones. */
static int32_t true_tokens(const entry *e, const ggml_tensor *k, const ggml_tensor *v, const plugin_group *g,
                           const int32_t *cell, int32_t block_size)
{
    const int32_t known = g->n_kv - g->n_row;
    const int32_t n = e->pooled.n_token <= known ? e->pooled.n_token : known / block_size * block_size;
    int32_t kept = 0;
    while (kept < n) {
        const int32_t end = kept + block_size < n ? kept + block_size : n;
        if (memcmp(e->cell + kept, cell + kept, (size_t)(end - kept) * sizeof *cell) ||
            e->hash[kept / block_size] != hash_cell(k, v, g->stream, cell[end - 1]))
            break;
        kept = end;
    }
    return kept;
}

/* Makes room for the whole cache at once: growing would lose the sums. Pages that are not written take no memory. */
static bool make_room(entry *e, const ggml_tensor *k, int32_t n_token, const prism_options *options)
{
    const int32_t n_kv_head = (int32_t)k->ne[2], d_head = (int32_t)k->ne[0], block_size = options->block_size;
    size_t bytes;
    if (e->memory && e->n_cell_max >= n_token &&
        !prism_pooled_bytes(options, n_kv_head, d_head, e->n_cell_max, &bytes) && bytes == e->bytes)
        return true;
    const int64_t n_cache = k->view_src ? k->view_src->ne[1] : 0;
    const int64_t n_wanted = n_cache > n_token && n_cache < INT32_MAX / 2 ? n_cache : n_token;
    const int32_t n_max = (int32_t)((n_wanted + block_size - 1) / block_size * block_size);
    if (prism_pooled_bytes(options, n_kv_head, d_head, n_max, &bytes))
        return false;
    const size_t n_byte = (bytes + 63) / 64 * 64;
    entry new = {.n_cell_max = n_max, .bytes = bytes};
    new.cell = malloc((size_t)n_max * sizeof *new.cell);
    new.hash = malloc((size_t)(n_max / block_size) * sizeof *new.hash);
    new.memory = aligned_alloc(64, n_byte);
    if (!new.cell || !new.hash || !new.memory ||
        prism_pooled_init(&new.pooled, options, n_kv_head, d_head, n_max, new.memory, n_byte)) {
        free_entry(&new);
        return false;
    }
    free_entry(e);
    *e = new;
    return true;
}

/* Returns the entry that agrees longest with the group, or else the one unused for longest, emptied. */
static entry *choose(const plugin_pooled_set *set, layer *l, const ggml_tensor *k, const ggml_tensor *v,
                     const plugin_group *g, const int32_t *cell, int32_t block_size)
{
    entry *best = NULL, *oldest = NULL;
    int32_t longest = 0;
    for (int32_t i = 0; i < max_entries; i++) {
        entry *e = &l->entry[i];
        if (e->used == set->time)
            continue; /* another group of this call has it */
        const int32_t n = e->memory ? true_tokens(e, k, v, g, cell, block_size) : 0;
        if (n > longest) {
            longest = n;
            best = e;
        }
        if (!oldest || e->used < oldest->used)
            oldest = e;
    }
    entry *e = best ? best : oldest;
    if (e && e->memory)
        e->pooled.n_token = longest;
    return e;
}

prism_pooled *plugin_pooled_load(plugin_pooled_set *set, const ggml_tensor *k, const ggml_tensor *v,
                                 const plugin_groups *groups, const prism_options *options)
{
    set->time++;
    layer *l = find_layer(set, k->view_src ? k->view_src->data : k->data);
    set->loaded = plugin_buffer_reserve(&set->loaded_memory, (size_t)groups->n_group * sizeof *set->loaded);
    set->out = plugin_buffer_reserve(&set->out_memory, (size_t)groups->n_group * sizeof *set->out);
    if (!l || !set->loaded || !set->out)
        return NULL;
    for (int32_t i = 0; i < groups->n_group; i++) {
        const plugin_group *g = &groups->group[i];
        entry *e = choose(set, l, k, v, g, groups->cell + g->first_cell, options->block_size);
        if (!e || !make_room(e, k, g->n_kv, options))
            return NULL;
        e->used = set->time;
        set->loaded[i] = e;
        set->out[i] = e->pooled;
    }
    return set->out;
}

void plugin_pooled_store(plugin_pooled_set *set, const ggml_tensor *k, const ggml_tensor *v,
                         const plugin_groups *groups)
{
    for (int32_t i = 0; i < groups->n_group; i++) {
        const plugin_group *g = &groups->group[i];
        const int32_t *cell = groups->cell + g->first_cell;
        entry *e = set->loaded[i];
        const int32_t before = e->pooled.n_token, block_size = e->pooled.block_size;
        e->pooled = set->out[i];
        const int32_t n = e->pooled.n_token;
        memcpy(e->cell + before, cell + before, (size_t)(n - before) * sizeof *cell);
        for (int32_t b = before / block_size; b * block_size < n; b++) {
            const int32_t end = (b + 1) * block_size < n ? (b + 1) * block_size : n;
            e->hash[b] = hash_cell(k, v, g->stream, cell[end - 1]);
        }
    }
}
