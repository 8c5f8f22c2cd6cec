/*
 * How files spell tokens: bytes in GPT-2's alphabet, or text with marks for spaces.
 */
#include "tokenizer_internal.h"

#include <string.h>

/* GPT-2: printable Latin-1 bytes stand for themselves, the other 68 for U+0100, U+0101, ... in order. */
static bool is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

void lm_spelling_init(lm_spelling *alphabet, bool sentencepiece)
{
    alphabet->sentencepiece = sentencepiece;
    for (size_t c = 0; c < 0x144; c++)
        alphabet->byte[c] = -1;
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++)
        alphabet->byte[is_printable(byte) ? byte : next++] = (int16_t)byte;
}

bool lm_tokenizer_spell(const char *bytes, size_t n_bytes, lm_text *out, lm_error *err)
{
    lm_spelling alphabet;
    lm_spelling_init(&alphabet, false);
    char letter[256][2];
    for (unsigned c = 0; c < 0x144; c++)
        if (alphabet.byte[c] >= 0)
            memcpy(letter[alphabet.byte[c]], (char[]){(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))}, 2);
    bool ok = true;
    for (size_t i = 0; ok && i < n_bytes; i++) {
        const unsigned char byte = (unsigned char)bytes[i];
        ok = byte < 0x80 && is_printable(byte) ? lm_text_append(out, bytes + i, 1, err)
                                               : lm_text_append(out, letter[byte], 2, err);
    }
    return ok;
}

static size_t alphabet_bytes(const lm_spelling *alphabet, lm_string text, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n;) {
        size_t length = lm_utf8_length(text.data + i, text.n - i);
        unsigned c = (unsigned char)text.data[i];
        if (length == 2 && i + 1 < text.n)
            c = (c & 0x1F) << 6 | ((unsigned char)text.data[i + 1] & 0x3F);
        if (length == 0 || length > 2 || c >= 0x144 || alphabet->byte[c] < 0)
            return SIZE_MAX;
        out[n++] = (char)alphabet->byte[c];
        i += length;
    }
    return n;
}

size_t lm_spelling_bytes(const lm_spelling *spelling, lm_string text, char *out)
{
    if (!spelling->sentencepiece)
        return alphabet_bytes(spelling, text, out);
    if (text.n && memchr(text.data, ' ', text.n)) /* no text has it: its spaces are marks */
        return SIZE_MAX;
    memcpy(out, text.data, text.n);
    return lm_mark_to_space(out, text.n);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int lm_spelling_byte(lm_string text)
{
    if (text.n != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>')
        return -1;
    const int high = hex_digit(text.data[3]), low = hex_digit(text.data[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}
