/*
 * Hugging Face tokenizer.json -> lm_tokenizer_desc. What the file asks for and this tokenizer does not do is refused.
 */
#include "json.h"
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct json_vocab {
    lm_string *tokens;
    int32_t *types;
    size_t n_token;
    lm_string *merges;
    size_t n_merge;
    lm_text joined; /* the text of all merges */
} json_vocab;

static bool is_type(const cJSON *object, const char *name)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(object, "type");
    return cJSON_IsString(type) && strcmp(type->valuestring, name) == 0;
}

static const cJSON *get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static bool is_absent(const cJSON *item)
{
    return !item || cJSON_IsNull(item) || (cJSON_IsString(item) && item->valuestring[0] == '\0');
}

/* cJSON strings end at their first NUL: a file with one would be read as another file. */
static bool has_nul(const char *json, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (json[i] == '\0')
            return true;
        if (json[i] != '\\')
            continue;
        if (n - i >= 6 && memcmp(json + i + 1, "u0000", 5) == 0)
            return true;
        i++;
    }
    return false;
}

static bool unsupported(lm_error *err, const char *what)
{
    return lm_fail(err, LM_ERROR_UNSUPPORTED, "%s", what);
}

/* ------------------------------------------------------------------------------------------------- stages ---- */

/* What normalizer and pre-tokenizer come to. */
enum { MAX_SPLIT = 32 };
typedef struct json_stages {
    lm_split splits[MAX_SPLIT];
    size_t n_split;
    bool nfc, byte_level;
    bool marks; /* spaces become U+2581 */
    lm_prefix prefix;
    bool prefix_keeps_space;
} json_stages;

static bool is_text(const cJSON *item, const char *text)
{
    return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

static bool read_normalizer(const cJSON *normalizer, int depth, json_stages *s, lm_error *err)
{
    const cJSON *part;
    const char *type = cJSON_GetStringValue(get(normalizer, "type"));
    if (is_absent(normalizer))
        return true;
    if (is_type(normalizer, "Sequence") && depth == 0) {
        cJSON_ArrayForEach(part, get(normalizer, "normalizers")) if (!read_normalizer(part, 1, s, err)) return false;
    } else if (is_type(normalizer, "NFC")) {
        s->nfc = true;
    } else if (is_type(normalizer, "Prepend") && is_text(get(normalizer, "prepend"), LM_SPACE_MARK)) {
        s->prefix = LM_PREFIX_ALL;
    } else if (is_type(normalizer, "Replace") && is_text(get(get(normalizer, "pattern"), "String"), " ") &&
               is_text(get(normalizer, "content"), LM_SPACE_MARK)) {
        s->marks = true;
    } else {
        return lm_fail(
            err, LM_ERROR_UNSUPPORTED,
            "its normalizer \"%.40s\" is not supported (NFC is, and Prepend and Replace that spell spaces as "
            "U+2581)",
            type ? type : "");
    }
    return true;
}

/* The steps of the pre-tokenizer, in order. Those of PUNCTUATION and DIGITS are Rust's notions of the two. */
#define PUNCTUATION "[\\p{P}\\$\\+<=>\\^`\\|~]"
#define DIGITS "\\p{N}"

static bool read_behavior(const cJSON *split, lm_split_behavior *out, lm_error *err)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = cJSON_GetStringValue(get(split, "behavior"));
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (lm_split_behavior)i;
            return true;
        }
    return lm_fail(err, LM_ERROR_UNSUPPORTED, "its pre-tokenizer has a step with the behavior \"%.40s\"",
                   name ? name : "");
}

static bool read_split(const cJSON *step, lm_split *out, lm_error *err)
{
    const char *regex = cJSON_GetStringValue(get(get(step, "pattern"), "Regex"));
    const char *literal = cJSON_GetStringValue(get(get(step, "pattern"), "String"));
    *out =
        (lm_split){.pattern = regex ? regex : literal, .literal = !regex, .invert = cJSON_IsTrue(get(step, "invert"))};
    if (!out->pattern || !*out->pattern)
        return unsupported(err, "its pre-tokenizer has a Split without a pattern");
    return read_behavior(step, &out->behavior, err);
}

