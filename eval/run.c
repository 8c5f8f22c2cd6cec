#include "eval/run.h"

#include "lm/json.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double eval_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One session serves all samples of a method. */
typedef struct runner {
    const lm_model *model;
    prism_ctx *ctx;
    const eval_run_options *options;
    const eval_method *method;
    lm_session *session;
    eval_results *results;
    const eval_watch *watch;
    eval_work work;
} runner;

bool eval_create_session(const lm_model *model, prism_ctx *ctx, const eval_method *method,
                         const eval_run_options *options, eval_work *work, lm_session **out, lm_error *err)
{
    lm_session_options so;
    lm_session_options_init(&so);
    so.n_ctx = options->n_ctx;
    so.chunk = options->chunk;
    so.plan_on_host = options->plan_on_host;
    so.kv_type = options->kv_type;
    so.options = &method->options;
    so.on_call = eval_work_on_call;
    so.on_plan = eval_work_on_plan;
    so.user = work;
    return lm_session_create(model, ctx, &so, out, err);
}

static bool ensure_session(runner *r, lm_error *err)
{
    r->work = (eval_work){0};
    if (r->session) {
        lm_session_reset(r->session);
        return true;
    }
    return eval_create_session(r->model, r->ctx, r->method, r->options, &r->work, &r->session, err);
}

/* ----------------------------------------------------------------------------------------------- answer ---- */

/* Cuts at the first newline that follows text; true if there is one. */
static bool cut_at_newline(lm_text *answer)
{
    size_t i = 0;
    while (i < answer->n && isspace((unsigned char)answer->data[i]))
        i++;
    char *newline = i < answer->n ? memchr(answer->data + i, '\n', answer->n - i) : NULL;
    if (!newline)
        return false;
    *newline = '\0';
    answer->n = (size_t)(newline - answer->data);
    return true;
}

/* Tells what the answer has grown by. Returns false where that ends it. */
static bool tell_text(const eval_answer_rule *rule, const lm_text *answer, size_t before)
{
    return !rule->on_text || rule->on_text(rule->user, answer->data + before, answer->n - before);
}

bool eval_answer(lm_session *session, const lm_model *model, const eval_answer_rule *rule, lm_text *answer,
                 int32_t *n_token, lm_error *err)
{
    lm_stream stream = {0};
    bool done = false;
    const int32_t end = rule->chat ? eval_chat_end(rule->chat, model) : -1;
    if (!lm_text_append(answer, "", 0, err))
        return false;
    for (*n_token = 0; !done && *n_token < rule->n_most; (*n_token)++) {
        const int32_t token = lm_session_argmax(session);
        const size_t before = answer->n;
        if (token == end || lm_model_is_eos(model, token))
            break;
        if (!lm_stream_push(&stream, lm_model_tokenizer(model), token, rule->decode_flags, answer, err))
            return false;
        done = (rule->stop_at_newline && cut_at_newline(answer)) || !tell_text(rule, answer, before);
        if (!done && *n_token + 1 < rule->n_most && !lm_session_decode(session, token, err))
            return false;
    }
    const size_t before = answer->n;
    if (!done && !lm_stream_flush(&stream, answer, err))
        return false;
    tell_text(rule, answer, before);
    return true;
}

/* ----------------------------------------------------------------------------------------------- sample ---- */

static bool record_sample(runner *r, const eval_task *task, int32_t i, const eval_sample *sample, const char *answer,
                          const int32_t counts[3], double seconds, lm_error *err)
{
    lm_session_stats stats;
    lm_session_read_stats(r->session, &stats);
    cJSON *record = eval_record_create(r->method->label, task->name, r->options->n_ctx, i);
    cJSON_AddNumberToObject(record, "score", task->score(task, sample, answer));
    cJSON_AddStringToObject(record, "answer", answer);
    cJSON *gold = cJSON_AddArrayToObject(record, "gold");
    for (size_t g = 0; g < sample->n_gold; g++)
        cJSON_AddItemToArray(gold, cJSON_CreateString(sample->gold[g]));
    eval_record_stats(record, &stats, r->work.flop);
    cJSON_AddNumberToObject(record, "prompt_tokens", counts[0]);
    cJSON_AddNumberToObject(record, "dropped_tokens", counts[1]);
    cJSON_AddNumberToObject(record, "answer_tokens", counts[2]);
    cJSON_AddNumberToObject(record, "seconds", seconds);
    return eval_results_add(r->results, record, err);
}

