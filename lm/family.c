#include "family.h"
#include "error.h"

#include <string.h>

static const char *const llama_refused[] = {"mlp_bias", NULL};

static const lm_family families[] = {
    {.gguf = "llama",
     .hf = "llama",
     .bias_key = true,
     .gguf_factors = true,
     .gguf_layout = PRISM_ROPE_INTERLEAVED,
     .refused_hf = llama_refused},
    {.gguf = "llama",
     .hf = "mistral",
     .hf_window = LM_WINDOW_EVERY,
     .gguf_factors = true,
     .gguf_layout = PRISM_ROPE_INTERLEAVED},
    {.gguf = "qwen2",
     .hf = "qwen2",
     .qkv_bias = true,
     .hf_window = LM_WINDOW_UPPER,
     .gguf_layout = PRISM_ROPE_HALF_SPLIT},
    {.gguf = "qwen3",
     .hf = "qwen3",
     .qk_norm = true,
     .bias_key = true,
     .d_head = 128,
     .hf_window = LM_WINDOW_UPPER,
     .gguf_layout = PRISM_ROPE_HALF_SPLIT},
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
    size_t count = 0;
    for (int i = 0; i < N_FAMILY; i++)
        if (!gguf || i == 0 || strcmp(families[i].gguf, families[i - 1].gguf) != 0)
            names[count++] = gguf ? families[i].gguf : families[i].hf;
    return lm_list_text(names, count, "and", text, n);
}