static bool read_byte_level(const cJSON *step, json_stages *s, lm_error *err)
{
    s->byte_level = true;
    if (cJSON_IsTrue(get(step, "add_prefix_space"))) {
        if (s->n_split > 0)
            return unsupported(err,
                               "its pre-tokenizer puts a space before every piece (add_prefix_space after a split)");
        s->prefix = LM_PREFIX_ALL;
        s->prefix_keeps_space = true;
    }
    if (!cJSON_IsFalse(get(step, "use_regex")))
        s->splits[s->n_split++] = (lm_split){.pattern = LM_GPT2_SPLIT};
    return true;
}

/* Spaces become U+2581, one is put in front, and pieces start with them. */
static bool read_metaspace(const cJSON *step, json_stages *s, lm_error *err)
{
    static const char *const schemes[] = {
        [LM_PREFIX_NONE] = "never", [LM_PREFIX_FIRST] = "first", [LM_PREFIX_ALL] = "always"};
    const cJSON *scheme = get(step, "prepend_scheme");
    size_t prefix = cJSON_IsFalse(get(step, "add_prefix_space")) ? LM_PREFIX_NONE : LM_PREFIX_ALL;
    if (!is_absent(scheme))
        for (prefix = 0; prefix < 3 && !is_text(scheme, schemes[prefix]); prefix++)
            ;
    if (prefix == 3 || !is_text(get(step, "replacement"), LM_SPACE_MARK) || s->n_split > 0)
        return unsupported(err,
                           "its pre-tokenizer has a Metaspace that does not spell spaces as U+2581, or comes after "
                           "other steps");
    s->marks = true;
    if (prefix != LM_PREFIX_NONE) {
        s->prefix = (lm_prefix)prefix;
        s->prefix_keeps_space = true;
    }
    if (!cJSON_IsFalse(get(step, "split")))
        s->splits[s->n_split++] = (lm_split){.pattern = " ", .literal = true, .behavior = LM_SPLIT_MERGED_WITH_NEXT};
    return true;
}

/* Steps that see U+2581 for a space: a Split at spaces finds none. */
static bool read_marked_split(const cJSON *step, json_stages *s, lm_error *err)
{
    const cJSON *literal = get(get(step, "pattern"), "String");
    lm_split split;
    if (!is_type(step, "Split") || !read_split(step, &split, err) ||
        !(is_text(literal, " ") || is_text(literal, LM_SPACE_MARK)) || split.invert)
        return unsupported(err, "its pre-tokenizer has a step behind spaces as U+2581 that is not a Split at spaces");
    split.pattern = " ";
    if (is_text(literal, LM_SPACE_MARK))
        s->splits[s->n_split++] = split;
    return true;
}

static bool read_step(const cJSON *step, json_stages *s, lm_error *err)
{
    const char *type = cJSON_GetStringValue(get(step, "type"));
    if (s->byte_level)
        return unsupported(err, "its pre-tokenizer has a step after ByteLevel, which is not supported");
    if (s->n_split == MAX_SPLIT)
        return unsupported(err, "its pre-tokenizer has more steps than any model has");
    if (is_type(step, "ByteLevel"))
        return read_byte_level(step, s, err);
    if (is_type(step, "Metaspace"))
        return read_metaspace(step, s, err);
    if (s->marks)
        return read_marked_split(step, s, err);
    lm_split *out = &s->splits[s->n_split++];
    if (is_type(step, "Split"))
        return read_split(step, out, err);
    if (is_type(step, "Digits")) {
        const bool each = cJSON_IsTrue(get(step, "individual_digits"));
        *out = (lm_split){.pattern = DIGITS, .behavior = each ? LM_SPLIT_ISOLATED : LM_SPLIT_CONTIGUOUS};
        return true;
    }
    if (is_type(step, "Punctuation")) {
        *out = (lm_split){.pattern = PUNCTUATION};
        return is_absent(get(step, "behavior")) || read_behavior(step, &out->behavior, err);
    }
    return lm_fail(err, LM_ERROR_UNSUPPORTED,
                   "the step \"%.40s\" of its pre-tokenizer is not supported (Split, Digits, Punctuation, "
                   "Metaspace and ByteLevel are)",
                   type ? type : "");
}

