#include "longbench_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_PROMPT = 64 };

typedef struct longbench_task {
    const longbench_kind *kind;
    const lm_model *model;
    longbench_file file;
    int32_t n_prompt; /* most tokens */
    eval_truncation truncation;
} longbench_task;

void eval_longbench_options_init(eval_longbench_options *options)
{
    *options = (eval_longbench_options){.tasks = "all", .n_ctx = 32768, .truncation = EVAL_TRUNCATE_MIDDLE};
}

/* ------------------------------------------------------------------------------------------------ samples ---- */

/* The template with its two fields filled in; what is in the fields is not looked at again. */
static bool fill(lm_text *out, const char *form, const longbench_line *line, lm_error *err)
{
    static const char context[] = "{context}", input[] = "{input}";
    for (;;) {
        const char *brace = strchr(form, '{');
        if (!brace)
            return eval_put(out, form, err);
        const bool is_context = strncmp(brace, context, sizeof context - 1) == 0;
        if (!lm_text_append(out, form, (size_t)(brace - form), err) ||
            !eval_put(out, is_context ? line->context : line->input, err))
            return false;
        form = brace + (is_context ? sizeof context : sizeof input) - 1;
    }
}

static bool copy_list(const cJSON *array, char ***list, size_t *n, lm_error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, array)
    {
        if (!eval_list_add(list, n, item->valuestring, strlen(item->valuestring), err))
            return false;
    }
    return true;
}

static bool make(const eval_task *task, int32_t i, eval_sample *out, lm_error *err)
{
    const longbench_task *t = task->data;
    const longbench_kind *kind = t->kind;
    longbench_line line;
    if (i < 0 || i >= task->n_sample)
        return lm_fail(err, LM_ERROR_USAGE, "%s has no sample %d", task->name, (int)i);
    if (!longbench_line_read(&t->file, kind, (size_t)i, &line, err))
        return false;
    lm_text prompt = {0};
    eval_sample sample = {.n_answer = kind->n_answer,
                          .stop_at_newline = kind->category == LONGBENCH_FEW_SHOT,
                          .no_template = kind->category == LONGBENCH_FEW_SHOT || kind->category == LONGBENCH_CODE};
    const bool ok = fill(&prompt, kind->prompt, &line, err) &&
                    longbench_cut(t->model, &prompt, t->n_prompt, t->truncation, err) &&
                    copy_list(line.answers, &sample.gold, &sample.n_gold, err) &&
                    copy_list(line.classes, &sample.classes, &sample.n_class, err);
    cJSON_Delete(line.root);
    sample.prompt = prompt.data;
    if (ok)
        *out = sample;
    else
        eval_sample_free(&sample);
    return ok;
}

/* ------------------------------------------------------------------------------------------------ scoring ---- */

static double score_one(const longbench_kind *kind, const eval_sample *sample, const char *answer, const char *gold)
{
    switch (kind->metric) {
    case LONGBENCH_F1: return eval_f1(answer, gold, kind->language);
    case LONGBENCH_ROUGE: return eval_rouge_l(answer, gold, kind->language);
    case LONGBENCH_CLASSIFICATION: return eval_classification(answer, gold, sample->classes, sample->n_class);
    case LONGBENCH_COUNT: return eval_count(answer, gold);
    case LONGBENCH_RETRIEVAL: return eval_retrieval(answer, gold, kind->language);
    case LONGBENCH_EDIT: return eval_edit_similarity(answer, gold);
    }
    return 0;
}

/* The best over the references. */
static double score(const eval_task *task, const eval_sample *sample, const char *answer)
{
    const longbench_task *t = task->data;
    char *line = NULL;
    if (t->kind->category == LONGBENCH_FEW_SHOT) { /* models go on with another example */
        const char *start = answer + strspn(answer, "\n");
        line = eval_copy(start, strcspn(start, "\n"), NULL);
        if (!line)
            return NAN;
    }
    double best = 0;
    for (size_t i = 0; i < sample->n_gold && !isnan(best); i++) {
        const double one = score_one(t->kind, sample, line ? line : answer, sample->gold[i]);
        best = isnan(one) || one > best ? one : best;
    }
    free(line);
    return best;
}

/* -------------------------------------------------------------------------------------------------- tasks ---- */

static void close_task(eval_task *task)
{
    longbench_task *t = task->data;
    if (t)
        longbench_file_close(&t->file);
    free(t);
    task->data = NULL;
}

static bool open_task(const longbench_kind *kind, const eval_longbench_options *o, const lm_model *model,
                      eval_task *out, lm_error *err)
{
    const int64_t n_prompt = (int64_t)o->n_ctx - o->n_reserve - kind->n_answer;
    if (n_prompt < LEAST_PROMPT)
        return lm_fail(err, LM_ERROR_USAGE, "%s: a context of %d tokens is too short: the answer alone may take %d",
                       kind->name, (int)o->n_ctx, (int)kind->n_answer);
    longbench_task *t = malloc(sizeof *t);
    if (!t)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a task");
    *t = (longbench_task){.kind = kind, .model = model, .n_prompt = (int32_t)n_prompt, .truncation = o->truncation};
    if (!longbench_file_open(o->folder, kind, o->n_sample, &t->file, err)) {
        free(t);
        return false;
    }
    *out = (eval_task){.n_sample = (int32_t)(t->file.n < INT32_MAX ? t->file.n : INT32_MAX),
                       .data = t,
                       .make = make,
                       .score = score,
                       .close = close_task};
    snprintf(out->name, sizeof out->name, "%s", kind->name);
    return true;
}

