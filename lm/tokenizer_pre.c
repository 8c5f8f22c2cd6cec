/*
 * Pre-tokenizers by the names that GGUF files use. A row has the steps of the tokenizer.json that the name stands for,
 * in its own spelling: one table serves both kinds of file.
 */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* The two rows that use it differ in DIGITS. */
#define LLAMA3(DIGITS)                                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" DIGITS                                               \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Upper case, then lower case; other letters and marks are both. llama.cpp takes every letter outside ASCII as both. */
#define TEKKEN                                                                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"                        \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"                       \
    "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Letters that have case, as the model's file lists them. */
#define DEEPSEEK_LETTERS                                                                                                         \
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵ"                                             \
    "Ϸ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛ"           \
    "ὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴ" \
    "ℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-"                 \
    "ﬗＡ-"                                                                                                                    \
    "Ｚａ-"                                                                                                                    \
    "ｚ"                                                                                                                        \
    "𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"

enum { MAX_STEP = 6 };
static const struct pre {
    const char *names[LM_PRE_NAMES]; /* as tokenizer.ggml.pre has them; the first is written */
    lm_split splits[MAX_STEP];
    bool adds_bos;       /* texts start with BOS where a GGUF file does not say */
    bool ignores_merges; /* a piece that is itself a token needs no merges, where the file does not say */
} pres[] = {
    {.names = {"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"}, .splits = {{.pattern = LLAMA3("\\p{N}")}}},
    {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"},
     .splits = {{.pattern = LLAMA3("\\p{N}{1,3}")}},
     .adds_bos = true,
     .ignores_merges = true},
    {.names = {"smollm", "starcoder", "refact", "codeshell", "command-r"},
     .splits = {{.pattern = "\\p{N}"}, {.pattern = LM_GPT2_SPLIT}}},
    {.names = {"gpt-2", "phi-2", "olmo", "mpt", "exaone4"}, .splits = {{.pattern = LM_GPT2_SPLIT}}},
    {.names = {"tekken"}, .splits = {{.pattern = TEKKEN}}, .adds_bos = true, .ignores_merges = true},
    /* llama.cpp keeps digits together; no token of these models has two. */
    {.names = {"deepseek-llm"},
     .splits = {{.pattern = "[\r\n]"},
                {.pattern = DEEPSEEK_LETTERS},
                {.pattern = "\\s?[!-/:-~！-／：-～‘-‟　-。]+"},
                {.pattern = "\\s+$"},
                {.pattern = "[一-龥ࠀ-一가-퟿]+"},
                {.pattern = "\\p{N}"}}},
    /* llama.cpp's, for files that name none */
    {.names = {"default"},
     .splits = {{.pattern = "[\\p{P}\\$\\+<=>\\^~\\|]+"},
                {.pattern = LM_GPT2_SPLIT},
                {.pattern = "\\p{N}+"},
                {.pattern = "[0-9][0-9][0-9]"}}},
};
enum { N_PRE = sizeof pres / sizeof *pres };

static size_t count_splits(const struct pre *pre)
{
    size_t n = 0;
    while (n < MAX_STEP && pre->splits[n].pattern)
        n++;
    return n;
}

static bool same_split(const lm_split *a, const lm_split *b)
{
    return a->behavior == b->behavior && a->invert == b->invert && a->literal == b->literal &&
           strcmp(a->pattern, b->pattern) == 0;
}

const char *lm_pre_recognise(const lm_split *splits, size_t n_split)
{
    for (size_t i = 0; i < N_PRE; i++) {
        size_t n = 0;
        while (n < n_split && n < count_splits(&pres[i]) && same_split(&splits[n], &pres[i].splits[n]))
            n++;
        if (n == n_split && n == count_splits(&pres[i]))
            return pres[i].names[0];
    }
    return NULL;
}

static const struct pre *find_pre(const char *name)
{
    for (size_t i = 0; i < N_PRE; i++)
        for (size_t j = 0; j < LM_PRE_NAMES && pres[i].names[j]; j++)
            if (strcmp(name, pres[i].names[j]) == 0)
                return &pres[i];
    return NULL;
}

bool lm_tokenizer_pre_adds_bos(const char *name)
{
    const struct pre *pre = find_pre(name);
    return pre && pre->adds_bos;
}

bool lm_pre_apply(lm_tokenizer_desc *desc, lm_error *err)
{
    if (!desc->pre)
        return true;
    const struct pre *pre = find_pre(desc->pre);
    if (!pre) {
        const char *names[N_PRE];
        char text[200];
        for (size_t i = 0; i < N_PRE; i++)
            names[i] = pres[i].names[0];
        return lm_fail(err, LM_ERROR_UNSUPPORTED,
                       "tokenizer: pre-tokenizer \"%.40s\" is not supported; use a model with %s", desc->pre,
                       lm_list_text(names, N_PRE, "or", text, sizeof text));
    }
    desc->pre = pre->names[0];
    desc->splits = pre->splits;
    desc->n_split = count_splits(pre);
    if (desc->ignore_merges < 0)
        desc->ignore_merges = pre->ignores_merges;
    return true;
}

bool lm_pre_compile(lm_tokenizer *tok, const lm_tokenizer_desc *desc, lm_error *err)
{
    tok->pre = desc->pre;
    tok->splits = calloc(desc->n_split + 1, sizeof *tok->splits);
    if (!tok->splits)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for a pre-tokenizer");
    for (; tok->n_split < desc->n_split; tok->n_split++) {
        const lm_split *from = &desc->splits[tok->n_split];
        lm_split_code *to = &tok->splits[tok->n_split];
        to->behavior = from->behavior;
        to->invert = from->invert;
        if (!lm_regex_compile(from->pattern, from->literal, to, err))
            return false;
    }
    return true;
}