static bool read_pre_tokenizer(const cJSON *pre, json_stages *s, lm_error *err)
{
    const cJSON *step;
    if (!is_type(pre, "Sequence")) {
        if (!is_absent(pre) && !read_step(pre, s, err))
            return false;
    } else {
        cJSON_ArrayForEach(step, get(pre, "pretokenizers")) if (!read_step(step, s, err)) return false;
    }
    if (s->byte_level == s->marks)
        return unsupported(err, s->marks
                                    ? "it has both ByteLevel and spaces as U+2581"
                                    : "its vocabulary is neither byte-level (the pre-tokenizer ends with ByteLevel) "
                                      "nor has it spaces as U+2581");
    return true;
}

/* A template may put one special token before the text: that is BOS. */
static bool read_template(const cJSON *single, const char **bos, lm_error *err)
{
    const cJSON *item;
    bool text_seen = false;
    cJSON_ArrayForEach(item, single)
    {
        const cJSON *special = get(get(item, "SpecialToken"), "id");
        if (get(item, "Sequence")) {
            text_seen = true;
        } else if (!cJSON_IsString(special) || text_seen || *bos) {
            return unsupported(err, "its post-processor adds other tokens than one before the text");
        } else {
            *bos = special->valuestring;
        }
    }
    return text_seen || unsupported(err, "its post-processor is not a template that this runner reads");
}

static bool read_post_processor(const cJSON *post, int depth, const char **bos, lm_error *err)
{
    if (is_absent(post) || is_type(post, "ByteLevel"))
        return true;
    if (is_type(post, "TemplateProcessing"))
        return read_template(get(post, "single"), bos, err);
    if (!is_type(post, "Sequence") || depth > 0)
        return unsupported(err, "its post-processor is not supported (ByteLevel and TemplateProcessing are)");
    const cJSON *part;
    cJSON_ArrayForEach(part, get(post, "processors")) if (!read_post_processor(part, depth + 1, bos, err)) return false;
    return true;
}

static bool check_model(const cJSON *model, lm_error *err)
{
    const cJSON *type = get(model, "type"), *dropout = get(model, "dropout");
    if (!cJSON_IsObject(model) || (type && !is_type(model, "BPE")))
        return unsupported(err, "its model is not BPE");
    if (!cJSON_IsObject(get(model, "vocab")) || !cJSON_IsArray(get(model, "merges")))
        return lm_fail(err, LM_ERROR_INPUT, "model.vocab or model.merges is missing");
    if (!is_absent(get(model, "continuing_subword_prefix")) || !is_absent(get(model, "end_of_word_suffix")) ||
        (cJSON_IsNumber(dropout) && dropout->valuedouble != 0))
        return unsupported(err, "subword prefixes, word suffixes and dropout are not supported");
    return true;
}

/* -------------------------------------------------------------------------------------------------- vocab ---- */

static bool read_id(const cJSON *item, size_t limit, size_t *id, lm_error *err)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || !(item->valuedouble < (double)limit) ||
        item->valuedouble != (double)(size_t)item->valuedouble)
        return lm_fail(err, LM_ERROR_INPUT, "a token id is not a whole number in 0 .. %zu", limit - 1);
    *id = (size_t)item->valuedouble;
    return true;
}

