#include "safetensors.h"
#include "file.h"
#include "json.h"
#include "memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The format's own limit; it also bounds what parsing can cost. */
#define MAX_HEADER_BYTES 100000000u
#define MAX_INDEX_BYTES 100000000u
#define MAX_SHARD 1000

typedef struct shard {
    lm_map map;
    cJSON *header; /* owns the tensors' names */
} shard;

struct lm_safetensors {
    shard *shards;
    size_t n_shard;
    lm_tensor *tensors;
    size_t n_tensor, capacity;
    void **copies; /* aligned copies of tensors that were not */
    size_t n_copy, copy_capacity;
};

/* ---------------------------------------------------------------------------------------------- parsing ---- */

static uint64_t read_u64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static bool parse_shape(const cJSON *item, lm_tensor *t, const char *where, lm_error *err)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const cJSON *dim;
    if (!cJSON_IsArray(shape))
        return lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s: has no \"shape\" list", where, t->name);
    cJSON_ArrayForEach(dim, shape)
    {
        uint64_t n;
        if (t->n_dim == LM_MAX_DIM)
            return lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s: more than %d dimensions", where, t->name, LM_MAX_DIM);
        if (!lm_json_u53(dim, &n))
            return lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s: dimension %d is not a whole number from 0 to 2^53",
                           where, t->name, t->n_dim);
        t->dim[t->n_dim++] = (int64_t)n;
    }
    return true;
}

static bool parse_offsets(const cJSON *item, const lm_tensor *t, uint64_t *begin, uint64_t *end, const char *where,
                          lm_error *err)
{
    const cJSON *pair = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    if (!cJSON_IsArray(pair) || cJSON_GetArraySize(pair) != 2 || !lm_json_u53(cJSON_GetArrayItem(pair, 0), begin) ||
        !lm_json_u53(cJSON_GetArrayItem(pair, 1), end) || *begin > *end)
        return lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s: \"data_offsets\" is not a pair of ascending offsets", where,
                       t->name);
    return true;
}

/* One entry of the header -> a view into the data section of n bytes. */
static bool parse_tensor(const cJSON *item, const uint8_t *section, uint64_t n, lm_tensor *t, const char *where,
                         lm_error *err)
{
    *t = (lm_tensor){.name = item->string};
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    if (!cJSON_IsString(dtype))
        return lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s: has no \"dtype\"", where, t->name);
    if (!lm_dtype_find(dtype->valuestring, &t->dtype) || lm_dtypes[t->dtype].block > 1)
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s: tensor %s: unknown dtype \"%.32s\"", where, t->name,
                       dtype->valuestring);
    uint64_t begin, end, want;
    if (!parse_shape(item, t, where, err) || !parse_offsets(item, t, &begin, &end, where, err))
        return false;
    char text[160];
    if (!lm_shape_bytes(t->dtype, t->n_dim, t->dim, &want))
        return lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s: shape %s overflows", where, t->name,
                       lm_shape_text(t->n_dim, t->dim, text, sizeof text));
    if (want != end - begin)
        return lm_fail(err, LM_ERROR_INPUT, "%s: tensor %s: %s %s needs %" PRIu64 " bytes, data_offsets give %" PRIu64,
                       where, t->name, lm_dtype_name(t->dtype), lm_shape_text(t->n_dim, t->dim, text, sizeof text),
                       want, end - begin);
    if (end > n)
        return lm_fail(err, LM_ERROR_INPUT,
                       "%s: tensor %s: ends at byte %" PRIu64 " of the data, but the file holds %" PRIu64
                       "; is it truncated?",
                       where, t->name, end, n);
    t->data = section + begin;
    t->bytes = (size_t)want;
    return true;
}

