#include "ruler_internal.h"

#include "metric.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NIAH_ANSWER = 128, VT_ANSWER = 100, CWE_ANSWER = 120, FWE_ANSWER = 50, QA_ANSWER = 32, LEAST_CTX = 256 };

#define NIAH(name, variant, needs)                                                                                     \
    {                                                                                                                  \
        name, variant, NIAH_ANSWER, needs, ruler_niah_prepare, ruler_niah_draw, eval_match_all                         \
    }

/* QA scores 1 for any of the references: they are ways to say the same. (The copy in lm-eval gives the share of them
 * that was found.) */
static const ruler_kind kinds[EVAL_RULER_N_TASK] = {
    NIAH("niah_single_1", NIAH_SINGLE_1, 0),
    NIAH("niah_single_2", NIAH_SINGLE_2, RULER_NEEDS_CORPUS),
    NIAH("niah_single_3", NIAH_SINGLE_3, RULER_NEEDS_CORPUS),
    NIAH("niah_multikey_1", NIAH_MULTIKEY_1, RULER_NEEDS_CORPUS),
    NIAH("niah_multikey_2", NIAH_MULTIKEY_2, 0),
    NIAH("niah_multikey_3", NIAH_MULTIKEY_3, 0),
    NIAH("niah_multivalue", NIAH_MULTIVALUE, RULER_NEEDS_CORPUS),
    NIAH("niah_multiquery", NIAH_MULTIQUERY, RULER_NEEDS_CORPUS),
    {"vt", 0, VT_ANSWER, 0, ruler_vt_prepare, ruler_vt_draw, eval_match_all},
    {"cwe", 0, CWE_ANSWER, RULER_NEEDS_CORPUS | RULER_NEEDS_WORDS, ruler_cwe_prepare, ruler_cwe_draw, eval_match_all},
    {"fwe", 0, FWE_ANSWER, 0, ruler_fwe_prepare, ruler_fwe_draw, eval_match_all},
    {"qa_squad", 0, QA_ANSWER, RULER_NEEDS_SQUAD, ruler_qa_prepare, ruler_qa_draw, eval_match_any},
    {"qa_hotpot", 0, QA_ANSWER, RULER_NEEDS_HOTPOT, ruler_qa_prepare, ruler_qa_draw, eval_match_any},
};

const char *eval_ruler_name(int32_t i)
{
    return kinds[i].name;
}

static const char *const groups[] = {"all", "synthetic", "niah", "qa"};

void eval_ruler_options_init(eval_ruler_options *options)
{
    *options = (eval_ruler_options){.tasks = "synthetic", .n_ctx = 4096, .n_sample = 100, .seed = 42};
}

/* --------------------------------------------------------------------------------------------------- tasks ---- */

static void release(ruler_shared *shared)
{
    if (--shared->n_user > 0)
        return;
    eval_corpus_close(&shared->corpus);
    eval_words_free(&shared->words);
    ruler_library_close(&shared->squad);
    ruler_library_close(&shared->hotpot);
    free(shared);
}

static bool make(const eval_task *task, int32_t i, eval_sample *out, lm_error *err)
{
    const ruler_task *t = task->data;
    ruler_draft draft = {0};
    if (i < 0 || i >= task->n_sample)
        return lm_fail(err, LM_ERROR_USAGE, "%s has no sample %d", task->name, (int)i);
    if (!ruler_draw_fitting(t, i, &draft, err))
        return false;
    *out = (eval_sample){.prompt = draft.prompt.data,
                         .answer_prefix = draft.prefix.data,
                         .gold = draft.gold,
                         .n_gold = draft.n_gold,
                         .n_answer = t->kind->n_answer};
    return true;
}

static double score(const eval_task *task, const eval_sample *sample, const char *answer)
{
    const ruler_task *t = task->data;
    return t->kind->score(answer, sample->gold, sample->n_gold);
}

static void close_task(eval_task *task)
{
    ruler_task *t = task->data;
    if (t) {
        release(t->shared);
        free(t);
    }
    task->data = NULL;
}

static bool open_task(const ruler_kind *kind, ruler_shared *shared, int32_t n_sample, eval_task *out, lm_error *err)
{
    ruler_task *t = malloc(sizeof *t);
    if (!t)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a task");
    *t = (ruler_task){.kind = kind, .number = (int32_t)(kind - kinds), .shared = shared};
    const ruler_library *library = kind->needs & RULER_NEEDS_SQUAD    ? &shared->squad
                                   : kind->needs & RULER_NEEDS_HOTPOT ? &shared->hotpot
                                                                      : NULL;
    if (library && (size_t)n_sample > library->n_question)
        n_sample = (int32_t)library->n_question;
    *out = (eval_task){.n_sample = n_sample, .data = t, .make = make, .score = score, .close = close_task};
    snprintf(out->name, sizeof out->name, "%s", kind->name);
    if (kind->prepare(t, err) && ruler_find_size(t, err)) {
        shared->n_user++;
        return true;
    }
    free(t);
    return false;
}

/* --------------------------------------------------------------------------------------------------- doors ---- */

static bool is_wanted(const char *list, const ruler_kind *kind)
{
    const bool is_qa = kind->draw == ruler_qa_draw, is_niah = kind->draw == ruler_niah_draw;
    return eval_in_comma_list(list, kind->name) || eval_in_comma_list(list, "all") ||
           eval_in_comma_list(list, is_qa ? "qa" : "synthetic") || (is_niah && eval_in_comma_list(list, "niah"));
}