static bool allocate_tokens(json_vocab *v, const cJSON *vocab, const cJSON *added, size_t *limit, lm_error *err)
{
    size_t n = (size_t)cJSON_GetArraySize(vocab) + (size_t)cJSON_GetArraySize(added);
    /* Ids may have holes, but memory must stay in proportion to the file. */
    *limit = 2 * n + 1024 < LM_MAX_TOKEN ? 2 * n + 1024 : LM_MAX_TOKEN;
    v->tokens = calloc(*limit, sizeof *v->tokens);
    v->types = malloc(*limit * sizeof *v->types);
    if (!v->tokens || !v->types)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for %zu tokens", *limit);
    for (size_t i = 0; i < *limit; i++)
        v->types[i] = LM_TOKEN_UNUSED;
    return true;
}

static void set_token(json_vocab *v, size_t id, const char *text, int32_t type)
{
    v->tokens[id] = (lm_string){text, strlen(text)};
    v->types[id] = type;
    if (id >= v->n_token)
        v->n_token = id + 1;
}

static bool read_added(json_vocab *v, const cJSON *added, size_t limit, lm_error *err)
{
    const cJSON *token;
    cJSON_ArrayForEach(token, added)
    {
        const cJSON *content = get(token, "content");
        size_t id;
        if (!cJSON_IsString(content) || !read_id(get(token, "id"), limit, &id, err))
            return lm_fail(err, LM_ERROR_INPUT,
                           "an entry of added_tokens lacks its content or a "
                           "valid id");
        if (cJSON_IsTrue(get(token, "single_word")) || cJSON_IsTrue(get(token, "lstrip")) ||
            cJSON_IsTrue(get(token, "rstrip")))
            return unsupported(err, "added tokens with single_word, lstrip or rstrip are not supported");
        if (content->valuestring[0] == '\0')
            continue;
        const lm_string *there = &v->tokens[id];
        if (there->n &&
            (there->n != strlen(content->valuestring) || memcmp(there->data, content->valuestring, there->n)))
            return lm_fail(err, LM_ERROR_INPUT, "the id %zu belongs to two tokens", id);
        set_token(v, id, content->valuestring,
                  cJSON_IsTrue(get(token, "special")) ? LM_TOKEN_CONTROL : LM_TOKEN_USER_DEFINED);
    }
    return true;
}

static bool read_tokens(json_vocab *v, const cJSON *root, lm_error *err)
{
    const cJSON *vocab = get(get(root, "model"), "vocab"), *added = get(root, "added_tokens"), *token;
    size_t limit, id;
    if (!allocate_tokens(v, vocab, added, &limit, err))
        return false;
    cJSON_ArrayForEach(token, vocab)
    {
        if (!read_id(token, limit, &id, err))
            return false;
        if (v->types[id] != LM_TOKEN_UNUSED)
            return lm_fail(err, LM_ERROR_INPUT, "the id %zu belongs to two tokens", id);
        set_token(v, id, token->string, LM_TOKEN_NORMAL);
    }
    return read_added(v, added, limit, err);
}

/* ------------------------------------------------------------------------------------------------- merges ---- */

bool lm_tokenizer_json_merge(const cJSON *merge, lm_text *out, size_t i, lm_error *err)
{
    const bool pair = cJSON_IsArray(merge) && cJSON_GetArraySize(merge) == 2;
    const char *left = cJSON_GetStringValue(pair ? cJSON_GetArrayItem(merge, 0) : merge);
    const char *right = pair ? cJSON_GetStringValue(cJSON_GetArrayItem(merge, 1)) : "";
    if (!left || !right)
        return lm_fail(err, LM_ERROR_INPUT, "merge %zu is neither \"left right\" nor [\"left\", \"right\"]", i);
    return lm_text_append(out, left, strlen(left), err) && lm_text_append(out, " ", pair, err) &&
           lm_text_append(out, right, strlen(right), err);
}

static bool read_merges(json_vocab *v, const cJSON *merges, lm_error *err)
{
    const cJSON *merge;
    v->merges = calloc((size_t)cJSON_GetArraySize(merges) + 1, sizeof *v->merges);
    if (!v->merges)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for its merges");
    cJSON_ArrayForEach(merge, merges)
    {
        const size_t before = v->joined.n;
        if (!lm_tokenizer_json_merge(merge, &v->joined, v->n_merge, err))
            return false;
        v->merges[v->n_merge++].n = v->joined.n - before;
    }
    const char *at = v->joined.data; /* it moves no more */
    for (size_t i = 0; i < v->n_merge; at += v->merges[i++].n)
        v->merges[i].data = at;
    return true;
}

