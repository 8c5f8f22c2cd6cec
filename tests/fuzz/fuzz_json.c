/* Any text as config.json, tokenizer_config.json, and model.safetensors.index.json. */
#include "lm/config.h"
#include "lm/json.h"
#include "lm/safetensors.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *text = (const char *)data;
    lm_error err;
    char **names;
    size_t n_name;
    if (lm_safetensors_index(text, n, "fuzz", &names, &n_name, &err))
        lm_safetensors_free_names(names, n_name);
    cJSON *json = lm_json_parse(text, n, "fuzz", &err);
    lm_config config;
    if (json && lm_config_from_json(json, json, "fuzz", &config, &err)) {
        lm_config_decide_bos(&config, json, false, "fuzz", &err);
        if (config.n_head % config.n_kv_head || config.d_head > PRISM_MAX_D_HEAD || config.rope.n_dim > config.d_head)
            abort();
    }
    cJSON_Delete(json);
    return 0;
}
