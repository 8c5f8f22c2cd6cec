/* PRISM_STATS: what happened to every claimed node. */
#define _POSIX_C_SOURCE 200809L
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static FILE *file;

void plugin_stats_open(void)
{
    const char *name = getenv("PRISM_STATS");
    if (file || !name || !*name)
        return;
    file = fopen(name, "a");
    if (!file)
        fprintf(stderr, "prism: cannot write PRISM_STATS file %s\n", name);
}

bool plugin_stats_wanted(void)
{
    return file;
}

static double read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

plugin_clock plugin_stats_clock(void)
{
    return (plugin_clock){.seconds = read_clock(CLOCK_MONOTONIC), .cpu_seconds = read_clock(CLOCK_PROCESS_CPUTIME_ID)};
}

/* llama.cpp names the KV cache's tensors cache_k_l<layer>. */
static int layer_of(const ggml_tensor *node)
{
    const ggml_tensor *cache = node->src[1];
    while (cache->view_src)
        cache = cache->view_src;
    int layer = -1;
    return sscanf(cache->name, "cache_k_l%d", &layer) == 1 ? layer : -1;
}

void plugin_stats_write(const ggml_tensor *node, plugin_clock start, const plugin_report *r)
{
    if (!file)
        return;
    const plugin_clock end = plugin_stats_clock();
    char line[512];
    int n = snprintf(line, sizeof line,
                     "{\"layer\": %d, \"n_q\": %lld, \"n_kv\": %lld, \"n_stream\": %lld, \"seconds\": %.6f, "
                     "\"cpu_seconds\": %.6f, \"path\": \"%s\"",
                     layer_of(node), (long long)node->src[0]->ne[1], (long long)node->src[1]->ne[1],
                     (long long)node->src[0]->ne[3], end.seconds - start.seconds, end.cpu_seconds - start.cpu_seconds,
                     r->path);
    if (r->reason)
        n += snprintf(line + n, sizeof line - (size_t)n, ", \"reason\": \"%s\"}", r->reason);
    else
        n += snprintf(line + n, sizeof line - (size_t)n,
                      ", \"groups\": %d, \"reused\": %lld, \"density\": %.4f, \"select_seconds\": %.6f, "
                      "\"attend_seconds\": %.6f}",
                      r->n_group, (long long)r->n_reused, r->stats.density, r->stats.select_seconds,
                      r->stats.attend_seconds);
    fprintf(file, "%s\n", line); /* one call: lines of different threads do not mix */
    fflush(file);
}