static bool is_wanted(const char *list, const longbench_kind *kind)
{
    return eval_in_comma_list(list, "all") || eval_in_comma_list(list, kind->name) ||
           eval_in_comma_list(list, eval_longbench_categories[kind->category]);
}

static bool is_known(const char *name, size_t n)
{
    if (n == 3 && memcmp(name, "all", 3) == 0)
        return true;
    for (size_t i = 0; i < EVAL_LONGBENCH_N_TASK; i++)
        if (strlen(longbench_kinds[i].name) == n && memcmp(longbench_kinds[i].name, name, n) == 0)
            return true;
    for (size_t i = 0; i < EVAL_LONGBENCH_N_CATEGORY; i++)
        if (strlen(eval_longbench_categories[i]) == n && memcmp(eval_longbench_categories[i], name, n) == 0)
            return true;
    return false;
}

static bool check(const eval_longbench_options *o, const lm_model *model, lm_error *err)
{
    if (!o || !model || !o->tasks)
        return lm_fail(err, LM_ERROR_USAGE, "longbench: NULL argument");
    if (!o->folder)
        return lm_fail(err, LM_ERROR_USAGE,
                       "longbench: name the folder that has LongBench's files, one <task>.jsonl each (data.zip from "
                       "https://huggingface.co/datasets/THUDM/LongBench)");
    if (!lm_model_tokenizer(model))
        return lm_fail(err, LM_ERROR_INPUT,
                       "longbench: the model comes without a tokenizer, with which prompts are cut");
    if (o->n_ctx < 1 || o->n_reserve < 0 || o->n_sample < 0)
        return lm_fail(err, LM_ERROR_USAGE, "longbench: context, reserve and samples cannot be negative");
    if ((unsigned)o->truncation > EVAL_TRUNCATE_LEFT)
        return lm_fail(err, LM_ERROR_USAGE, "longbench: no such truncation");
    if (!*o->tasks)
        return lm_fail(err, LM_ERROR_USAGE, "longbench: no tasks are named");
    for (const char *name = o->tasks; *name;) {
        const size_t n = strcspn(name, ",");
        if (!is_known(name, n))
            return lm_fail(err, LM_ERROR_USAGE, "longbench: no task or category '%.*s'", (int)n, name);
        name += n + (name[n] == ',');
    }
    return true;
}

bool eval_longbench_open(const eval_longbench_options *options, const lm_model *model, eval_task **tasks,
                         int32_t *n_task, lm_error *err)
{
    if (!tasks || !n_task)
        return lm_fail(err, LM_ERROR_USAGE, "longbench: NULL argument");
    if (!check(options, model, err))
        return false;
    eval_task *list = calloc(EVAL_LONGBENCH_N_TASK, sizeof *list);
    int32_t n = 0;
    bool ok = list || lm_fail(err, LM_ERROR_MEMORY, "longbench: out of memory");
    for (int32_t i = 0; ok && i < EVAL_LONGBENCH_N_TASK; i++) {
        if (!is_wanted(options->tasks, &longbench_kinds[i]))
            continue;
        ok = open_task(&longbench_kinds[i], options, model, &list[n], err);
        n += ok;
    }
    for (int32_t i = 0; !ok && i < n; i++)
        list[i].close(&list[i]);
    if (ok) {
        *tasks = list;
        *n_task = n;
    } else {
        free(list);
    }
    return ok;
}

/* ----------------------------------------------------------------------------------------------- averages ---- */

int32_t eval_longbench_category(const char *task)
{
    for (int32_t i = 0; i < EVAL_LONGBENCH_N_TASK; i++)
        if (strcmp(longbench_kinds[i].name, task) == 0)
            return (int32_t)longbench_kinds[i].category;
    return -1;
}

double eval_longbench_flat_average(const char *const *names, const double *scores, int32_t n)
{
    double sum = 0;
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        if (eval_longbench_category(names[i]) >= 0) {
            sum += scores[i];
            count++;
        }
    return count ? sum / count : NAN;
}

double eval_longbench_category_average(const char *const *names, const double *scores, int32_t n)
{
    double sums[EVAL_LONGBENCH_N_CATEGORY] = {0}, sum = 0;
    int32_t counts[EVAL_LONGBENCH_N_CATEGORY] = {0}, count = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t category = eval_longbench_category(names[i]);
        if (category < 0)
            continue;
        sums[category] += scores[i];
        counts[category]++;
    }
    for (int32_t i = 0; i < EVAL_LONGBENCH_N_CATEGORY; i++)
        if (counts[i] > 0) {
            sum += sums[i] / counts[i];
            count++;
        }
    return count ? sum / count : NAN;
}
