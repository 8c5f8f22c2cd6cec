/* prism run: one prefill by one method, and its answer, which is shown while it grows. */
#include "run.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "eval/run.h"

#include <prism_attn/prism_cuda.h>

void run_result_free(run_result *r)
{
    free((void *)r->stats.layers);
    free(r->logits);
    lm_text_free(&r->answer);
    *r = (run_result){0};
}

static bool keep_results(const lm_session *session, const lm_model *model, run_result *r, lm_error *err)
{
    lm_session_read_stats(session, &r->stats);
    r->n_vocab = lm_model_config(model)->n_vocab;
    lm_layer_stats *layers = malloc((size_t)r->stats.n_layer * sizeof *layers);
    r->logits = malloc((size_t)r->n_vocab * sizeof *r->logits);
    if (layers)
        memcpy(layers, r->stats.layers, (size_t)r->stats.n_layer * sizeof *layers);
    r->stats.layers = layers;
    if (!layers || !r->logits)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for the results");
    memcpy(r->logits, lm_session_logits(session), (size_t)r->n_vocab * sizeof *r->logits);
    return true;
}

/* ---------------------------------------------------------------------------------------------- ctrl-C ---- */

static volatile sig_atomic_t interrupted;

static void note_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* While it is on, the first ctrl-C ends the answer and the second ends the program. A caller that has the program
 * ignore ctrl-C is obeyed. */
static void catch_interrupt(bool on)
{
    struct sigaction now, action = {.sa_handler = on ? note_interrupt : SIG_DFL, .sa_flags = (int)SA_RESETHAND};
    if (!sigaction(SIGINT, NULL, &now) && now.sa_handler != SIG_IGN)
        sigaction(SIGINT, &action, NULL);
}

/* ---------------------------------------------------------------------------------------------- answer ---- */

static bool show_text(void *user, const char *text, size_t n)
{
    FILE *out = user;
    if (out && n) {
        fwrite(text, 1, n, out);
        fflush(out);
    }
    return !interrupted && !(out && ferror(out));
}

/* The answer of the method that was asked for goes to stdout; one that it is compared with belongs to the table. */
static FILE *stream_of(const run_args *args, bool is_compared)
{
    if (args->method.json || (is_compared && args->quiet))
        return NULL;
    return is_compared ? stderr : stdout;
}

static bool answer(const run_job *job, bool is_compared, lm_session *session, run_result *r, lm_error *err)
{
    const run_args *args = job->args;
    FILE *out = stream_of(args, is_compared);
    const eval_answer_rule rule = {
        .n_most = args->n_answer, .chat = job->chat, .on_text = show_text, .user = out};
    if (out && args->compares && !args->quiet)
        fprintf(stderr, "[%s]\n", prism_method_name(r->method));
    catch_interrupt(true);
    const bool ok = eval_answer(session, job->model, &rule, &r->answer, &r->n_answer, err);
    catch_interrupt(false);
    r->interrupted = interrupted;
    if (out && args->n_answer) {
        fputc('\n', out);
        fflush(out);
    }
    return ok;
}

/* --------------------------------------------------------------------------------------------- running ---- */

bool run_once(const run_job *job, prism_method method, bool is_compared, run_result *r, lm_error *err)
{
    const run_args *args = job->args;
    const lm_tokens *tokens = job->tokens;
    prism_options options = args->method.options;
    options.method = method;
    lm_session_options so;
    lm_session_options_init(&so);
    so.n_ctx = (int32_t)tokens->n + args->n_answer;
    so.chunk = args->chunk;
    so.kv_type = cli_kv_type(args->kv);
    so.options = &options;
    if (args->plan_file && !is_compared) {
        so.on_plan = plan_file_add;
        so.user = job->plans;
    }
    *r = (run_result){.method = method};
    cli_reset_peak();
    lm_session *session;
    if (!lm_session_create(job->model, job->ctx, &so, &session, err))
        return false;
    cli_progress bar;
    char label[64];
    snprintf(label, sizeof label, "%-8s prefill", prism_method_name(method));
    cli_progress_start(&bar, label, !args->quiet);
    const double start = eval_seconds();
    bool ok = lm_session_prefill(session, tokens->ids, (int64_t)tokens->n, cli_progress_update, &bar, err);
    r->prefill_seconds = eval_seconds() - start;
    r->tokens_per_second = (double)tokens->n / r->prefill_seconds;
    cli_progress_end(&bar);
    r->kernel = prism_cuda_attend_kernel(job->ctx);
    ok = ok && keep_results(session, job->model, r, err) && answer(job, is_compared, session, r, err);
    if (ok) { /* with the decoding in it */
        lm_session_stats stats;
        lm_session_read_stats(session, &stats);
        r->stats.decode_seconds = stats.decode_seconds;
        r->stats.n_decode = stats.n_decode;
        r->peak_bytes = cli_peak_bytes();
    }
    lm_session_destroy(session);
    return ok;
}
