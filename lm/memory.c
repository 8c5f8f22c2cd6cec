#include "memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Returns the number in the first line of a file that has the format, as sscanf() reads it; without one, fallback. */
static uint64_t number_in(const char *path, const char *format, uint64_t fallback)
{
    char line[128];
    uint64_t v = fallback;
    bool found = false;
    FILE *f = fopen(path, "r");
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, format, &v) == 1;
    if (f)
        fclose(f);
    return found ? v : fallback;
}

uint64_t lm_memory_available(void)
{
    const uint64_t kib = number_in("/proc/meminfo", "MemAvailable: %" SCNu64, UINT64_MAX / 1024);
    const uint64_t system = kib == UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
    /* Containers: the limit counts page cache in use too, so what is left by it is a lower bound; half the limit is
     * always believed to be there. */
    const uint64_t limit = number_in("/sys/fs/cgroup/memory.max", "%" SCNu64, UINT64_MAX);
    const uint64_t used = number_in("/sys/fs/cgroup/memory.current", "%" SCNu64, 0);
    if (limit == UINT64_MAX)
        return system;
    uint64_t left = limit > used ? limit - used : 0;
    left = left < limit / 2 ? limit / 2 : left;
    return left < system ? left : system;
}

bool lm_grow(void *list, size_t *capacity, size_t n, size_t more, size_t size)
{
    size_t wanted, bytes;
    if (__builtin_add_overflow(n, more, &wanted))
        return false;
    if (wanted <= *capacity)
        return true;
    wanted = wanted / 2 < *capacity ? *capacity * 2 : wanted;
    void *old, *grown;
    memcpy(&old, list, sizeof old);
    if (__builtin_mul_overflow(wanted, size, &bytes) || !(grown = realloc(old, bytes)))
        return false;
    memcpy(list, &grown, sizeof grown);
    *capacity = wanted;
    return true;
}
