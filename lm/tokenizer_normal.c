/*
 * A stretch of text between special tokens -> the text that is split: NFC, one spelling of the space, a space in front.
 */
#include "tokenizer_internal.h"

#include <utf8proc.h>

#include <stdlib.h>
#include <string.h>

/* NFC leaves every character before U+0300 as it is, and none after them starts with a smaller byte. */
static bool may_change(lm_string text)
{
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.data[i] >= 0xCC)
            return true;
    return false;
}

static bool append_nfc(lm_string text, lm_text *out, lm_error *err)
{
    if (!may_change(text))
        return lm_text_append(out, text.data, text.n, err);
    utf8proc_uint8_t *composed = NULL;
    const utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text.data, (utf8proc_ssize_t)text.n, &composed,
                                            UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    const bool ok = n < 0 ? lm_fail(err, LM_ERROR_MEMORY, "tokenizer: NFC of a text of %zu bytes failed: %s", text.n,
                                    utf8proc_errmsg(n))
                          : lm_text_append(out, (const char *)composed, (size_t)n, err);
    free(composed);
    return ok;
}

/* Bytes that belong to no character stay, and part the text before them from the text behind. */
static bool append_nfc_of_stretches(lm_string text, lm_text *out, lm_error *err)
{
    for (size_t n; text.n > 0; text.data += n, text.n -= n) {
        n = lm_utf8_valid(text.data, text.n);
        if (!append_nfc((lm_string){text.data, n}, out, err))
            return false;
        const size_t n_invalid = lm_utf8_invalid(text.data + n, text.n - n);
        if (!lm_text_append(out, text.data + n, n_invalid, err))
            return false;
        n += n_invalid;
    }
    return true;
}

size_t lm_mark_to_space(char *text, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && memcmp(text + i, LM_SPACE_MARK, 3) == 0) {
            text[kept++] = ' ';
            i += 3;
        } else {
            text[kept++] = text[i++];
        }
    }
    return kept;
}

static bool wants_space(const lm_tokenizer *tok, const char *text, size_t n, bool first)
{
    return (tok->prefix == LM_PREFIX_ALL || (tok->prefix == LM_PREFIX_FIRST && first)) &&
           !(tok->prefix_keeps_space && n > 0 && text[0] == ' ');
}

bool lm_normalize(const lm_tokenizer *tok, lm_string *text, bool first, lm_text *buffer, lm_error *err)
{
    if (text->n == 0 || (!tok->nfc && !tok->sentencepiece && tok->prefix == LM_PREFIX_NONE))
        return true;
    buffer->n = 0;
    if (!lm_text_append(buffer, " ", 1, err) ||
        !(tok->nfc ? append_nfc_of_stretches(*text, buffer, err) : lm_text_append(buffer, text->data, text->n, err)))
        return false;
    char *start = buffer->data + 1; /* behind the space, which is there if it is wanted */
    size_t n = buffer->n - 1;
    if (tok->sentencepiece)
        n = lm_mark_to_space(start, n);
    const bool space = wants_space(tok, start, n, first);
    *text = (lm_string){start - space, n + space};
    return true;
}
