#include "eval/results.h"

#include "eval/identity.h"
#include "lm/json.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT_KEY "prism_eval"
#define FORMAT_VERSION 1

typedef struct entry {
    uint64_t key;
    cJSON *record;
} entry;

struct eval_results {
    cJSON *header;
    entry *entries;
    int32_t n, capacity;
    int fd; /* -1: in memory only */
    char *path;
};

/* ---------------------------------------------------------------------------------------------- records ---- */

static uint64_t key_of(const char *method, const char *task, int32_t n_ctx, int32_t sample)
{
    const int32_t numbers[2] = {n_ctx, sample};
    uint64_t h = eval_hash(EVAL_HASH_START, method, strlen(method) + 1);
    h = eval_hash(h, task, strlen(task) + 1);
    return eval_hash(h, numbers, sizeof numbers);
}

static bool read_key(const cJSON *record, const char **method, const char **task, int32_t numbers[2])
{
    *method = cJSON_GetStringValue(lm_json_get(record, "method"));
    *task = cJSON_GetStringValue(lm_json_get(record, "task"));
    const cJSON *n_ctx = lm_json_get(record, "ctx"), *sample = lm_json_get(record, "sample");
    if (!*method || !*task || !cJSON_IsNumber(n_ctx) || !cJSON_IsNumber(sample))
        return false;
    numbers[0] = n_ctx->valueint;
    numbers[1] = sample->valueint;
    return true;
}

cJSON *eval_record_create(const char *method, const char *task, int32_t n_ctx, int32_t sample)
{
    cJSON *record = cJSON_CreateObject();
    if (cJSON_AddStringToObject(record, "method", method) && cJSON_AddStringToObject(record, "task", task) &&
        cJSON_AddNumberToObject(record, "ctx", n_ctx) && cJSON_AddNumberToObject(record, "sample", sample))
        return record;
    cJSON_Delete(record);
    return NULL;
}

void eval_record_stats(cJSON *record, const lm_session_stats *stats, double work_flop)
{
    cJSON_AddNumberToObject(record, "density", stats->density);
    cJSON_AddNumberToObject(record, "work_flop", work_flop);
    cJSON_AddNumberToObject(record, "select_seconds", stats->select_seconds);
    cJSON_AddNumberToObject(record, "attend_seconds", stats->attend_seconds);
    cJSON_AddNumberToObject(record, "prefill_seconds", stats->total_seconds);
}

double eval_record_number(const cJSON *record, const char *name)
{
    const cJSON *value = lm_json_get(record, name);
    return cJSON_IsNumber(value) ? value->valuedouble : NAN;
}

static bool keep(eval_results *r, cJSON *record, lm_error *err)
{
    const char *method, *task;
    int32_t numbers[2];
    if (r->n == r->capacity) {
        const int32_t capacity = r->capacity ? 2 * r->capacity : 64;
        entry *more = realloc(r->entries, (size_t)capacity * sizeof *more);
        if (!more) {
            cJSON_Delete(record);
            return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d results", capacity);
        }
        r->entries = more;
        r->capacity = capacity;
    }
    if (!read_key(record, &method, &task, numbers)) {
        cJSON_Delete(record);
        return lm_fail(err, LM_ERROR_INPUT, "%s: line %d lacks its method, task, ctx or sample; the file is left alone",
                       r->path, r->n + 2);
    }
    r->entries[r->n++] = (entry){key_of(method, task, numbers[0], numbers[1]), record};
    return true;
}

const cJSON *eval_results_find(const eval_results *r, const char *method, const char *task, int32_t n_ctx,
                               int32_t sample)
{
    const uint64_t key = key_of(method, task, n_ctx, sample);
    for (int32_t i = 0; i < r->n; i++) {
        const char *its_method, *its_task;
        int32_t numbers[2];
        if (r->entries[i].key == key && read_key(r->entries[i].record, &its_method, &its_task, numbers) &&
            !strcmp(its_method, method) && !strcmp(its_task, task) && numbers[0] == n_ctx && numbers[1] == sample)
            return r->entries[i].record;
    }
    return NULL;
}

