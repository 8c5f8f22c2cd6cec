#include "family.h"
#include "error.h"

#include <string.h>

static const char *const windows_hf[] = {"mlp_bias", "use_sliding_window", NULL};
static const char *const windows_gguf[] = {"expert_count", "attention.sliding_window", NULL};

static const lm_family families[] = {
    {.gguf = "qwen3",
     .hf = "qwen3",
     .qk_norm = true,
     .d_head = 128,
     .gguf_layout = PRISM_ROPE_HALF_SPLIT,
     .refused_hf = windows_hf,
     .refused_gguf = windows_gguf},
    {.gguf = "llama",
     .hf = "llama",
     .gguf_factors = true,
     .gguf_layout = PRISM_ROPE_INTERLEAVED,
     .refused_hf = windows_hf,
     .refused_gguf = windows_gguf},
};
enum { N_FAMILY = sizeof families / sizeof *families };

const lm_family *lm_family_find(const char *gguf, const char *hf)
{
    for (int i = 0; i < N_FAMILY; i++)
        if (gguf ? strcmp(gguf, families[i].gguf) == 0 : strcmp(hf, families[i].hf) == 0)
            return &families[i];
    return NULL;
}

const char *lm_family_names(bool gguf, char *text, size_t n)
{
    const char *names[N_FAMILY];
    for (int i = 0; i < N_FAMILY; i++)
        names[i] = gguf ? families[i].gguf : families[i].hf;
    return lm_list_text(names, N_FAMILY, "and", text, n);
}
