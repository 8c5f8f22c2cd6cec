#include "payload.h"
#include "words.h"

#include <stdio.h>
#include <string.h>

#define SENTENCE_BYTES 192

const char *const eval_payload_names[3] = {"word", "number", "uuid"};

const char eval_noise[] = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

void eval_payload_draw(eval_payload type, eval_rng *rng, char out[EVAL_PAYLOAD_BYTES])
{
    if (type == EVAL_PAYLOAD_NUMBER) {
        snprintf(out, EVAL_PAYLOAD_BYTES, "%llu", 1000000ull + (unsigned long long)eval_rng_below(rng, 9000000));
    } else if (type == EVAL_PAYLOAD_WORD) {
        const char *adjective = eval_adjectives[eval_rng_below(rng, EVAL_N_ADJECTIVE)];
        const char *noun = eval_nouns[eval_rng_below(rng, EVAL_N_NOUN)];
        snprintf(out, EVAL_PAYLOAD_BYTES, "%s-%s", adjective, noun);
    } else {
        uint64_t high = eval_rng_next(rng), low = eval_rng_next(rng);
        high = (high & ~0xF000ull) | 0x4000;      /* version 4 */
        low = (low & ~(3ull << 62)) | 1ull << 63; /* variant 1 */
        snprintf(out, EVAL_PAYLOAD_BYTES, "%08llx-%04llx-%04llx-%04llx-%012llx", (unsigned long long)(high >> 32),
                 (unsigned long long)(high >> 16 & 0xFFFF), (unsigned long long)(high & 0xFFFF),
                 (unsigned long long)(low >> 48), (unsigned long long)(low & 0xFFFFFFFFFFFFull));
    }
}

static bool is_taken(const eval_pair *others, int32_t n, const eval_pair *p)
{
    for (int32_t i = 0; i < n; i++)
        if (strcmp(others[i].key, p->key) == 0 || strcmp(others[i].value, p->value) == 0)
            return true;
    return false;
}

eval_pair eval_pair_draw(eval_payload key, eval_payload value, const eval_pair *others, int32_t n, eval_rng *rng)
{
    eval_pair p;
    do {
        eval_payload_draw(key, rng, p.key);
        eval_payload_draw(value, rng, p.value);
    } while (is_taken(others, n, &p));
    return p;
}

bool eval_pair_append(lm_text *text, eval_payload value, const eval_pair *pair, lm_error *err)
{
    char sentence[SENTENCE_BYTES];
    int n = snprintf(sentence, sizeof sentence, "One of the special magic %ss for %s is: %s.",
                     eval_payload_names[value], pair->key, pair->value);
    return lm_text_append(text, sentence, (size_t)n, err);
}

bool eval_is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

bool eval_ends_sentence(const char *text, size_t i)
{
    if (i == 0 || !eval_is_blank(text[i]))
        return false;
    while (i > 0 && strchr("\"')]_", text[i - 1]))
        i--;
    if (i >= 3 && (memcmp(text + i - 3, "\xE2\x80\x9D", 3) == 0 || memcmp(text + i - 3, "\xE2\x80\x99", 3) == 0))
        i -= 3;
    return i > 0 && strchr(".!?", text[i - 1]) && text[i - 1];
}