static bool align_tensors(lm_safetensors *st, lm_tensor *t, size_t n, const char *where, lm_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if ((uintptr_t)t[i].data % (uintptr_t)lm_dtypes[t[i].dtype].alignment == 0)
            continue;
        const bool room = lm_grow(&st->copies, &st->copy_capacity, st->n_copy, 1, sizeof *st->copies);
        void *copy = room ? malloc(t[i].bytes ? t[i].bytes : 1) : NULL;
        if (!copy)
            return lm_fail(err, LM_ERROR_MEMORY, "%s: tensor %s: no memory for %zu bytes", where, t[i].name,
                           t[i].bytes);
        memcpy(copy, t[i].data, t[i].bytes);
        st->copies[st->n_copy++] = copy;
        t[i].data = copy;
    }
    return true;
}

/* Adds the tensors of one file. *header is handed to the caller, who owns the names in it, failure or not. */
static bool add_file(lm_safetensors *st, const uint8_t *data, size_t bytes, cJSON **header, const char *where,
                     lm_error *err)
{
    if (bytes < 8)
        return lm_fail(err, LM_ERROR_INPUT, "%s: %zu bytes are too few for a safetensors file", where, bytes);
    const uint64_t n = read_u64(data);
    if (n > MAX_HEADER_BYTES || n > bytes - 8)
        return lm_fail(err, LM_ERROR_INPUT,
                       "%s: claims a header of %" PRIu64
                       " bytes in a file of %zu; not a safetensors file, or truncated",
                       where, n, bytes);
    *header = lm_json_parse((const char *)data + 8, (size_t)n, where, err);
    if (!*header)
        return false;
    if (!cJSON_IsObject(*header))
        return lm_fail(err, LM_ERROR_INPUT, "%s: the header is not a JSON object", where);
    /* One spare: the list then exists even if it is empty. */
    const size_t most = (size_t)cJSON_GetArraySize(*header) + 1;
    if (!lm_grow(&st->tensors, &st->capacity, st->n_tensor, most, sizeof *st->tensors))
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for the list of %zu tensors", where, st->n_tensor + most);
    const size_t first = st->n_tensor;
    const cJSON *item;
    cJSON_ArrayForEach(item, *header)
    {
        if (strcmp(item->string, "__metadata__") == 0)
            continue;
        lm_tensor t;
        if (!parse_tensor(item, data + 8 + n, bytes - 8 - n, &t, where, err))
            return false;
        st->tensors[st->n_tensor++] = t;
    }
    lm_tensor *added = st->tensors + first;
    return lm_tensors_apart(added, st->n_tensor - first, where, err) &&
           align_tensors(st, added, st->n_tensor - first, where, err);
}

/* ---------------------------------------------------------------------------------------------- opening ---- */

static bool add_shard(lm_safetensors *st, const char *path, lm_error *err)
{
    shard *s = &st->shards[st->n_shard];
    if (!lm_map_open(path, &s->map, err))
        return false;
    st->n_shard++;
    return add_file(st, s->map.data, s->map.bytes, &s->header, path, err);
}

void lm_safetensors_free_names(char **names, size_t n_name)
{
    for (size_t i = 0; i < n_name; i++)
        free(names[i]);
    free(names);
}

/* A shard's name comes from a file and goes into a path: it must stay inside the model's directory. */
static bool is_plain_name(const char *name)
{
    return name[0] && name[0] != '.' && !strchr(name, '/');
}

bool lm_safetensors_index(const char *text, size_t n, const char *where, char ***names, size_t *n_name, lm_error *err)
{
    *names = NULL;
    *n_name = 0;
    cJSON *index = lm_json_parse(text, n, where, err);
    if (!index)
        return false;
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map"), *item;
    bool ok = cJSON_IsObject(map) && map->child;
    if (!ok)
        lm_fail(err, LM_ERROR_INPUT, "%s: has no \"weight_map\" with tensors in it", where);
    char **list = ok ? calloc(MAX_SHARD, sizeof *list) : NULL;
    size_t count = 0;
    if (ok && !list)
        ok = lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for the list of shards", where);
    for (item = ok ? map->child : NULL; item && ok; item = item->next) {
        if (!cJSON_IsString(item) || !is_plain_name(item->valuestring)) {
            ok = lm_fail(err, LM_ERROR_INPUT, "%s: the shard of tensor %s is not the name of a file beside it", where,
                         item->string);
            break;
        }
        /* Neighbours usually share a shard: looking from the last one found keeps this linear in practice. */
        size_t i = count;
        while (i > 0 && strcmp(list[i - 1], item->valuestring) != 0)
            i--;
        if (i > 0)
            continue;
        if (count == MAX_SHARD)
            ok = lm_fail(err, LM_ERROR_INPUT, "%s: more than %d shards", where, MAX_SHARD);
        else if (!(list[count] = strdup(item->valuestring)))
            ok = lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for the list of shards", where);
        else
            count++;
    }
    cJSON_Delete(index);
    if (!ok) {
        lm_safetensors_free_names(list, count);
        return false;
    }
    *names = list;
    *n_name = count;
    return true;
}

