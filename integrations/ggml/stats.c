/* PRISM_STATS: what happened to every claimed node. */
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* llama.cpp names the KV cache's tensors cache_k_l<layer>. */
static int layer_of(const ggml_tensor *node)
{
    const ggml_tensor *cache = node->src[1];
    while (cache->view_src)
        cache = cache->view_src;
    int layer = -1;
    return sscanf(cache->name, "cache_k_l%d", &layer) == 1 ? layer : -1;
}

void plugin_stats_write(const ggml_tensor *node, double seconds, const plugin_report *r)
{
    if (!file)
        return;
    char line[512];
    int n = snprintf(line, sizeof line,
                     "{\"layer\": %d, \"n_q\": %lld, \"n_kv\": %lld, \"n_stream\": %lld, \"seconds\": %.6f, \"path\": "
                     "\"%s\"",
                     layer_of(node), (long long)node->src[0]->ne[1], (long long)node->src[1]->ne[1],
                     (long long)node->src[0]->ne[3], seconds, r->path);
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