static bool run_sample(runner *r, const eval_task *task, int32_t i, lm_error *err)
{
    const double start = eval_seconds();
    const int32_t n_ctx = r->options->n_ctx;
    eval_sample sample = {0};
    lm_tokens tokens = {0};
    lm_text answer = {0};
    int32_t counts[3]; /* prompt, dropped, answer */
    bool ok = task->make(task, i, &sample, err) && ensure_session(r, err);
    if (ok && sample.n_answer >= n_ctx)
        ok = lm_fail(err, LM_ERROR_USAGE, "%s: answers of %d tokens do not fit in a context of %d", task->name,
                     sample.n_answer, n_ctx);
    ok = ok && eval_chat_encode(r->options->chat, r->model, sample.prompt, strlen(sample.prompt),
                                sample.answer_prefix, n_ctx - sample.n_answer, &tokens, &counts[1], err);
    counts[0] = (int32_t)tokens.n;
    const eval_answer_rule rule = {.n_most = sample.n_answer,
                                   .stop_at_newline = sample.stop_at_newline,
                                   .decode_flags = LM_DECODE_SKIP_SPECIAL,
                                   .chat = r->options->chat};
    ok = ok &&
         lm_session_prefill(r->session, tokens.ids, (int64_t)tokens.n, r->watch ? r->watch->tokens : NULL,
                            r->watch ? r->watch->user : NULL, err) &&
         eval_answer(r->session, r->model, &rule, &answer, &counts[2], err) &&
         record_sample(r, task, i, &sample, answer.data, counts, eval_seconds() - start, err);
    eval_sample_free(&sample);
    lm_tokens_free(&tokens);
    lm_text_free(&answer);
    return ok;
}

static int32_t sample_count(const eval_task *task, int32_t most)
{
    return most > 0 && most < task->n_sample ? most : task->n_sample;
}

bool eval_run(const lm_model *model, prism_ctx *ctx, const eval_task *tasks, int32_t n_task,
              const eval_methods *methods, const eval_run_options *options, eval_results *results,
              const eval_watch *watch, lm_error *err)
{
    if (!lm_model_tokenizer(model))
        return lm_fail(err, LM_ERROR_INPUT, "the model comes without a tokenizer");
    int64_t done = 0, total = 0;
    for (int32_t t = 0; t < n_task; t++)
        total += (int64_t)sample_count(&tasks[t], options->n_sample) * methods->n;
    bool ok = true;
    for (int32_t m = 0; ok && m < methods->n; m++) {
        runner r = {.model = model,
                    .ctx = ctx,
                    .options = options,
                    .method = &methods->items[m],
                    .results = results,
                    .watch = watch};
        for (int32_t t = 0; ok && t < n_task; t++)
            for (int32_t i = 0; ok && i < sample_count(&tasks[t], options->n_sample); i++, done++) {
                if (eval_results_find(results, r.method->label, tasks[t].name, options->n_ctx, i))
                    continue;
                if (watch && watch->item)
                    watch->item(watch->user, r.method->label, tasks[t].name, done, total);
                ok = run_sample(&r, &tasks[t], i, err);
            }
        lm_session_destroy(r.session);
    }
    return ok;
}

/* ------------------------------------------------------------------------------------------------ means ---- */

static bool is_of(const cJSON *record, const char *method, const char *task, int32_t n_ctx, int32_t n_sample)
{
    return !strcmp(cJSON_GetStringValue(lm_json_get(record, "method")), method) &&
           (!task || !strcmp(cJSON_GetStringValue(lm_json_get(record, "task")), task)) &&
           eval_record_number(record, "ctx") == n_ctx &&
           (n_sample <= 0 || eval_record_number(record, "sample") < n_sample);
}

eval_mean eval_mean_of(const eval_results *results, const char *method, const char *task, int32_t n_ctx,
                       int32_t n_sample)
{
    eval_mean m = {0};
    for (int32_t i = 0; i < eval_results_count(results); i++) {
        const cJSON *record = eval_results_at(results, i);
        if (!is_of(record, method, task, n_ctx, n_sample))
            continue;
        m.n++;
        m.score += eval_record_number(record, "score");
        m.density += eval_record_number(record, "density");
        m.work_flop += eval_record_number(record, "work_flop");
        m.seconds += eval_record_number(record, "seconds");
        m.select_seconds += eval_record_number(record, "select_seconds");
        m.attend_seconds += eval_record_number(record, "attend_seconds");
    }
    double *const means[] = {&m.score, &m.density, &m.work_flop, &m.seconds, &m.select_seconds, &m.attend_seconds};
    for (size_t i = 0; i < sizeof means / sizeof *means; i++)
        *means[i] = m.n ? *means[i] / m.n : NAN;
    return m;
}
