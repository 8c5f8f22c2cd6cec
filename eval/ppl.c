#include "eval/ppl.h"

#include "eval/identity.h"
#include "eval/text.h"
#include "eval/work.h"
#include "lm/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ texts ---- */

int64_t eval_count_words(const char *text, size_t n)
{
    int64_t words = 1;
    bool in_space = false;
    for (size_t i = 0, width; i < n; i += width) {
        const bool space = eval_is_space(eval_utf8_next(text + i, n - i, &width));
        words += space && !in_space;
        in_space = space;
    }
    return words;
}

bool eval_ppl_text_make(const lm_model *model, const char *name, const char *text, size_t n, int64_t max_tokens,
                        eval_ppl_text *out, lm_error *err)
{
    const lm_tokenizer *tok = lm_model_tokenizer(model);
    lm_text kept = {0};
    *out = (eval_ppl_text){0};
    if (!tok)
        return lm_fail(err, LM_ERROR_INPUT, "the model comes without a tokenizer");
    if (!lm_model_encode(model, text, n, false, &out->tokens, err))
        return false;
    if (max_tokens > 0 && out->tokens.n > (size_t)max_tokens)
        out->tokens.n = (size_t)max_tokens;
    bool ok = lm_tokenizer_decode(tok, out->tokens.ids, out->tokens.n, 0, &kept, err);
    if (ok && !out->tokens.n)
        ok = lm_fail(err, LM_ERROR_INPUT, "the text '%s' is empty", name);
    if (ok && !(out->name = strdup(name)))
        ok = lm_fail(err, LM_ERROR_MEMORY, "out of memory for a text");
    if (ok) {
        out->n_byte = (int64_t)kept.n;
        out->n_word = eval_count_words(kept.data, kept.n);
        out->hash = eval_hash(EVAL_HASH_START, kept.data, kept.n);
    }
    lm_text_free(&kept);
    if (!ok)
        eval_ppl_text_free(out);
    return ok;
}

void eval_ppl_text_free(eval_ppl_text *text)
{
    if (!text)
        return;
    free(text->name);
    lm_tokens_free(&text->tokens);
    *text = (eval_ppl_text){0};
}

/* ---------------------------------------------------------------------------------------------- windows ---- */

int64_t eval_ppl_window_count(int64_t n_token, int32_t n_ctx)
{
    return (n_token + n_ctx - 1) / n_ctx;
}

eval_ppl_window eval_ppl_window_at(int64_t n_token, int32_t n_ctx, int64_t i)
{
    const int64_t begin = i * n_ctx, left = n_token - begin;
    const int32_t n = (int32_t)(left < n_ctx ? left : n_ctx);
    if (i == 0)
        return (eval_ppl_window){-1, n, n};
    return (eval_ppl_window){begin + n - n_ctx - 1, n_ctx, n};
}

int32_t eval_ppl_bucket(int64_t position)
{
    int32_t bucket = 0;
    for (int64_t end = 128; position >= end && bucket < EVAL_PPL_N_BUCKET - 1; end *= 2)
        bucket++;
    return bucket;
}

/* Sums over a window. */
typedef struct sums {
    double nll, bucket_nll[EVAL_PPL_N_BUCKET];
    int64_t bucket_n[EVAL_PPL_N_BUCKET];
} sums;

static sums add_up(const eval_ppl_window *w, const double *nll)
{
    sums s = {0};
    for (int32_t position = w->n_input - w->n_predicted; position < w->n_input; position++) {
        const int32_t bucket = eval_ppl_bucket(position);
        s.nll += nll[position];
        s.bucket_nll[bucket] += nll[position];
        s.bucket_n[bucket]++;
    }
    return s;
}

/* -------------------------------------------------------------------------------------------------- run ---- */

typedef struct runner {
    const lm_model *model;
    const eval_run_options *options;
    const eval_method *method;
    lm_session *session;
    eval_results *results;
    const eval_watch *watch;
    eval_work work;
    eval_ppl_window window;
    int32_t *ids;     /* [n_ctx + 1]: the window's inputs, and one more: the last target */
    int32_t *targets; /* [n_ctx]: of each input, or -1 */
    double *nll;      /* [n_ctx] */
} runner;

static bool fill_ids(runner *r, const eval_ppl_text *text, lm_error *err)
{
    const eval_ppl_window *w = &r->window;
    const lm_config *config = lm_model_config(r->model);
    for (int32_t i = 0; i <= w->n_input; i++)
        if (w->first + i >= 0)
            r->ids[i] = text->tokens.ids[w->first + i];
    for (int32_t i = 0; i < w->n_input; i++)
        r->targets[i] = i < w->n_input - w->n_predicted ? -1 : r->ids[i + 1];
    if (w->first >= 0)
        return true;
    r->ids[0] = config->bos_id >= 0 ? config->bos_id : config->n_eos ? config->eos_id[0] : -1;
    return r->ids[0] >= 0 || lm_fail(err, LM_ERROR_INPUT, "the model defines neither a BOS nor an EOS token");
}

