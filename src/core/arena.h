/* Cuts the caller's workspace into buffers. With base NULL it only counts, so one layout function serves both
 * prism_workspace_bytes() and the call itself. */
#ifndef PRISM_CORE_ARENA_H
#define PRISM_CORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRISM_ALIGN 64 /* one cache line, one AVX-512 vector */

typedef struct prism_arena {
    char *base;
    size_t used;
    bool overflow; /* a size did not fit size_t */
} prism_arena;

static inline void *prism_arena_take(prism_arena *a, size_t count, size_t element_bytes)
{
    size_t bytes, end;
    if (__builtin_mul_overflow(count, element_bytes, &bytes) || __builtin_add_overflow(a->used, bytes, &end) ||
        end > SIZE_MAX - PRISM_ALIGN) {
        a->overflow = true;
        return NULL;
    }
    void *p = a->base ? a->base + a->used : NULL;
    a->used = (end + PRISM_ALIGN - 1) & ~(size_t)(PRISM_ALIGN - 1);
    return p;
}

/* count = product of up to four factors, none negative. */
static inline size_t prism_arena_count(prism_arena *a, int64_t n0, int64_t n1, int64_t n2, int64_t n3)
{
    size_t n;
    if (__builtin_mul_overflow((size_t)n0, (size_t)n1, &n) || __builtin_mul_overflow(n, (size_t)n2, &n) ||
        __builtin_mul_overflow(n, (size_t)n3, &n)) {
        a->overflow = true;
        return 0;
    }
    return n;
}

#endif
