#include "file.h"
#include "gguf.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 32u

/* A byte buffer whose failed growth is remembered instead of returned: one check at the end instead of hundreds. */
typedef struct buffer {
    uint8_t *data;
    size_t n, capacity;
    bool failed;
} buffer;

typedef struct entry {
    char *name;
    lm_dtype dtype;
    int32_t n_dim;
    int64_t dim[4];
    uint64_t bytes;
} entry;

struct lm_gguf_writer {
    buffer values;
    uint64_t n_value;
    entry *entries;
    size_t n_entry, capacity;
    bool failed; /* no memory for an entry */
    bool bad;    /* a shape that does not fit its type */
    lm_writer file;
    size_t current;   /* tensor being written */
    uint64_t written; /* of it */
};

static void put(buffer *b, const void *data, size_t n)
{
    b->failed = b->failed || !lm_grow(&b->data, &b->capacity, b->n, n, 1);
    if (b->failed || !n)
        return;
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void put_int(buffer *b, uint64_t value, int n)
{
    uint8_t bytes[8];
    for (int i = 0; i < n; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    put(b, bytes, (size_t)n);
}

static void put_text(buffer *b, const char *data, size_t n)
{
    put_int(b, n, 8);
    put(b, data, n);
}

static void put_key(lm_gguf_writer *w, const char *key, lm_gguf_type type)
{
    put_text(&w->values, key, strlen(key));
    put_int(&w->values, (uint64_t)type, 4);
    w->n_value++;
}

lm_gguf_writer *lm_gguf_writer_create(void)
{
    return calloc(1, sizeof(lm_gguf_writer));
}

void lm_gguf_writer_free(lm_gguf_writer *w)
{
    if (!w)
        return;
    lm_writer_discard(&w->file);
    for (size_t i = 0; i < w->n_entry; i++)
        free(w->entries[i].name);
    free(w->entries);
    free(w->values.data);
    free(w);
}

void lm_gguf_put_u32(lm_gguf_writer *w, const char *key, uint32_t value)
{
    put_key(w, key, LM_GGUF_U32);
    put_int(&w->values, value, 4);
}

void lm_gguf_put_f32(lm_gguf_writer *w, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(w, key, LM_GGUF_F32);
    put_int(&w->values, bits, 4);
}

void lm_gguf_put_bool(lm_gguf_writer *w, const char *key, bool value)
{
    put_key(w, key, LM_GGUF_BOOL);
    put_int(&w->values, value, 1);
}

void lm_gguf_put_string(lm_gguf_writer *w, const char *key, const char *value)
{
    put_key(w, key, LM_GGUF_STRING);
    put_text(&w->values, value, strlen(value));
}

void lm_gguf_put_array(lm_gguf_writer *w, const char *key, lm_gguf_type type, uint64_t n)
{
    put_key(w, key, LM_GGUF_ARRAY);
    put_int(&w->values, (uint64_t)type, 4);
    put_int(&w->values, n, 8);
}

void lm_gguf_put_value(lm_gguf_writer *w, const lm_gguf_value *v)
{
    if (v->is_array)
        lm_gguf_put_array(w, v->key, v->type, v->n);
    else
        put_key(w, v->key, v->type);
    put(&w->values, v->data, lm_gguf_value_bytes(v));
}

void lm_gguf_put_array_string(lm_gguf_writer *w, const char *data, size_t n_bytes)
{
    put_text(&w->values, data, n_bytes);
}

void lm_gguf_put_array_i32(lm_gguf_writer *w, int32_t value)
{
    put_int(&w->values, (uint32_t)value, 4);
}

void lm_gguf_put_tensor(lm_gguf_writer *w, const char *name, lm_dtype dtype, int32_t n_dim, const int64_t *dim)
{
    entry e = {.dtype = dtype, .n_dim = n_dim};
    if (n_dim > 4 || lm_dtypes[dtype].ggml < 0 || !lm_shape_bytes(dtype, n_dim, dim, &e.bytes)) {
        w->bad = true;
        return;
    }
    memcpy(e.dim, dim, (size_t)n_dim * sizeof *dim);
    e.name = strdup(name);
    if (!e.name || !lm_grow(&w->entries, &w->capacity, w->n_entry, 1, sizeof e)) {
        free(e.name);
        w->failed = true;
        return;
    }
    w->entries[w->n_entry++] = e;
}

static uint64_t padded(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void put_entries(const lm_gguf_writer *w, buffer *b)
{
    uint64_t at = 0;
    for (size_t i = 0; i < w->n_entry; i++) {
        const entry *e = &w->entries[i];
        put_text(b, e->name, strlen(e->name));
        put_int(b, (uint64_t)e->n_dim, 4);
        for (int32_t d = e->n_dim - 1; d >= 0; d--)
            put_int(b, (uint64_t)e->dim[d], 8);
        put_int(b, (uint64_t)lm_dtypes[e->dtype].ggml, 4);
        put_int(b, at, 8);
        at += padded(e->bytes);
    }
}

/* Moves over tensors that are complete (or empty). */
static bool next_tensor(lm_gguf_writer *w, lm_error *err)
{
    while (w->current < w->n_entry && w->written == w->entries[w->current].bytes) {
        if (!lm_writer_pad(&w->file, ALIGNMENT, err))
            return false;
        w->current++;
        w->written = 0;
    }
    return true;
}

bool lm_gguf_writer_start(lm_gguf_writer *w, const char *path, lm_error *err)
{
    if (w->bad)
        return lm_fail(err, LM_ERROR_USAGE, "%s: a tensor's shape does not fit its type", path);
    buffer b = {0};
    put(&b, "GGUF", 4);
    put_int(&b, 3, 4);
    put_int(&b, w->n_entry, 8);
    put_int(&b, w->n_value, 8);
    put(&b, w->values.data, w->values.n);
    if (!w->failed)
        put_entries(w, &b);
    if (w->failed || w->values.failed || b.failed) {
        free(b.data);
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for its header", path);
    }
    const bool ok = lm_writer_open(&w->file, path, err) && lm_writer_put(&w->file, b.data, b.n, err) &&
                    lm_writer_pad(&w->file, ALIGNMENT, err) && next_tensor(w, err);
    free(b.data);
    return ok;
}

bool lm_gguf_writer_data(lm_gguf_writer *w, const void *data, size_t bytes, lm_error *err)
{
    if (w->current == w->n_entry || bytes > w->entries[w->current].bytes - w->written)
        return lm_fail(err, LM_ERROR_USAGE, "%s: more data than its tensors hold", w->file.path);
    if (!lm_writer_put(&w->file, data, bytes, err))
        return false;
    w->written += bytes;
    return next_tensor(w, err);
}

bool lm_gguf_writer_finish(lm_gguf_writer *w, lm_error *err)
{
    if (w->current != w->n_entry)
        return lm_fail(err, LM_ERROR_USAGE, "%s: tensor %s is not complete", w->file.path, w->entries[w->current].name);
    return lm_writer_commit(&w->file, err);
}
