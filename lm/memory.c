#include "memory.h"

#include <inttypes.h>
#include <stdio.h>

/* A number in a file of its own ("max" and the like give fallback). */
static uint64_t read_number(const char *path, uint64_t fallback)
{
    uint64_t v = fallback;
    FILE *f = fopen(path, "r");
    if (!f)
        return fallback;
    if (fscanf(f, "%" SCNu64, &v) != 1)
        v = fallback;
    fclose(f);
    return v;
}

static uint64_t system_available(void)
{
    char line[128];
    uint64_t kib;
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f)
        return UINT64_MAX;
    uint64_t found = UINT64_MAX;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) {
            found = kib * 1024;
            break;
        }
    fclose(f);
    return found;
}

uint64_t lm_memory_available(void)
{
    const uint64_t system = system_available();
    /* Containers: the limit counts page cache in use too, so what is left by it is a lower bound; half the limit is
     * always believed to be there. */
    const uint64_t limit = read_number("/sys/fs/cgroup/memory.max", UINT64_MAX);
    const uint64_t used = read_number("/sys/fs/cgroup/memory.current", 0);
    if (limit == UINT64_MAX)
        return system;
    uint64_t left = limit > used ? limit - used : 0;
    left = left < limit / 2 ? limit / 2 : left;
    return left < system ? left : system;
}