static bool open_sharded(lm_safetensors *st, const char *dir, const char *index_path, lm_error *err)
{
    char *text, **names;
    size_t n, n_name;
    if (!lm_read_file(index_path, MAX_INDEX_BYTES, &text, &n, err))
        return false;
    bool ok = lm_safetensors_index(text, n, index_path, &names, &n_name, err);
    free(text);
    if (!ok)
        return false;
    st->shards = calloc(n_name, sizeof *st->shards);
    if (!st->shards)
        ok = lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for %zu shards", index_path, n_name);
    for (size_t i = 0; i < n_name && ok; i++) {
        char *path = lm_path_join(dir, names[i]);
        ok = path ? add_shard(st, path, err) : lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", index_path);
        free(path);
    }
    lm_safetensors_free_names(names, n_name);
    return ok;
}

static bool open_single(lm_safetensors *st, const char *path, lm_error *err)
{
    st->shards = calloc(1, sizeof *st->shards);
    if (!st->shards)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", path);
    return add_shard(st, path, err);
}

static bool open_path(lm_safetensors *st, const char *path, lm_error *err)
{
    if (!lm_path_is_directory(path))
        return open_single(st, path, err);
    char *index = lm_path_join(path, "model.safetensors.index.json"), *single = lm_path_join(path, "model.safetensors");
    bool ok = false;
    if (!index || !single)
        lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", path);
    else if (lm_path_exists(index))
        ok = open_sharded(st, path, index, err);
    else if (lm_path_exists(single))
        ok = open_single(st, single, err);
    else
        lm_fail(err, LM_ERROR_INPUT, "%s: has neither model.safetensors.index.json nor model.safetensors", path);
    free(index);
    free(single);
    return ok;
}

bool lm_safetensors_open(const char *path, lm_safetensors **out, lm_error *err)
{
    lm_safetensors *st = calloc(1, sizeof *st);
    if (!st)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", path);
    if (!open_path(st, path, err) || !lm_tensors_by_name(st->tensors, st->n_tensor, path, err)) {
        lm_safetensors_close(st);
        return false;
    }
    *out = st;
    return true;
}

bool lm_safetensors_open_memory(const void *data, size_t bytes, const char *name, lm_safetensors **out, lm_error *err)
{
    lm_safetensors *st = calloc(1, sizeof *st);
    shard *s = calloc(1, sizeof *s);
    if (!st || !s) {
        free(st);
        free(s);
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", name);
    }
    st->shards = s;
    st->n_shard = 1;
    if (!add_file(st, data, bytes, &s->header, name, err) ||
        !lm_tensors_by_name(st->tensors, st->n_tensor, name, err)) {
        lm_safetensors_close(st);
        return false;
    }
    *out = st;
    return true;
}

void lm_safetensors_close(lm_safetensors *st)
{
    if (!st)
        return;
    for (size_t i = 0; i < st->n_shard; i++) {
        lm_map_close(&st->shards[i].map);
        cJSON_Delete(st->shards[i].header);
    }
    for (size_t i = 0; i < st->n_copy; i++)
        free(st->copies[i]);
    free(st->copies);
    free(st->shards);
    free(st->tensors);
    free(st);
}

size_t lm_safetensors_count(const lm_safetensors *st)
{
    return st->n_tensor;
}

