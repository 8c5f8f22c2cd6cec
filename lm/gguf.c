#include "gguf.h"
#include "file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAME_BYTES 65535u
#define MIN_VALUE_BYTES 13u  /* empty key, type, one byte */
#define MIN_TENSOR_BYTES 24u /* empty name, no dimension, type, offset */

struct lm_gguf {
    lm_map map;
    lm_gguf *next; /* the next part of a split model: its tensors are in this list, its map and its keys stay there */
    char *name; /* of the file, for messages */
    lm_gguf_value *values;
    size_t n_value;
    lm_tensor *tensors;
    size_t n_tensor;
};

/* What is left of the file; every read goes through take(). */
typedef struct cursor {
    const uint8_t *at, *start, *end;
    const char *where;
    lm_error *err;
} cursor;

static size_t left(const cursor *c)
{
    return (size_t)(c->end - c->at);
}
static size_t offset(const cursor *c)
{
    return (size_t)(c->at - c->start);
}

static uint64_t load(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static bool take(cursor *c, int n_bytes, uint64_t *out, const char *what)
{
    if (left(c) < (size_t)n_bytes)
        return lm_fail(c->err, LM_ERROR_INPUT, "%s: byte %zu: the file ends inside %s; is it truncated?", c->where,
                       offset(c), what);
    *out = load(c->at, n_bytes);
    c->at += n_bytes;
    return true;
}

static bool take_u64(cursor *c, uint64_t *out, const char *what)
{
    return take(c, 8, out, what);
}

static bool take_u32(cursor *c, uint32_t *out, const char *what)
{
    uint64_t v;
    const bool taken = take(c, 4, &v, what);
    if (taken)
        *out = (uint32_t)v;
    return taken;
}

static bool skip_string(cursor *c, const char *what)
{
    uint64_t n;
    if (!take_u64(c, &n, what))
        return false;
    if (n > left(c))
        return lm_fail(c->err, LM_ERROR_INPUT, "%s: byte %zu: %s claims %" PRIu64 " bytes, %zu are left", c->where,
                       offset(c), what, n, left(c));
    c->at += n;
    return true;
}

/* *out is the caller's to free. */
static bool take_name(cursor *c, const char **out, const char *what)
{
    const uint8_t *from = c->at;
    if (!skip_string(c, what))
        return false;
    const size_t n = (size_t)(c->at - from) - 8;
    if (n > MAX_NAME_BYTES || memchr(from + 8, 0, n))
        return lm_fail(c->err, LM_ERROR_INPUT, "%s: byte %zu: %s is longer than %u bytes or contains a zero", c->where,
                       offset(c), what, MAX_NAME_BYTES);
    *out = strndup((const char *)from + 8, n);
    return *out || lm_fail(c->err, LM_ERROR_MEMORY, "%s: no memory for %s", c->where, what);
}

/* Bytes of a fixed-size element; 0 for strings, arrays and unknown types. */
static size_t type_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static bool skip_elements(cursor *c, const lm_gguf_value *v)
{
    if (v->type == LM_GGUF_STRING) {
        if (v->n > left(c) / 8)
            return lm_fail(c->err, LM_ERROR_INPUT, "%s: key %s: claims %" PRIu64 " strings, %zu bytes are left",
                           c->where, v->key, v->n, left(c));
        for (uint64_t i = 0; i < v->n; i++)
            if (!skip_string(c, v->key))
                return false;
        return true;
    }
    const size_t size = type_bytes(v->type);
    if (v->n > left(c) / size)
        return lm_fail(c->err, LM_ERROR_INPUT,
                       "%s: key %s: claims %" PRIu64 " elements of %zu bytes, %zu bytes are left", c->where, v->key,
                       v->n, size, left(c));
    c->at += v->n * size;
    return true;
}

static bool take_value(cursor *c, lm_gguf_value *v)
{
    uint32_t type;
    *v = (lm_gguf_value){.n = 1};
    if (!take_name(c, &v->key, "a metadata key") || !take_u32(c, &type, v->key))
        return false;
    if (type == LM_GGUF_ARRAY) {
        v->is_array = true;
        if (!take_u32(c, &type, v->key) || !take_u64(c, &v->n, v->key))
            return false;
        if (type == LM_GGUF_ARRAY)
            return lm_fail(c->err, LM_ERROR_UNSUPPORTED, "%s: key %s: arrays of arrays are not supported", c->where,
                           v->key);
    }
    if (type != LM_GGUF_STRING && !type_bytes(type))
        return lm_fail(c->err, LM_ERROR_INPUT, "%s: key %s: unknown value type %" PRIu32, c->where, v->key, type);
    v->type = (lm_gguf_type)type;
    v->data = c->at;
    return skip_elements(c, v);
}

/* The data field holds the offset until the data section is known. */
static bool take_tensor(cursor *c, lm_tensor *t, uint64_t *data_offset)
{
    uint32_t n_dim, type;
    uint64_t dim[4];
    *t = (lm_tensor){0};
    if (!take_name(c, &t->name, "a tensor's name") || !take_u32(c, &n_dim, t->name))
        return false;
    if (n_dim > 4)
        return lm_fail(c->err, LM_ERROR_INPUT, "%s: tensor %s: %" PRIu32 " dimensions; GGUF has at most 4", c->where,
                       t->name, n_dim);
    for (uint32_t i = 0; i < n_dim; i++) {
        if (!take_u64(c, &dim[i], t->name))
            return false;
        if (dim[i] > INT64_MAX)
            return lm_fail(c->err, LM_ERROR_INPUT, "%s: tensor %s: dimension %" PRIu32 " overflows", c->where, t->name,
                           i);
    }
    if (!take_u32(c, &type, t->name) || !take_u64(c, data_offset, t->name))
        return false;
    t->n_dim = (int32_t)n_dim;
    for (uint32_t i = 0; i < n_dim; i++)
        t->dim[i] = (int64_t)dim[n_dim - 1 - i];
    char types[200];
    if (!lm_dtype_find_ggml(type, &t->dtype))
        return lm_fail(c->err, LM_ERROR_UNSUPPORTED,
                       "%s: tensor %s: type %s (%" PRIu32 ") is not read; llama-quantize --allow-requantize writes %s",
                       c->where, t->name, lm_ggml_name(type), type, lm_dtype_names(false, types, sizeof types));
    uint64_t bytes;
    if (!lm_shape_bytes(t->dtype, t->n_dim, t->dim, &bytes))
        return lm_fail(c->err, LM_ERROR_INPUT, "%s: tensor %s: its shape overflows or does not divide by %d",
                       c->where, t->name, lm_dtypes[t->dtype].block);
    t->bytes = (size_t)bytes;
    return true;
}

/* ------------------------------------------------------------------------------------- checks on the whole ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const lm_gguf_value *)a)->key, ((const lm_gguf_value *)b)->key);
}

static bool check_values(lm_gguf *g, lm_error *err)
{
    if (g->n_value)
        qsort(g->values, g->n_value, sizeof *g->values, by_key);
    for (size_t i = 1; i < g->n_value; i++)
        if (by_key(&g->values[i - 1], &g->values[i]) == 0)
            return lm_fail(err, LM_ERROR_INPUT, "%s: key %s comes twice", g->name, g->values[i].key);
    return true;
}

/* Offsets count from the data section, which starts at the next multiple of the alignment. */
static bool place_tensors(lm_gguf *g, const cursor *c, const uint64_t *offsets, uint64_t alignment)
{
    const uint64_t start = (offset(c) + alignment - 1) / alignment * alignment;
    const uint64_t total = (uint64_t)(c->end - c->start);
    for (size_t i = 0; i < g->n_tensor; i++) {
        lm_tensor *t = &g->tensors[i];
        if (offsets[i] % alignment)
            return lm_fail(c->err, LM_ERROR_INPUT,
                           "%s: tensor %s: offset %" PRIu64 " is no multiple of the alignment %" PRIu64, c->where,
                           t->name, offsets[i], alignment);
        if (start > total || offsets[i] > total - start || t->bytes > total - start - offsets[i])
            return lm_fail(c->err, LM_ERROR_INPUT,
                           "%s: tensor %s: %zu bytes at offset %" PRIu64 " run past the end of the file (%" PRIu64
                           " bytes of data); is it truncated?",
                           c->where, t->name, t->bytes, offsets[i], start > total ? 0 : total - start);
        t->data = c->start + start + offsets[i];
    }
    return true;
}

/* ---------------------------------------------------------------------------------------------- opening ---- */

static bool take_counts(cursor *c, uint64_t *n_tensor, uint64_t *n_value)
{
    uint32_t magic, version;
    if (!take_u32(c, &magic, "the header") || !take_u32(c, &version, "the header"))
        return false;
    if (magic != 0x46554747)
        return lm_fail(c->err, LM_ERROR_INPUT, "%s: does not start with \"GGUF\"; not a GGUF file", c->where);
    if (version != 2 && version != 3)
        return lm_fail(c->err, LM_ERROR_UNSUPPORTED, "%s: GGUF version %" PRIu32 "%s; 2 and 3 are supported", c->where,
                       version, version & 0xffff ? "" : " (a big-endian file?)");
    if (!take_u64(c, n_tensor, "the header") || !take_u64(c, n_value, "the header"))
        return false;
    if (*n_tensor > left(c) / MIN_TENSOR_BYTES || *n_value > left(c) / MIN_VALUE_BYTES)
        return lm_fail(c->err, LM_ERROR_INPUT,
                       "%s: claims %" PRIu64 " tensors and %" PRIu64 " metadata keys, more than its %zu bytes can hold",
                       c->where, *n_tensor, *n_value, left(c));
    return true;
}

static bool parse(lm_gguf *g, cursor *c)
{
    uint64_t n_tensor, n_value;
    if (!take_counts(c, &n_tensor, &n_value))
        return false;
    g->values = calloc(n_value + 1, sizeof *g->values);
    g->tensors = calloc(n_tensor + 1, sizeof *g->tensors);
    uint64_t *offsets = calloc(n_tensor + 1, sizeof *offsets);
    bool ok = g->values && g->tensors && offsets;
    if (!ok)
        lm_fail(c->err, LM_ERROR_MEMORY, "%s: no memory for its %" PRIu64 " tensors and %" PRIu64 " keys", c->where,
                n_tensor, n_value);
    for (uint64_t i = 0; ok && i < n_value; i++)
        ok = take_value(c, &g->values[g->n_value++]);
    int64_t alignment = 32;
    ok = ok && check_values(g, c->err) && lm_gguf_int(g, "general.alignment", 8, 1 << 20, &alignment, c->err);
    if (ok && (alignment & (alignment - 1)))
        ok = lm_fail(c->err, LM_ERROR_INPUT, "%s: general.alignment %lld is no power of two", c->where,
                     (long long)alignment);
    for (uint64_t i = 0; ok && i < n_tensor; i++)
        ok = take_tensor(c, &g->tensors[g->n_tensor++], &offsets[i]);
    ok = ok && place_tensors(g, c, offsets, (uint64_t)alignment) &&
         lm_tensors_apart(g->tensors, g->n_tensor, g->name, c->err) &&
         lm_tensors_by_name(g->tensors, g->n_tensor, g->name, c->err);
    free(offsets);
    return ok;
}

static bool open_bytes(lm_gguf *g, const uint8_t *data, size_t bytes, const char *name, lm_gguf **out, lm_error *err)
{
    cursor c = {.at = data, .start = data, .end = data + bytes, .where = name, .err = err};
    g->name = strdup(name);
    if (!g->name)
        lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", name);
    if (!g->name || !parse(g, &c)) {
        lm_gguf_close(g);
        return false;
    }
    *out = g;
    return true;
}

bool lm_gguf_open_part(const char *path, lm_gguf **out, lm_error *err)
{
    lm_gguf *g = calloc(1, sizeof *g);
    if (!g)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", path);
    if (!lm_map_open(path, &g->map, err)) {
        free(g);
        return false;
    }
    static const uint8_t nothing[8];
    return open_bytes(g, g->map.data ? g->map.data : nothing, g->map.bytes, path, out, err);
}

bool lm_gguf_open_memory(const void *data, size_t bytes, const char *name, lm_gguf **out, lm_error *err)
{
    lm_gguf *g = calloc(1, sizeof *g);
    if (!g)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", name);
    return open_bytes(g, data, bytes, name, out, err);
}

bool lm_gguf_take_part(lm_gguf *g, lm_gguf *part, lm_error *err)
{
    const size_t n = g->n_tensor + part->n_tensor;
    lm_tensor *all = realloc(g->tensors, (n + 1) * sizeof *all);
    part->next = g->next;
    g->next = part;
    if (!all)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for its %zu tensors", g->name, n);
    memcpy(all + g->n_tensor, part->tensors, part->n_tensor * sizeof *all);
    g->tensors = all;
    g->n_tensor = n;
    part->n_tensor = 0;
    return lm_tensors_by_name(all, n, g->name, err);
}

static void close_part(lm_gguf *g)
{
    lm_map_close(&g->map);
    free(g->name);
    for (size_t i = 0; i < g->n_value; i++)
        free((char *)(uintptr_t)g->values[i].key);
    for (size_t i = 0; i < g->n_tensor; i++)
        free((char *)(uintptr_t)g->tensors[i].name);
    free(g->values);
    free(g->tensors);
    free(g);
}

void lm_gguf_close(lm_gguf *g)
{
    for (lm_gguf *next; g; g = next) {
        next = g->next;
        close_part(g);
    }
}

bool lm_gguf_probe(const char *path)
{
    char magic[4];
    FILE *f = fopen(path, "rb");
    const bool is = f && fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (f)
        fclose(f);
    return is;
}

/* ---------------------------------------------------------------------------------------------- queries ---- */

size_t lm_gguf_tensor_count(const lm_gguf *g)
{
    return g->n_tensor;
}
size_t lm_gguf_value_count(const lm_gguf *g)
{
    return g->n_value;
}
const lm_tensor *lm_gguf_tensor_at(const lm_gguf *g, size_t i)
{
    return i < g->n_tensor ? &g->tensors[i] : NULL;
}
const lm_gguf_value *lm_gguf_value_at(const lm_gguf *g, size_t i)
{
    return i < g->n_value ? &g->values[i] : NULL;
}

const lm_tensor *lm_gguf_tensor(const lm_gguf *g, const char *name)
{
    return lm_tensors_find(g->tensors, g->n_tensor, name);
}

const lm_gguf_value *lm_gguf_value_find(const lm_gguf *g, const char *key)
{
    const lm_gguf_value wanted = {.key = key};
    return g->n_value ? bsearch(&wanted, g->values, g->n_value, sizeof wanted, by_key) : NULL;
}

static bool is_integer(lm_gguf_type type)
{
    return type != LM_GGUF_F32 && type != LM_GGUF_F64 && type != LM_GGUF_STRING && type != LM_GGUF_ARRAY;
}

int64_t lm_gguf_value_int(const lm_gguf_value *v, uint64_t i)
{
    const size_t size = type_bytes(v->type);
    const uint64_t raw = load(v->data + i * size, (int)size);
    switch (v->type) {
    case LM_GGUF_I8: return (int8_t)raw;
    case LM_GGUF_I16: return (int16_t)raw;
    case LM_GGUF_I32: return (int32_t)raw;
    case LM_GGUF_U64: return raw > INT64_MAX ? INT64_MAX : (int64_t)raw;
    default: return (int64_t)raw;
    }
}

double lm_gguf_value_number(const lm_gguf_value *v, uint64_t i)
{
    double x = (double)NAN;
    float f;
    if (v->type == LM_GGUF_F64) {
        memcpy(&x, v->data + i * sizeof x, sizeof x);
    } else if (v->type == LM_GGUF_F32) {
        memcpy(&f, v->data + i * sizeof f, sizeof f);
        x = (double)f;
    } else if (is_integer(v->type)) {
        x = (double)lm_gguf_value_int(v, i);
    }
    return x;
}

const char *lm_gguf_value_string(const uint8_t **at, size_t *n_bytes)
{
    *n_bytes = (size_t)load(*at, 8);
    const char *text = (const char *)*at + 8;
    *at += 8 + *n_bytes;
    return text;
}

size_t lm_gguf_value_bytes(const lm_gguf_value *v)
{
    if (v->type != LM_GGUF_STRING)
        return (size_t)v->n * type_bytes(v->type);
    const uint8_t *at = v->data;
    for (uint64_t i = 0; i < v->n; i++) {
        size_t n;
        lm_gguf_value_string(&at, &n);
    }
    return (size_t)(at - v->data);
}

bool lm_gguf_int(const lm_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, lm_error *err)
{
    const lm_gguf_value *v = lm_gguf_value_find(g, key);
    if (!v)
        return true;
    if (v->is_array || !is_integer(v->type))
        return lm_fail(err, LM_ERROR_INPUT, "%s: key %s must be an integer", g->name, key);
    const int64_t x = lm_gguf_value_int(v, 0);
    if (x < min || x > max)
        return lm_fail(err, LM_ERROR_INPUT, "%s: key %s is %lld; must be from %lld to %lld", g->name, key, (long long)x,
                       (long long)min, (long long)max);
    *out = x;
    return true;
}

bool lm_gguf_number(const lm_gguf *g, const char *key, double *out, lm_error *err)
{
    const lm_gguf_value *v = lm_gguf_value_find(g, key);
    if (!v)
        return true;
    const double x = v->is_array ? (double)NAN : lm_gguf_value_number(v, 0);
    if (!isfinite(x))
        return lm_fail(err, LM_ERROR_INPUT, "%s: key %s must be a finite number", g->name, key);
    *out = x;
    return true;
}

bool lm_gguf_bool(const lm_gguf *g, const char *key, bool *out, lm_error *err)
{
    const lm_gguf_value *v = lm_gguf_value_find(g, key);
    if (!v)
        return true;
    if (v->is_array || v->type != LM_GGUF_BOOL || v->data[0] > 1)
        return lm_fail(err, LM_ERROR_INPUT, "%s: key %s must be a bool", g->name, key);
    *out = v->data[0] == 1;
    return true;
}

bool lm_gguf_string(const lm_gguf *g, const char *key, char *out, size_t n, lm_error *err)
{
    const lm_gguf_value *v = lm_gguf_value_find(g, key);
    if (!v)
        return true;
    if (v->is_array || v->type != LM_GGUF_STRING)
        return lm_fail(err, LM_ERROR_INPUT, "%s: key %s must be a string", g->name, key);
    const uint8_t *at = v->data;
    size_t bytes;
    const char *text = lm_gguf_value_string(&at, &bytes);
    if (bytes >= n || memchr(text, 0, bytes))
        return lm_fail(err, LM_ERROR_INPUT, "%s: key %s: %zu bytes are too long or contain a zero", g->name, key,
                       bytes);
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    return true;
}