static bool run_window(runner *r, const eval_ppl_text *text, int32_t i, lm_error *err)
{
    const double start = eval_seconds();
    r->work = (eval_work){0};
    r->window = eval_ppl_window_at((int64_t)text->tokens.n, r->options->n_ctx, i);
    if (!fill_ids(r, text, err))
        return false;
    lm_session_reset(r->session);
    if (!lm_session_score(r->session, r->ids, r->targets, r->window.n_input, r->nll, r->watch ? r->watch->tokens : NULL,
                          r->watch ? r->watch->user : NULL, err))
        return false;
    const sums sum = add_up(&r->window, r->nll);
    lm_session_stats stats;
    lm_session_read_stats(r->session, &stats);
    cJSON *record = eval_record_create(r->method->label, text->name, r->options->n_ctx, i);
    cJSON_AddNumberToObject(record, "nll", sum.nll);
    cJSON_AddNumberToObject(record, "tokens", r->window.n_predicted);
    cJSON *nll = cJSON_AddArrayToObject(record, "bucket_nll"), *n = cJSON_AddArrayToObject(record, "bucket_tokens");
    for (int b = 0; b < EVAL_PPL_N_BUCKET; b++) {
        cJSON_AddItemToArray(nll, cJSON_CreateNumber(sum.bucket_nll[b]));
        cJSON_AddItemToArray(n, cJSON_CreateNumber((double)sum.bucket_n[b]));
    }
    eval_record_stats(record, &stats, r->work.flop);
    cJSON_AddNumberToObject(record, "prompt_tokens", r->window.n_input);
    cJSON_AddNumberToObject(record, "seconds", eval_seconds() - start);
    return eval_results_add(r->results, record, err);
}

static bool ensure_session(runner *r, prism_ctx *ctx, lm_error *err)
{
    return r->session || eval_create_session(r->model, ctx, r->method, r->options, &r->work, &r->session, err);
}

static bool run_method(runner *r, prism_ctx *ctx, const eval_ppl_text *texts, int32_t n_text, int64_t *done,
                       int64_t total, lm_error *err)
{
    const int32_t n_ctx = r->options->n_ctx;
    for (int32_t t = 0; t < n_text; t++) {
        const int64_t n_window = eval_ppl_window_count((int64_t)texts[t].tokens.n, n_ctx);
        for (int32_t i = 0; i < n_window; i++, ++*done) {
            if (eval_results_find(r->results, r->method->label, texts[t].name, n_ctx, i))
                continue;
            if (r->watch && r->watch->item)
                r->watch->item(r->watch->user, r->method->label, texts[t].name, *done, total);
            if (!ensure_session(r, ctx, err) || !run_window(r, &texts[t], i, err))
                return false;
        }
    }
    return true;
}

bool eval_ppl_run(const lm_model *model, prism_ctx *ctx, const eval_ppl_text *texts, int32_t n_text,
                  const eval_methods *methods, const eval_run_options *options, eval_results *results,
                  const eval_watch *watch, lm_error *err)
{
    int64_t done = 0, total = 0;
    for (int32_t t = 0; t < n_text; t++)
        total += eval_ppl_window_count((int64_t)texts[t].tokens.n, options->n_ctx) * methods->n;
    const size_t n_ctx = (size_t)options->n_ctx;
    int32_t *ids = malloc((2 * n_ctx + 1) * sizeof *ids);
    double *nll = malloc(n_ctx * sizeof *nll);
    bool ok = (ids && nll) || lm_fail(err, LM_ERROR_MEMORY, "out of memory for a window of %d tokens", options->n_ctx);
    for (int32_t m = 0; ok && m < methods->n; m++) {
        runner r = {.model = model,
                    .options = options,
                    .method = &methods->items[m],
                    .results = results,
                    .watch = watch,
                    .ids = ids,
                    .targets = ids + n_ctx + 1,
                    .nll = nll};
        ok = run_method(&r, ctx, texts, n_text, &done, total, err);
        lm_session_destroy(r.session);
    }
    free(ids);
    free(nll);
    return ok;
}

/* ------------------------------------------------------------------------------------------------- sums ---- */

static void add_buckets(const cJSON *record, eval_ppl_score *out)
{
    const cJSON *nll = lm_json_get(record, "bucket_nll"), *n = lm_json_get(record, "bucket_tokens");
    for (int b = 0; b < EVAL_PPL_N_BUCKET; b++) {
        const cJSON *x = cJSON_GetArrayItem(nll, b), *count = cJSON_GetArrayItem(n, b);
        out->bucket_nll[b] += x ? x->valuedouble : 0;
        out->bucket_n[b] += count ? (int64_t)count->valuedouble : 0;
    }
}

bool eval_ppl_sum(const eval_results *results, const char *method, int32_t n_ctx, const eval_ppl_text *texts,
                  int32_t n_text, eval_ppl_score *out)
{
    *out = (eval_ppl_score){0};
    for (int32_t t = 0; t < n_text; t++) {
        out->n_word += texts[t].n_word;
        out->n_byte += texts[t].n_byte;
        const int64_t n_window = eval_ppl_window_count((int64_t)texts[t].tokens.n, n_ctx);
        for (int32_t i = 0; i < n_window; i++, out->n_window++) {
            const cJSON *record = eval_results_find(results, method, texts[t].name, n_ctx, i);
            if (!record)
                return false;
            out->nll += eval_record_number(record, "nll");
            out->n_token += (int64_t)eval_record_number(record, "tokens");
            out->density += eval_record_number(record, "density");
            out->work_flop += eval_record_number(record, "work_flop");
            out->seconds += eval_record_number(record, "seconds");
            add_buckets(record, out);
        }
    }
    out->density /= (double)out->n_window;
    out->word = exp(out->nll / (double)out->n_word);
    out->byte = exp(out->nll / (double)out->n_byte);
    out->token = exp(out->nll / (double)out->n_token);
    out->bits_per_byte = out->nll / ((double)out->n_byte * log(2.0));
    return true;
}
