/* The question collections as their authors publish them, one JSON file each. */
#include "ruler_internal.h"

#include "identity.h"

#include "lm/json.h"

#include <stdlib.h>
#include <string.h>

#define MAX_COLLECTION ((size_t)1 << 29)

/* A library under construction: equal texts are one document. */
typedef struct builder {
    ruler_library *library;
    int32_t *slots; /* open addressing over texts, -1: free */
    size_t n_slot;  /* a power of two */
    size_t n_room;  /* questions that fit */
    const char *path;
} builder;

static bool malformed(const builder *b, const char *what, lm_error *err)
{
    return lm_fail(err, LM_ERROR_INPUT, "'%s': %s (question %zu)", b->path, what, b->library->n_question);
}

static int32_t *find_slot(const builder *b, const char *text)
{
    size_t at = (size_t)eval_hash(EVAL_HASH_START, text, strlen(text)) & (b->n_slot - 1);
    while (b->slots[at] >= 0 && strcmp(b->library->texts[b->slots[at]], text) != 0)
        at = (at + 1) & (b->n_slot - 1);
    return &b->slots[at];
}

static bool grow_slots(builder *b, lm_error *err)
{
    if (b->n_slot > 2 * b->library->n_text)
        return true;
    const size_t n = b->n_slot ? 2 * b->n_slot : 1024;
    int32_t *slots = malloc(n * sizeof *slots);
    if (!slots)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %zu documents", n);
    free(b->slots);
    b->slots = slots;
    b->n_slot = n;
    for (size_t i = 0; i < n; i++)
        slots[i] = -1;
    for (size_t i = 0; i < b->library->n_text; i++)
        *find_slot(b, b->library->texts[i]) = (int32_t)i;
    return true;
}

/* The document's number, a new one if its text is new. */
static bool add_document(builder *b, const char *text, int32_t *number, lm_error *err)
{
    if (!grow_slots(b, err))
        return false;
    int32_t *slot = find_slot(b, text);
    if (*slot < 0) {
        *slot = (int32_t)b->library->n_text;
        if (!eval_list_add(&b->library->texts, &b->library->n_text, text, strlen(text), err)) {
            *slot = -1;
            return false;
        }
    }
    *number = *slot;
    return true;
}

/* A question with room for n_own documents; it is in the library, and freed with it, from here on. */
static ruler_question *add_question(builder *b, const char *text, size_t n_own, lm_error *err)
{
    ruler_library *l = b->library;
    if (l->n_question == b->n_room) {
        const size_t n = b->n_room ? 2 * b->n_room : 256;
        ruler_question *grown = realloc(l->questions, n * sizeof *grown);
        if (!grown) {
            lm_error_set(err, LM_ERROR_MEMORY, "out of memory for %zu questions", n);
            return NULL;
        }
        l->questions = grown;
        b->n_room = n;
    }
    ruler_question *q = &l->questions[l->n_question++];
    *q = (ruler_question){.own = malloc((n_own ? n_own : 1) * sizeof *q->own)};
    if (!q->own)
        lm_error_set(err, LM_ERROR_MEMORY, "out of memory for %zu documents", n_own);
    q->text = q->own ? eval_copy(text, strlen(text), err) : NULL;
    return q->text ? q : NULL;
}

static bool has(const ruler_question *q, const char *gold)
{
    for (size_t i = 0; i < q->n_gold; i++)
        if (strcmp(q->gold[i], gold) == 0)
            return true;
    return false;
}

/* Annotators who agree give one reference. */
static bool add_gold(ruler_question *q, const char *gold, lm_error *err)
{
    return has(q, gold) || eval_list_add(&q->gold, &q->n_gold, gold, strlen(gold), err);
}

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *value = lm_json_get(object, key);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

static const cJSON *array_of(const cJSON *object, const char *key)
{
    const cJSON *value = lm_json_get(object, key);
    return cJSON_IsArray(value) ? value : NULL;
}

/* -------------------------------------------------------------------------------------------------- SQuAD ---- */

static bool read_squad_question(builder *b, const cJSON *qa, int32_t document, lm_error *err)
{
    const cJSON *answers = array_of(qa, "answers"), *answer;
    if (cJSON_IsTrue(lm_json_get(qa, "is_impossible")) || (answers && !answers->child))
        return true; /* version 2 has questions without answer: nothing to score */
    const char *text = text_of(qa, "question");
    if (!text || !answers)
        return malformed(b, "a question without \"question\" or \"answers\"", err);
    ruler_question *q = add_question(b, text, 1, err);
    if (!q)
        return false;
    q->own[0] = document;
    q->n_own = q->n_support = 1;
    cJSON_ArrayForEach(answer, answers)
    {
        const char *gold = text_of(answer, "text");
        if (!gold || !*gold)
            return malformed(b, "an answer without \"text\"", err);
        if (!add_gold(q, gold, err))
            return false;
    }
    return true;
}

