/*
 * lm/file.h - files: read-only maps, whole small files, and writing that either completes or leaves nothing behind.
 */
#ifndef LM_FILE_H
#define LM_FILE_H

#include "error.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A whole file mapped read-only. A file that another process truncates while it is mapped raises SIGBUS: the price of
 * not copying weights. */
typedef struct lm_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t bytes;
} lm_map;

bool lm_map_open(const char *path, lm_map *map, lm_error *err);
void lm_map_close(lm_map *map); /* a zeroed map is allowed */

/* The whole file and a terminating NUL that *n does not count; free() it. Files above max_bytes are an error. */
bool lm_read_file(const char *path, size_t max_bytes, char **text, size_t *n, lm_error *err);

/* "dir/name" in fresh memory; NULL when there is none. */
char *lm_path_join(const char *dir, const char *name);
bool lm_path_is_directory(const char *path);
bool lm_path_exists(const char *path);

/* A file under construction: written beside its destination under another name, renamed by lm_writer_commit(). What is
 * no regular file (a device, a pipe) is written in place; links are followed. "-" is standard output. */
typedef struct lm_writer {
    FILE *file;
    char *path, *temporary; /* temporary NULL: in place */
    uint64_t n_written;
} lm_writer;

bool lm_writer_open(lm_writer *w, const char *path, lm_error *err);
bool lm_writer_put(lm_writer *w, const void *data, size_t bytes, lm_error *err);
bool lm_writer_pad(lm_writer *w, size_t alignment, lm_error *err); /* zeros up to a multiple of alignment */
/* Flushes to disk and renames. On failure, as lm_writer_discard(). */
bool lm_writer_commit(lm_writer *w, lm_error *err);
void lm_writer_discard(lm_writer *w); /* a zeroed or committed writer is allowed */

#endif
