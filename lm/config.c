#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Far above any model; below it no product of two dimensions overflows. */
enum { MAX_LAYER = 1024, MAX_WIDTH = 1 << 20, MAX_HEAD = 4096, MAX_VOCAB = 1 << 24 };

static bool range(const char *where, const char *what, int64_t value, int64_t min, int64_t max, lm_error *err)
{
    if (value >= min && value <= max)
        return true;
    return lm_fail(err, LM_ERROR_INPUT, "%s: %s is %lld; must be from %lld to %lld", where, what, (long long)value,
                   (long long)min, (long long)max);
}

/* Checks that hold for both file formats. */
static bool check_shape(const lm_config *c, const char *where, lm_error *err)
{
    if (!range(where, "the number of layers", c->n_layer, 1, MAX_LAYER, err) ||
        !range(where, "the hidden size", c->d_model, 1, MAX_WIDTH, err) ||
        !range(where, "the vocabulary", c->n_vocab, 1, MAX_VOCAB, err) ||
        !range(where, "the MLP size", c->d_ff, 1, MAX_WIDTH, err) ||
        !range(where, "the number of heads", c->n_head, 1, MAX_HEAD, err) ||
        !range(where, "the number of KV heads", c->n_kv_head, 1, c->n_head, err) ||
        !range(where, "the size of a head", c->d_head, 2, PRISM_MAX_D_HEAD, err) ||
        !range(where, "the number of rotated dimensions", c->rope.n_dim, 2, c->d_head, err))
        return false;
    if (c->n_head % c->n_kv_head)
        return lm_fail(err, LM_ERROR_INPUT, "%s: %d heads are no multiple of %d KV heads", where, c->n_head,
                       c->n_kv_head);
    if (c->rope.n_dim % 2)
        return lm_fail(err, LM_ERROR_INPUT, "%s: %d rotated dimensions do not make pairs", where, c->rope.n_dim);
    if (!(c->rms_eps > 0 && c->rms_eps < 1))
        return lm_fail(err, LM_ERROR_INPUT, "%s: the epsilon of the norms is %g; must be in (0, 1)", where,
                       (double)c->rms_eps);
    return true;
}

static bool check_rope(const lm_config *c, const char *where, lm_error *err)
{
    const lm_rope *r = &c->rope;
    if (!(r->base > 1 && r->base < 1e15))
        return lm_fail(err, LM_ERROR_INPUT, "%s: RoPE base %g; must be above 1", where, r->base);
    if (!(r->factor >= 1 && r->factor <= 1e6))
        return lm_fail(err, LM_ERROR_INPUT, "%s: RoPE scaling factor %g; must be from 1 to 1e6", where, r->factor);
    if ((r->scaling == LM_ROPE_YARN || r->scaling == LM_ROPE_LLAMA3) && !(r->n_ctx_original >= 1))
        return lm_fail(err, LM_ERROR_INPUT, "%s: RoPE scaling needs the original context length", where);
    if (!(r->attention_factor > 0 && r->attention_factor < 100))
        return lm_fail(err, LM_ERROR_INPUT, "%s: RoPE attention factor %g is out of range", where, r->attention_factor);
    if (r->scaling == LM_ROPE_YARN && !(r->beta_fast > r->beta_slow && r->beta_slow > 0))
        return lm_fail(err, LM_ERROR_INPUT, "%s: YaRN needs beta_fast > beta_slow > 0; they are %g and %g", where,
                       r->beta_fast, r->beta_slow);
    if (r->scaling == LM_ROPE_LLAMA3 && !(r->high_freq_factor > r->low_freq_factor && r->low_freq_factor > 0))
        return lm_fail(err, LM_ERROR_INPUT, "%s: llama3 scaling needs high_freq_factor > low_freq_factor > 0", where);
    return true;
}

void lm_config_defaults(lm_config *c)
{
    *c = (lm_config){.n_ctx_train = 2048, .bos_id = -1, .pad_id = -1};
    c->rope = (lm_rope){.base = 10000,
                        .factor = 1,
                        .beta_fast = 32,
                        .beta_slow = 1,
                        .truncate = true,
                        .attention_factor = 1,
                        .low_freq_factor = 1,
                        .high_freq_factor = 4};
}

void lm_config_add_eos(lm_config *c, int64_t id)
{
    for (int32_t i = 0; i < c->n_eos; i++)
        if (c->eos_id[i] == id)
            return;
    if (id >= 0 && c->n_eos < LM_MAX_EOS)
        c->eos_id[c->n_eos++] = (int32_t)id;
}

bool lm_config_check(const lm_config *c, const char *where, lm_error *err)
{
    return check_shape(c, where, err) && check_rope(c, where, err);
}