static bool is_known(const char *name, size_t n)
{
    bool known = false;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        known = known || (strlen(groups[i]) == n && !memcmp(groups[i], name, n));
    for (size_t i = 0; i < EVAL_RULER_N_TASK; i++)
        known = known || (strlen(kinds[i].name) == n && !memcmp(kinds[i].name, name, n));
    return known;
}

static bool fail_unknown(const char *name, size_t n, lm_error *err)
{
    char names[512] = "";
    for (size_t i = 0; i < EVAL_RULER_N_TASK; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s, ", kinds[i].name);
    return lm_fail(err, LM_ERROR_USAGE,
                   "ruler: no task '%.*s'; there are %sand the groups niah, qa, synthetic (all but qa), all", (int)n,
                   name, names);
}

static bool check(const eval_ruler_options *o, const lm_model *model, lm_error *err)
{
    if (!o || !model || !o->tasks)
        return lm_fail(err, LM_ERROR_USAGE, "ruler: NULL argument");
    if (!lm_model_tokenizer(model))
        return lm_fail(err, LM_ERROR_INPUT,
                       "ruler: the model comes without a tokenizer, with which lengths are counted");
    if (o->n_ctx < LEAST_CTX || o->n_ctx > 1 << 28)
        return lm_fail(err, LM_ERROR_USAGE, "ruler: the context must be %d tokens or more", LEAST_CTX);
    if (o->n_reserve < 0 || o->n_reserve > o->n_ctx)
        return lm_fail(err, LM_ERROR_USAGE, "ruler: the reserve must be 0 .. the context length");
    if (o->n_sample < 1)
        return lm_fail(err, LM_ERROR_USAGE, "ruler: the number of samples must be positive");
    if (!*o->tasks)
        return lm_fail(err, LM_ERROR_USAGE, "ruler: no tasks are named");
    for (const char *name = o->tasks; *name;) {
        const size_t n = strcspn(name, ",");
        if (!is_known(name, n))
            return fail_unknown(name, n, err);
        name += n + (name[n] == ',');
    }
    return true;
}

static bool open_text(ruler_shared *shared, const eval_ruler_options *o, lm_error *err)
{
    if (o->haystack || o->essays)
        return eval_corpus_open(o->haystack, o->essays, &shared->corpus, err);
    char *path = eval_bundled_file("nostromo.txt");
    if (!path)
        return lm_fail(err, LM_ERROR_INPUT,
                       "ruler: the bundled text (eval/data/nostromo.txt) is neither beside the "
                       "program nor below this folder: name a text file to hide needles in");
    const bool ok = eval_corpus_open(path, NULL, &shared->corpus, err);
    free(path);
    return ok;
}

static bool open_shared(ruler_shared *shared, const eval_ruler_options *o, unsigned needs, lm_error *err)
{
    if (needs & RULER_NEEDS_SQUAD && !o->squad)
        return lm_fail(err, LM_ERROR_USAGE,
                       "qa_squad needs the SQuAD 2.0 development set, a JSON file (dev-v2.0.json from "
                       "https://rajpurkar.github.io/SQuAD-explorer/): say where it is, or choose tasks without it "
                       "('synthetic')");
    if (needs & RULER_NEEDS_HOTPOT && !o->hotpot)
        return lm_fail(err, LM_ERROR_USAGE,
                       "qa_hotpot needs HotpotQA's development set with distractors, a JSON file "
                       "(hotpot_dev_distractor_v1.json from https://hotpotqa.github.io/): say where it is, or choose "
                       "tasks without it ('synthetic')");
    return (!(needs & RULER_NEEDS_SQUAD) || ruler_squad_open(o->squad, &shared->squad, err)) &&
           (!(needs & RULER_NEEDS_HOTPOT) || ruler_hotpot_open(o->hotpot, &shared->hotpot, err)) &&
           (!(needs & RULER_NEEDS_CORPUS) || open_text(shared, o, err)) &&
           (!(needs & RULER_NEEDS_WORDS) || eval_words_open(&shared->corpus, &shared->words, err));
}

bool eval_ruler_open(const eval_ruler_options *options, const lm_model *model, eval_task **tasks, int32_t *n_task,
                     lm_error *err)
{
    if (!tasks || !n_task)
        return lm_fail(err, LM_ERROR_USAGE, "ruler: NULL argument");
    if (!check(options, model, err))
        return false;
    ruler_shared *shared = calloc(1, sizeof *shared);
    eval_task *list = calloc(EVAL_RULER_N_TASK, sizeof *list);
    int32_t n = 0;
    unsigned needs = 0;
    for (int32_t i = 0; i < EVAL_RULER_N_TASK; i++)
        needs |= is_wanted(options->tasks, &kinds[i]) ? kinds[i].needs : 0;
    bool ok = (shared && list) || lm_fail(err, LM_ERROR_MEMORY, "ruler: out of memory");
    if (ok) {
        *shared = (ruler_shared){1, model, options->n_ctx, options->n_reserve, options->seed, {0}, {0}, {0}, {0}};
        ok = open_shared(shared, options, needs, err);
    }
    for (int32_t i = 0; ok && i < EVAL_RULER_N_TASK; i++) {
        if (!is_wanted(options->tasks, &kinds[i]))
            continue;
        ok = open_task(&kinds[i], shared, options->n_sample, &list[n], err);
        n += ok;
    }
    for (int32_t i = 0; !ok && i < n; i++)
        list[i].close(&list[i]);
    if (shared)
        release(shared);
    if (ok) {
        *tasks = list;
        *n_task = n;
    } else {
        free(list);
    }
    return ok;
}