int32_t eval_results_count(const eval_results *r)
{
    return r->n;
}

const cJSON *eval_results_at(const eval_results *r, int32_t i)
{
    return r->entries[i].record;
}

const cJSON *eval_results_header(const eval_results *r)
{
    return r->header;
}

/* ----------------------------------------------------------------------------------------------- header ---- */

cJSON *eval_header_create(const char *family, const char *model_path, const lm_model *model, cJSON *settings,
                          lm_error *err)
{
    uint64_t fingerprint;
    char text[32];
    if (!settings || !eval_model_fingerprint(model_path, &fingerprint, err)) {
        if (!settings)
            lm_error_set(err, LM_ERROR_MEMORY, "out of memory for the header of the results");
        cJSON_Delete(settings);
        return NULL;
    }
    snprintf(text, sizeof text, "%016" PRIx64, fingerprint);
    cJSON *header = cJSON_CreateObject();
    cJSON_AddNumberToObject(header, FORMAT_KEY, FORMAT_VERSION);
    cJSON_AddStringToObject(header, "family", family);
    cJSON *m = cJSON_AddObjectToObject(header, "model");
    cJSON_AddStringToObject(m, "name", lm_model_config(model)->name);
    cJSON_AddNumberToObject(m, "bytes", (double)lm_model_bytes(model));
    cJSON_AddStringToObject(m, "fingerprint", text);
    if (m && cJSON_AddItemToObject(header, "settings", settings))
        return header;
    lm_error_set(err, LM_ERROR_MEMORY, "out of memory for the header of the results");
    cJSON_Delete(settings);
    cJSON_Delete(header);
    return NULL;
}

/* Which member of two objects differs; NULL: none. */
static const char *first_difference(const cJSON *a, const cJSON *b)
{
    for (const cJSON *m = a ? a->child : NULL; m; m = m->next)
        if (!cJSON_Compare(m, lm_json_get(b, m->string), true))
            return m->string;
    for (const cJSON *m = b ? b->child : NULL; m; m = m->next)
        if (!lm_json_get(a, m->string))
            return m->string;
    return NULL;
}

static bool check_header(const eval_results *r, const cJSON *found, lm_error *err)
{
    if (!lm_json_get(found, FORMAT_KEY))
        return lm_fail(err, LM_ERROR_INPUT, "%s is no results file of this command; it is left alone", r->path);
    const char *part = first_difference(r->header, found);
    if (!part)
        return true;
    const bool model = !strcmp(part, "model");
    if (!model && strcmp(part, "settings") != 0)
        return lm_fail(err, LM_ERROR_INPUT, "%s has results of another evaluation ('%s' differs); give another file",
                       r->path, part);
    const cJSON *mine = lm_json_get(r->header, part), *its = lm_json_get(found, part);
    const char *name = first_difference(mine, its);
    char *a = cJSON_PrintUnformatted(lm_json_get(its, name)), *b = cJSON_PrintUnformatted(lm_json_get(mine, name));
    lm_error_set(err, LM_ERROR_INPUT,
                 "%s has results of %s: its %s is %.80s, here it is %.80s; give another file, or the same settings",
                 r->path, model ? "another model" : "other settings", name ? name : part, a ? a : "absent",
                 b ? b : "absent");
    cJSON_free(a);
    cJSON_free(b);
    return false;
}

/* ------------------------------------------------------------------------------------------------- file ---- */

static bool put(const eval_results *r, const cJSON *object, lm_error *err)
{
    char *text = cJSON_PrintUnformatted(object);
    if (!text)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a result");
    const size_t n = strlen(text);
    text[n] = '\n'; /* in the place of the NUL: one write, one line */
    size_t done = 0;
    while (done < n + 1) {
        const ssize_t some = write(r->fd, text + done, n + 1 - done);
        if (some < 0 && errno != EINTR)
            break;
        done += some > 0 ? (size_t)some : 0;
    }
    cJSON_free(text);
    if (done < n + 1 || (fsync(r->fd) && errno != EINVAL && errno != EROFS)) /* EINVAL: a pipe or /dev/null */
        return lm_fail(err, LM_ERROR_RUN, "cannot write %s: %s", r->path, strerror(errno));
    return true;
}