static bool add_bos(lm_tokenizer *tok, const char *bos, lm_error *err)
{
    int32_t id = lm_tokenizer_find(tok, bos, strlen(bos));
    if (id < 0)
        return lm_fail(err, LM_ERROR_INPUT,
                       "the token that its post-processor adds is not in the "
                       "vocabulary");
    tok->add_bos = true;
    return lm_tokenizer_set_bos(tok, id, err);
}

/* What a character without a token becomes. */
static bool read_unknown(const cJSON *model, const json_vocab *v, lm_tokenizer_desc *desc, lm_error *err)
{
    const char *unk = cJSON_GetStringValue(get(model, "unk_token"));
    desc->missing = unk ? LM_MISSING_UNKNOWN : LM_MISSING_DROPPED;
    desc->fuse_unk = cJSON_IsTrue(get(model, "fuse_unk"));
    for (size_t id = 0; unk && id < v->n_token && desc->unk_id < 0; id++)
        if (v->tokens[id].n == strlen(unk) && memcmp(v->tokens[id].data, unk, v->tokens[id].n) == 0)
            desc->unk_id = (int32_t)id;
    return !unk || desc->unk_id >= 0 ||
           lm_fail(err, LM_ERROR_INPUT, "its unk_token \"%.40s\" is not in the vocabulary", unk);
}

static bool create_from(const cJSON *root, json_vocab *v, lm_tokenizer **out, lm_error *err)
{
    const cJSON *model = get(root, "model");
    const char *bos = NULL;
    json_stages stages = {0};
    lm_tokenizer_desc desc;
    lm_tokenizer_desc_init(&desc);
    if (!check_model(model, err) || !read_normalizer(get(root, "normalizer"), 0, &stages, err) ||
        !read_pre_tokenizer(get(root, "pre_tokenizer"), &stages, err) ||
        !read_post_processor(get(root, "post_processor"), 0, &bos, err) || !read_tokens(v, root, err) ||
        !read_merges(v, get(model, "merges"), err) || !read_unknown(model, v, &desc, err))
        return false;
    desc.tokens = v->tokens;
    desc.types = v->types;
    desc.n_token = v->n_token;
    desc.merges = v->merges;
    desc.n_merge = v->n_merge;
    desc.pre = stages.byte_level ? lm_pre_recognise(stages.splits, stages.n_split) : NULL;
    desc.splits = stages.splits;
    desc.n_split = stages.n_split;
    desc.sentencepiece = stages.marks;
    desc.nfc = stages.nfc;
    desc.prefix = stages.prefix;
    desc.prefix_keeps_space = stages.prefix_keeps_space;
    desc.ignore_merges = cJSON_IsTrue(get(model, "ignore_merges"));
    lm_tokenizer *tok;
    if (!lm_tokenizer_create(&desc, &tok, err))
        return false;
    if (bos && !add_bos(tok, bos, err)) {
        lm_tokenizer_free(tok);
        return false;
    }
    *out = tok;
    return true;
}

bool lm_tokenizer_from_json(const char *json, size_t n_bytes, const char *where, lm_tokenizer **out, lm_error *err)
{
    if (!json || !where || !out)
        return lm_fail(err, LM_ERROR_USAGE, "tokenizer.json: NULL argument");
    if (has_nul(json, n_bytes))
        return lm_fail(err, LM_ERROR_INPUT, "%s: there is a NUL in the file", where);
    cJSON *root = lm_json_parse(json, n_bytes, where, err);
    if (!root)
        return false;
    json_vocab v = {0};
    const bool ok = create_from(root, &v, out, err) || lm_error_in(err, where);
    free(v.tokens);
    free(v.types);
    free(v.merges);
    lm_text_free(&v.joined);
    cJSON_Delete(root);
    return ok;
}