const lm_tensor *lm_safetensors_at(const lm_safetensors *st, size_t i)
{
    return i < st->n_tensor ? &st->tensors[i] : NULL;
}

const lm_tensor *lm_safetensors_find(const lm_safetensors *st, const char *name)
{
    return lm_tensors_find(st->tensors, st->n_tensor, name);
}

/* ---------------------------------------------------------------------------------------------- writing ---- */

static bool add_entry(cJSON *header, const lm_tensor *t, uint64_t begin)
{
    cJSON *item = cJSON_AddObjectToObject(header, t->name);
    cJSON *shape, *offsets;
    if (!item || !cJSON_AddStringToObject(item, "dtype", lm_dtype_name(t->dtype)) ||
        !(shape = cJSON_AddArrayToObject(item, "shape")) || !(offsets = cJSON_AddArrayToObject(item, "data_offsets")))
        return false;
    bool ok = true;
    for (int32_t i = 0; i < t->n_dim; i++)
        ok = cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->dim[i])) && ok;
    ok = cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)begin)) && ok;
    return cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)(begin + t->bytes))) && ok;
}

/* The i-th tensor to be written: widest types first, as the reference writer does, so that all stand aligned. */
static const lm_tensor **write_order(const lm_tensor *tensors, size_t n_tensor)
{
    const lm_tensor **order = malloc((n_tensor ? n_tensor : 1) * sizeof *order);
    size_t n = 0;
    for (int32_t alignment = 8; order && alignment > 0; alignment /= 2)
        for (size_t i = 0; i < n_tensor; i++)
            if (lm_dtypes[tensors[i].dtype].alignment == alignment)
                order[n++] = &tensors[i];
    return order;
}

static char *header_text(const lm_tensor *const *order, size_t n_tensor, const char *const *metadata, size_t n_metadata)
{
    cJSON *header = cJSON_CreateObject();
    bool ok = header != NULL;
    if (ok && n_metadata) {
        cJSON *meta = cJSON_AddObjectToObject(header, "__metadata__");
        ok = meta != NULL;
        for (size_t i = 0; ok && i < n_metadata; i++)
            ok = cJSON_AddStringToObject(meta, metadata[2 * i], metadata[2 * i + 1]) != NULL;
    }
    uint64_t at = 0;
    for (size_t i = 0; ok && i < n_tensor; i++) {
        ok = add_entry(header, order[i], at);
        at += order[i]->bytes;
    }
    char *text = ok ? cJSON_PrintUnformatted(header) : NULL;
    cJSON_Delete(header);
    return text;
}

bool lm_safetensors_write(const char *path, const lm_tensor *tensors, size_t n_tensor, const char *const *metadata,
                          size_t n_metadata, lm_error *err)
{
    for (size_t i = 0; i < n_tensor; i++) {
        uint64_t want;
        if (lm_dtypes[tensors[i].dtype].block > 1 ||
            !lm_shape_bytes(tensors[i].dtype, tensors[i].n_dim, tensors[i].dim, &want) || want != tensors[i].bytes)
            return lm_fail(err, LM_ERROR_USAGE, "%s: tensor %s: its bytes, shape and type do not agree", path,
                           tensors[i].name);
    }
    const lm_tensor **order = write_order(tensors, n_tensor);
    char *text = order ? header_text(order, n_tensor, metadata, n_metadata) : NULL;
    if (!text) {
        free(order);
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for its header", path);
    }
    const uint64_t n = strlen(text), padded = (n + 7) / 8 * 8;
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(padded >> (8 * i));
    lm_writer w;
    bool ok = lm_writer_open(&w, path, err);
    if (ok) {
        ok = lm_writer_put(&w, length, 8, err) && lm_writer_put(&w, text, n, err) &&
             lm_writer_put(&w, "       ", padded - n, err);
        for (size_t i = 0; ok && i < n_tensor; i++)
            ok = lm_writer_put(&w, order[i]->data, order[i]->bytes, err);
        if (ok)
            ok = lm_writer_commit(&w, err);
        else
            lm_writer_discard(&w);
    }
    cJSON_free(text);
    free(order);
    return ok;
}