static bool read_squad_article(builder *b, const cJSON *article, lm_error *err)
{
    const cJSON *paragraphs = array_of(article, "paragraphs"), *paragraph, *qa;
    const size_t first_question = b->library->n_question, first_text = b->library->n_text;
    if (!paragraphs)
        return malformed(b, "an article without \"paragraphs\"", err);
    cJSON_ArrayForEach(paragraph, paragraphs)
    {
        const char *text = text_of(paragraph, "context");
        const cJSON *qas = array_of(paragraph, "qas");
        int32_t document;
        if (!text || !qas)
            return malformed(b, "a paragraph without \"context\" or \"qas\"", err);
        if (!add_document(b, text, &document, err))
            return false;
        cJSON_ArrayForEach(qa, qas)
        {
            if (!read_squad_question(b, qa, document, err))
                return false;
        }
    }
    for (size_t i = first_question; i < b->library->n_question; i++) {
        b->library->questions[i].related = (int32_t)first_text;
        b->library->questions[i].n_related = (int32_t)(b->library->n_text - first_text);
    }
    return true;
}

static bool read_squad(builder *b, const cJSON *root, lm_error *err)
{
    const cJSON *data = array_of(root, "data"), *article;
    if (!data)
        return lm_fail(err, LM_ERROR_INPUT, "'%s' is not a SQuAD file: it has no array \"data\"", b->path);
    cJSON_ArrayForEach(article, data)
    {
        if (!read_squad_article(b, article, err))
            return false;
    }
    return true;
}

/* ----------------------------------------------------------------------------------------------- HotpotQA ---- */

/* [title, [sentence, ...]] as "title newline text" */
static bool read_hotpot_paragraph(builder *b, const cJSON *paragraph, const char **title, int32_t *document,
                                  lm_error *err)
{
    const cJSON *head = cJSON_GetArrayItem(paragraph, 0), *sentences = cJSON_GetArrayItem(paragraph, 1), *sentence;
    if (!cJSON_IsArray(paragraph) || !cJSON_IsString(head) || !cJSON_IsArray(sentences))
        return malformed(b, "a paragraph that is not [title, [sentences]]", err);
    *title = head->valuestring;
    lm_text text = {0};
    bool ok = eval_put(&text, *title, err) && eval_put(&text, "\n", err);
    cJSON_ArrayForEach(sentence, sentences)
    {
        if (ok)
            ok = cJSON_IsString(sentence) ? eval_put(&text, sentence->valuestring, err)
                                          : malformed(b, "a sentence that is not a string", err);
    }
    ok = ok && add_document(b, text.data, document, err);
    lm_text_free(&text);
    return ok;
}

static bool supports(const cJSON *facts, const char *title)
{
    const cJSON *fact;
    cJSON_ArrayForEach(fact, facts)
    {
        const cJSON *head = cJSON_IsArray(fact) ? fact->child : NULL;
        if (cJSON_IsString(head) && strcmp(head->valuestring, title) == 0)
            return true;
    }
    return false;
}

static bool read_hotpot_question(builder *b, const cJSON *object, lm_error *err)
{
    const char *text = text_of(object, "question"), *answer = text_of(object, "answer"), *title;
    const cJSON *context = array_of(object, "context"), *facts = array_of(object, "supporting_facts"), *paragraph;
    if (!text || !answer || !*answer || !context || !facts)
        return malformed(b, "a question without \"question\", \"answer\", \"context\" or \"supporting_facts\"", err);
    ruler_question *q = add_question(b, text, (size_t)cJSON_GetArraySize(context), err);
    if (!q || !add_gold(q, answer, err))
        return false;
    cJSON_ArrayForEach(paragraph, context)
    {
        int32_t document;
        if (!read_hotpot_paragraph(b, paragraph, &title, &document, err))
            return false;
        q->own[q->n_own++] = document;
        if (supports(facts, title)) { /* to the front */
            q->own[q->n_own - 1] = q->own[q->n_support];
            q->own[q->n_support++] = document;
        }
    }
    return true;
}

static bool read_hotpot(builder *b, const cJSON *root, lm_error *err)
{
    const cJSON *object;
    if (!cJSON_IsArray(root))
        return lm_fail(err, LM_ERROR_INPUT, "'%s' is not a HotpotQA file: it is not an array of questions", b->path);
    cJSON_ArrayForEach(object, root)
    {
        if (!read_hotpot_question(b, object, err))
            return false;
    }
    return true;
}

/* -------------------------------------------------------------------------------------------------- doors ---- */

static bool open_library(const char *path, bool (*read)(builder *, const cJSON *, lm_error *), ruler_library *out,
                         lm_error *err)
{
    cJSON *root = lm_json_read(path, MAX_COLLECTION, err);
    if (!root)
        return false;
    ruler_library library = {0};
    builder b = {.library = &library, .path = path};
    bool ok = read(&b, root, err);
    if (ok && library.n_question == 0)
        ok = lm_fail(err, LM_ERROR_INPUT, "'%s' has no question with an answer", path);
    cJSON_Delete(root);
    free(b.slots);
    if (ok)
        *out = library;
    else
        ruler_library_close(&library);
    return ok;
}

bool ruler_squad_open(const char *path, ruler_library *out, lm_error *err)
{
    return open_library(path, read_squad, out, err);
}

bool ruler_hotpot_open(const char *path, ruler_library *out, lm_error *err)
{
    return open_library(path, read_hotpot, out, err);
}

void ruler_library_close(ruler_library *library)
{
    for (size_t i = 0; i < library->n_question; i++) {
        free(library->questions[i].text);
        free(library->questions[i].own);
        eval_list_free(library->questions[i].gold, library->questions[i].n_gold);
    }
    free(library->questions);
    eval_list_free(library->texts, library->n_text);
    *library = (ruler_library){0};
}
