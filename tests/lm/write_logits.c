/* For test_reference.py: lm_logits MODEL IN OUT reads "tokens" (I32) of a safetensors file, and writes "logits" of every
 * position, by full attention, all in float32. lm_logits alone lists the types of weights with their numbers in GGUF. */
#include "lm/lm.h"
#include "lm/safetensors.h"
#include "lm/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t n_vocab;

static bool keep(void *user, int32_t first, int32_t n, const float *logits)
{
    float *all = user;
    memcpy(all + (size_t)first * (size_t)n_vocab, logits, (size_t)n * (size_t)n_vocab * sizeof *logits);
    return true;
}

static bool compute(const lm_model *model, const int32_t *tokens, int32_t n, float *logits, lm_error *err)
{
    prism_ctx *ctx = NULL;
    prism_options dense;
    prism_options_init(&dense);
    dense.method = PRISM_METHOD_DENSE;
    lm_session_options o;
    lm_session_options_init(&o);
    o.n_ctx = n;
    o.kv_type = PRISM_F32;
    o.product = LM_PRODUCT_F32;
    o.options = &dense;
    o.on_logits = keep;
    o.user = logits;
    lm_session *s = NULL;
    const bool done = (prism_create(NULL, &ctx) == PRISM_OK || lm_fail(err, LM_ERROR_RUN, "no context")) &&
                      lm_session_create(model, ctx, &o, &s, err) &&
                      lm_session_prefill(s, tokens, n, NULL, NULL, err);
    lm_session_destroy(s);
    prism_destroy(ctx);
    return done;
}

static bool run(const char *path, const char *in, const char *out, lm_error *err)
{
    lm_model *model = NULL;
    lm_safetensors *file = NULL;
    if (!lm_model_open(path, &model, err) || !lm_safetensors_open(in, &file, err))
        return false;
    const lm_tensor *tokens = lm_safetensors_find(file, "tokens");
    if (!tokens || tokens->n_dim != 1 || tokens->dtype != LM_I32)
        return lm_fail(err, LM_ERROR_INPUT, "%s: has no list of I32 \"tokens\"", in);
    n_vocab = lm_model_config(model)->n_vocab;
    lm_tensor t = {.name = "logits", .dtype = LM_F32, .n_dim = 2, .dim = {tokens->dim[0], n_vocab}};
    t.bytes = (size_t)(t.dim[0] * t.dim[1]) * sizeof(float);
    float *logits = malloc(t.bytes);
    t.data = logits;
    if (!logits)
        return lm_fail(err, LM_ERROR_MEMORY, "no memory for the logits");
    const bool done = compute(model, tokens->data, (int32_t)tokens->dim[0], logits, err) &&
                      lm_safetensors_write(out, &t, 1, NULL, 0, err);
    free(logits);
    lm_safetensors_close(file);
    lm_model_close(model);
    return done;
}

int main(int argc, char **argv)
{
    lm_error err;
    if (argc == 1) {
        for (int i = 0; i < LM_DTYPE_COUNT; i++)
            if (lm_dtypes[i].widen)
                printf("%s %d\n", lm_dtypes[i].name, (int)lm_dtypes[i].ggml);
        return 0;
    }
    if (argc != 4)
        return 2;
    if (run(argv[1], argv[2], argv[3], &err))
        return 0;
    fprintf(stderr, "%s\n", err.text);
    return 1;
}
