/*
 * lm/gguf.h - reads GGUF version 2 and 3 (little endian), writes version 3.
 *
 * Metadata is kept as views into the mapped file; strings are not terminated. A file is checked as a whole when it is
 * opened: counts and lengths against the bytes that are left, types, alignment, that no key or tensor comes twice,
 * and that tensors lie inside the file and do not overlap. Arrays of arrays are refused: no model uses them.
 * Threads: a reader is immutable once open; a writer belongs to one thread.
 */
#ifndef LM_GGUF_H
#define LM_GGUF_H

#include "tensor.h"

/* As in the file. */
typedef enum lm_gguf_type {
    LM_GGUF_U8 = 0,
    LM_GGUF_I8 = 1,
    LM_GGUF_U16 = 2,
    LM_GGUF_I16 = 3,
    LM_GGUF_U32 = 4,
    LM_GGUF_I32 = 5,
    LM_GGUF_F32 = 6,
    LM_GGUF_BOOL = 7,
    LM_GGUF_STRING = 8,
    LM_GGUF_ARRAY = 9,
    LM_GGUF_U64 = 10,
    LM_GGUF_I64 = 11,
    LM_GGUF_F64 = 12
} lm_gguf_type;

typedef struct lm_gguf_value {
    const char *key;   /* terminated */
    lm_gguf_type type; /* of the value; of the elements where is_array */
    bool is_array;
    uint64_t n;          /* elements; 1 where it is no array */
    const uint8_t *data; /* the elements, packed and possibly unaligned; strings: u64 length, bytes */
} lm_gguf_value;

#define LM_GGUF_CHAT_TEMPLATE "tokenizer.chat_template"

typedef struct lm_gguf lm_gguf;

/* A model in several files ("NAME-00001-of-00003.gguf", as llama-gguf-split writes them) is opened by any of its parts:
 * all tensors, and the keys of the first part. */
bool lm_gguf_open(const char *path, lm_gguf **out, lm_error *err);
/* From memory that stays until the close, aligned to 8. name: for messages. */
bool lm_gguf_open_memory(const void *data, size_t bytes, const char *name, lm_gguf **out, lm_error *err);
void lm_gguf_close(lm_gguf *gguf); /* NULL is allowed */

/* Opens one file, whatever it is a part of. */
bool lm_gguf_open_part(const char *path, lm_gguf **out, lm_error *err);
/* Puts the n parts of a model together: on success parts[0] is the model and owns the others. parts[i] is NULL where it
 * was taken; the rest stays the caller's to close. INPUT: they are not the parts of one model, in this order. */
bool lm_gguf_join(lm_gguf **parts, size_t n, const char *where, lm_error *err);
/* Moves the tensors of part, which it takes in any case, into gguf. INPUT: a name comes twice. */
bool lm_gguf_take_part(lm_gguf *gguf, lm_gguf *part, lm_error *err);

/* True if the file starts like a GGUF file. */
bool lm_gguf_probe(const char *path);

size_t lm_gguf_tensor_count(const lm_gguf *gguf);
const lm_tensor *lm_gguf_tensor_at(const lm_gguf *gguf, size_t i); /* in one array, ordered by name */
const lm_tensor *lm_gguf_tensor(const lm_gguf *gguf, const char *name); /* NULL: none */

size_t lm_gguf_value_count(const lm_gguf *gguf);
const lm_gguf_value *lm_gguf_value_at(const lm_gguf *gguf, size_t i); /* in one array, ordered by key */
const lm_gguf_value *lm_gguf_value_find(const lm_gguf *gguf, const char *key); /* NULL: none */

/* Typed reading; a missing key leaves *out as it is and is no error, a value of another kind or range is. Any integer
 * type (and bool) serves as an integer, F32, F64 and integers as a number. */
bool lm_gguf_int(const lm_gguf *gguf, const char *key, int64_t min, int64_t max, int64_t *out, lm_error *err);
bool lm_gguf_number(const lm_gguf *gguf, const char *key, double *out, lm_error *err);
bool lm_gguf_bool(const lm_gguf *gguf, const char *key, bool *out, lm_error *err);
/* Copies at most n - 1 bytes; longer strings are an error. */
bool lm_gguf_string(const lm_gguf *gguf, const char *key, char *out, size_t n, lm_error *err);

/* Element i < v->n of an array (or the value itself). The value must hold integers or bools. */
int64_t lm_gguf_value_int(const lm_gguf_value *v, uint64_t i);
/* The same as a number, of any type; NaN for strings. */
double lm_gguf_value_number(const lm_gguf_value *v, uint64_t i);
/* The bytes of a value's elements in the file. */
size_t lm_gguf_value_bytes(const lm_gguf_value *v);
/* Walks the strings of a value: *at starts at v->data and moves on; call at most v->n times. */
const char *lm_gguf_value_string(const uint8_t **at, size_t *n_bytes);

/* ---------------------------------------------------------------------------------------------- writing ---- */

/* Metadata first, then the list of tensors, then lm_gguf_writer_start(), the tensors' data in the listed order, and
 * lm_gguf_writer_finish(). An allocation that fails is remembered and reported by start. */
typedef struct lm_gguf_writer lm_gguf_writer;

lm_gguf_writer *lm_gguf_writer_create(void); /* NULL: no memory */
void lm_gguf_writer_free(lm_gguf_writer *w); /* removes what was not finished; NULL is allowed */

void lm_gguf_put_u32(lm_gguf_writer *w, const char *key, uint32_t value);
void lm_gguf_put_f32(lm_gguf_writer *w, const char *key, float value);
void lm_gguf_put_bool(lm_gguf_writer *w, const char *key, bool value);
void lm_gguf_put_string(lm_gguf_writer *w, const char *key, const char *value);
void lm_gguf_put_value(lm_gguf_writer *w, const lm_gguf_value *value); /* another file's, as it stands there */
/* Arrays: begin, then exactly n elements. */
void lm_gguf_put_array(lm_gguf_writer *w, const char *key, lm_gguf_type type, uint64_t n);
void lm_gguf_put_array_string(lm_gguf_writer *w, const char *data, size_t n_bytes);
void lm_gguf_put_array_i32(lm_gguf_writer *w, int32_t value);
/* dim[0] slowest, as everywhere in lm/; the name is copied. */
void lm_gguf_put_tensor(lm_gguf_writer *w, const char *name, lm_dtype dtype, int32_t n_dim, const int64_t *dim);

bool lm_gguf_writer_start(lm_gguf_writer *w, const char *path, lm_error *err);
/* Bytes of the next tensor; several calls may make up one tensor, no call spans two. */
bool lm_gguf_writer_data(lm_gguf_writer *w, const void *data, size_t bytes, lm_error *err);
bool lm_gguf_writer_finish(lm_gguf_writer *w, lm_error *err);

#endif
