/* A model in several files: their names, and that they belong together. */
#include "file.h"
#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PARTS 99999 /* five digits */
#define MERGE "llama-gguf-split --merge puts parts into one file"

/* What a file says of itself; one without these keys is part 0 of 1. */
typedef struct place {
    int64_t index, count, n_tensor; /* n_tensor: of all parts together; -1: it does not say */
} place;

static bool read_place(const lm_gguf *g, const char *where, place *p, lm_error *err)
{
    *p = (place){.count = 1, .n_tensor = -1};
    if (!lm_gguf_int(g, "split.count", 0, MAX_PARTS, &p->count, err) ||
        !lm_gguf_int(g, "split.no", 0, MAX_PARTS, &p->index, err) ||
        !lm_gguf_int(g, "split.tensors.count", 0, INT32_MAX, &p->n_tensor, err))
        return false;
    p->count += p->count == 0;
    return p->index < p->count || lm_fail(err, LM_ERROR_INPUT, "%s: split.no is %lld, but split.count is %lld", where,
                                          (long long)p->index, (long long)p->count);
}

bool lm_gguf_join(lm_gguf **parts, size_t n, const char *where, lm_error *err)
{
    place first = {0}, p;
    for (size_t i = 0; i < n; i++) {
        if (!read_place(parts[i], where, &p, err))
            return false;
        if (i == 0)
            first = p;
        if (p.index != (int64_t)i || p.count != (int64_t)n || p.n_tensor != first.n_tensor)
            return lm_fail(err, LM_ERROR_INPUT,
                           "%s: file %zu of %zu says that it is part %lld of %lld, and of %lld tensors where the first "
                           "says %lld: these are not parts of one model",
                           where, i + 1, n, (long long)p.index + 1, (long long)p.count, (long long)p.n_tensor,
                           (long long)first.n_tensor);
    }
    for (size_t i = 1; i < n; i++) {
        lm_gguf *part = parts[i];
        parts[i] = NULL;
        if (!lm_gguf_take_part(parts[0], part, err))
            return false;
    }
    const size_t have = lm_gguf_tensor_count(parts[0]);
    return first.n_tensor < 0 || (uint64_t)first.n_tensor == have ||
           lm_fail(err, LM_ERROR_INPUT, "%s: its parts hold %zu tensors, but split.tensors.count is %lld", where, have,
                   (long long)first.n_tensor);
}

/* Opens part i, whose name is the first n bytes of path and its number. */
static bool open_numbered(const char *path, size_t n, size_t i, size_t count, lm_gguf **out, lm_error *err)
{
    char *name = malloc(n + 64);
    if (!name)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", path);
    snprintf(name, n + 64, "%.*s-%05zu-of-%05zu.gguf", (int)n, path, i + 1, count);
    const bool ok = lm_path_exists(name)
                        ? lm_gguf_open_part(name, out, err)
                        : lm_fail(err, LM_ERROR_INPUT, "%s: is missing; all %zu parts stand in one folder, and %s", name,
                                  count, MERGE);
    free(name);
    return ok;
}

static bool open_parts(const char *path, const place *p, lm_gguf **out, lm_error *err)
{
    char ending[64];
    snprintf(ending, sizeof ending, "-%05lld-of-%05lld.gguf", (long long)p->index + 1, (long long)p->count);
    const size_t n = strlen(path), n_ending = strlen(ending), count = (size_t)p->count;
    if (n < n_ending || strcmp(path + n - n_ending, ending) != 0)
        return lm_fail(err, LM_ERROR_INPUT,
                       "%s: is part %lld of %lld, so its name must end in \"%s\" for the others to be found; %s", path,
                       (long long)p->index + 1, (long long)p->count, ending, MERGE);
    lm_gguf **parts = calloc(count, sizeof *parts);
    bool ok = parts || lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for its %zu parts", path, count);
    for (size_t i = 0; ok && i < count; i++)
        ok = open_numbered(path, n - n_ending, i, count, &parts[i], err);
    ok = ok && lm_gguf_join(parts, count, path, err);
    if (ok)
        *out = parts[0];
    for (size_t i = ok; parts && i < count; i++)
        lm_gguf_close(parts[i]);
    free(parts);
    return ok;
}

bool lm_gguf_open(const char *path, lm_gguf **out, lm_error *err)
{
    lm_gguf *g;
    place p;
    if (!lm_gguf_open_part(path, &g, err))
        return false;
    bool ok = read_place(g, path, &p, err);
    if (ok && p.count == 1) {
        *out = g;
        return true;
    }
    lm_gguf_close(g);
    return ok && open_parts(path, &p, out, err);
}
