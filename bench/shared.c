/* Memory of the process, and the count of attention's operations. */
#include <malloc.h>
#include <stdio.h>

#include "bench.h"

/* ----------------------------------------------------------------------------------------------- memory ---- */

static int64_t read_kib(const char *path, const char *format)
{
    char line[256];
    long long kib = -1;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, format, &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib < 0 ? -1 : kib * 1024;
}

/* The sum over the page tables: /proc/self/status keeps per-thread counts that lag behind by some hundred KiB. */
int64_t bench_resident_bytes(void)
{
    const int64_t exact = read_kib("/proc/self/smaps_rollup", "Rss: %lld kB");
    return exact >= 0 ? exact : read_kib("/proc/self/status", "VmRSS: %lld kB");
}

int64_t bench_peak_bytes(void)
{
    return read_kib("/proc/self/status", "VmHWM: %lld kB");
}

bool bench_reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f)
        return false;
    const bool written = fputs("5", f) >= 0; /* resets VmHWM, proc(5) */
    return fclose(f) == 0 && written;
}

void bench_return_freed_memory(void)
{
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 64 << 10); /* a value set by hand also stays: it grows with every free() otherwise */
    mallopt(M_TRIM_THRESHOLD, 64 << 10);
    malloc_trim(0);
#endif
}

/* ----------------------------------------------------------------------------------------------- counts ---- */

double bench_attend_flop(const prism_call *call, int32_t block_size, const prism_plan_view *view)
{
    const int32_t q_start = call->q_start >= 0 ? call->q_start : call->n_kv - call->n_q;
    const int32_t first = q_start / block_size, last = (q_start + call->n_q - 1) / block_size;
    double pairs = 0;
    for (int32_t u = first; u <= last; u++) {
        const int32_t begin = u * block_size > q_start ? u * block_size : q_start;
        const int32_t end = (u + 1) * block_size < q_start + call->n_q ? (u + 1) * block_size : q_start + call->n_q;
        double n_key = 0; /* over all heads */
        for (int32_t h = 0; view && h < call->n_head; h++) {
            const int64_t row = (int64_t)h * view->n_qblk + u - first;
            n_key += (double)(view->row_ptr[row + 1] - view->row_ptr[row]) * block_size;
            if (view->key_ptr)
                n_key += (double)(view->key_ptr[row + 1] - view->key_ptr[row]);
        }
        if (!view)
            n_key = (double)call->n_head * (u + 1) * block_size;
        pairs += (end - begin) * n_key;
    }
    return 4.0 * call->d_head * pairs;
}