bool eval_results_add(eval_results *r, cJSON *record, lm_error *err)
{
    if (!record)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a result");
    if (!keep(r, record, err))
        return false;
    return r->fd < 0 || put(r, record, err);
}

static bool slurp(int fd, char **text, size_t *n)
{
    struct stat st;
    *n = 0;
    *text = fstat(fd, &st) ? NULL : malloc((size_t)st.st_size + 1);
    while (*text && *n < (size_t)st.st_size) {
        const ssize_t some = pread(fd, *text + *n, (size_t)st.st_size - *n, (off_t)*n);
        if (some <= 0)
            break;
        *n += (size_t)some;
    }
    if (*text)
        (*text)[*n] = '\0';
    return *text != NULL;
}

/* Reads complete lines; *good is where they end. */
static bool read_lines(eval_results *r, const char *text, size_t n, size_t *good, lm_error *err)
{
    int line = 0;
    *good = 0;
    for (const char *at = text, *end; (end = memchr(at, '\n', n - (size_t)(at - text))); at = end + 1) {
        cJSON *object = lm_json_parse(at, (size_t)(end - at), r->path, NULL);
        const bool last = end + 1 == text + n;
        line++;
        if (!cJSON_IsObject(object)) {
            cJSON_Delete(object);
            if (line > 1 && last)
                return true; /* its blocks did not all reach the disk */
            return lm_fail(err, LM_ERROR_INPUT, "%s: line %d is no JSON object; the file is left alone", r->path, line);
        }
        if (line == 1) {
            const bool same = check_header(r, object, err);
            cJSON_Delete(object);
            if (!same)
                return false;
        } else if (!keep(r, object, err)) {
            return false;
        }
        *good = (size_t)(end + 1 - text);
    }
    return true;
}

static bool load(eval_results *r, lm_error *err)
{
    static const char start[] = "{\"" FORMAT_KEY "\":";
    char *text;
    size_t n, good;
    if (!slurp(r->fd, &text, &n))
        return lm_fail(err, LM_ERROR_INPUT, "cannot read %s: %s", r->path, strerror(errno));
    bool ok = read_lines(r, text, n, &good, err);
    /* No whole line: a header cut short may go, anything else is somebody's file. */
    if (ok && good == 0 && strncmp(text, start, n < sizeof start - 1 ? n : sizeof start - 1) != 0)
        ok = lm_fail(err, LM_ERROR_INPUT, "%s is no results file of this command; it is left alone", r->path);
    if (ok && good < n && ftruncate(r->fd, (off_t)good))
        ok = lm_fail(err, LM_ERROR_RUN, "cannot mend the last line of %s: %s", r->path, strerror(errno));
    free(text);
    return ok && (good > 0 || put(r, r->header, err));
}

bool eval_results_open(const char *path, cJSON *header, eval_results **out, lm_error *err)
{
    *out = NULL;
    eval_results *r = calloc(1, sizeof *r);
    if (!header || !r) {
        free(r);
        cJSON_Delete(header);
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for the results");
    }
    *r = (eval_results){.header = header, .fd = -1, .path = strdup(path ? path : "results in memory")};
    bool ok = r->path || lm_fail(err, LM_ERROR_MEMORY, "out of memory for the results");
    if (ok && path) {
        r->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (r->fd < 0)
            ok = lm_fail(err, LM_ERROR_INPUT, "cannot open %s: %s", path, strerror(errno));
        else if (flock(r->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
            ok = lm_fail(err, LM_ERROR_INPUT, "%s is being written by another run", path);
        else
            ok = load(r, err);
    }
    if (ok)
        *out = r;
    else
        eval_results_close(r);
    return ok;
}

void eval_results_close(eval_results *r)
{
    if (!r)
        return;
    for (int32_t i = 0; i < r->n; i++)
        cJSON_Delete(r->entries[i].record);
    if (r->fd >= 0)
        close(r->fd);
    cJSON_Delete(r->header);
    free(r->entries);
    free(r->path);
    free(r);
}
