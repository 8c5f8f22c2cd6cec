#include "memory.h"
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

void lm_tokenizer_desc_init(lm_tokenizer_desc *desc)
{
    *desc = (lm_tokenizer_desc){.bos_id = -1, .unk_id = -1, .ignore_merges = -1};
}

/* Marks tokens that BPE of their bytes gives back whole: most words of a text need no merging then. Runs while
 * ignore_merges is still false. */
static bool mark_whole(lm_tokenizer *tok, lm_error *err)
{
    lm_bpe bpe = {0};
    lm_tokens ids = {0};
    bool ok = true;
    for (uint32_t id = 0; ok && id < tok->n_token; id++) {
        if (!(tok->tokens[id].traits & LM_TOKEN_ENCODABLE))
            continue;
        ids.n = 0;
        ok = lm_bpe_encode(&bpe, tok, (lm_string){tok->tokens[id].bytes, tok->tokens[id].length}, &ids, err);
        if (ok && ids.n == 1 && ids.ids[0] == (int32_t)id)
            tok->tokens[id].traits |= LM_TOKEN_WHOLE;
    }
    lm_bpe_free(&bpe);
    lm_tokens_free(&ids);
    return ok;
}

bool lm_tokenizer_create(const lm_tokenizer_desc *given, lm_tokenizer **out, lm_error *err)
{
    if (!given || !out)
        return lm_fail(err, LM_ERROR_USAGE, "tokenizer: NULL argument");
    lm_tokenizer_desc desc = *given;
    lm_tokenizer *tok = calloc(1, sizeof *tok);
    if (!tok)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory");
    tok->bos_id = -1;
    bool ok = lm_pre_apply(&desc, err) && lm_pre_compile(tok, &desc, err) && lm_vocab_build(tok, &desc, err) &&
              mark_whole(tok, err) && lm_tokenizer_set_bos(tok, desc.bos_id, err);
    if (ok && desc.add_bos && tok->bos_id < 0)
        ok = lm_fail(err, LM_ERROR_INPUT, "tokenizer: BOS is to be added, but no BOS token is named");
    if (!ok) {
        lm_tokenizer_free(tok);
        return false;
    }
    tok->ignore_merges = desc.ignore_merges > 0;
    tok->nfc = desc.nfc;
    tok->prefix = desc.prefix;
    tok->prefix_keeps_space = desc.prefix_keeps_space;
    tok->add_bos = desc.add_bos;
    *out = tok;
    return true;
}

bool lm_tokenizer_set_bos(lm_tokenizer *tok, int32_t bos_id, lm_error *err)
{
    if (!tok)
        return lm_fail(err, LM_ERROR_USAGE, "tokenizer: NULL argument");
    if (bos_id >= (int64_t)tok->n_token)
        return lm_fail(err, LM_ERROR_INPUT, "tokenizer: BOS %d is not in the vocabulary of %u tokens", (int)bos_id,
                       tok->n_token);
    if (bos_id >= 0)
        tok->bos_id = bos_id;
    return true;
}

void lm_tokenizer_free(lm_tokenizer *tok)
{
    if (!tok)
        return;
    for (size_t i = 0; i < tok->n_split; i++)
        pcre2_code_free(tok->splits[i].pattern);
    free(tok->splits);
    free(tok->bytes);
    free(tok->tokens);
    free(tok->special);
    free(tok->vocab);
    free(tok->merges);
    free(tok);
}

/* ------------------------------------------------------------------------------------------------ queries ---- */

int32_t lm_tokenizer_n_token(const lm_tokenizer *tok)
{
    return (int32_t)tok->n_token;
}
int32_t lm_tokenizer_bos(const lm_tokenizer *tok)
{
    return tok->bos_id;
}
bool lm_tokenizer_adds_bos(const lm_tokenizer *tok)
{
    return tok->add_bos;
}
const char *lm_tokenizer_pre(const lm_tokenizer *tok)
{
    return tok->pre;
}

static bool in_use(const lm_tokenizer *tok, int32_t id)
{
    return id >= 0 && (uint32_t)id < tok->n_token && tok->tokens[id].bytes;
}

const char *lm_tokenizer_bytes(const lm_tokenizer *tok, int32_t id, size_t *n_bytes)
{
    bool used = in_use(tok, id);
    if (n_bytes)
        *n_bytes = used ? tok->tokens[id].length : 0;
    return used ? tok->tokens[id].bytes : NULL;
}

lm_token_type lm_tokenizer_type(const lm_tokenizer *tok, int32_t id)
{
    return in_use(tok, id) ? (lm_token_type)tok->tokens[id].type : LM_TOKEN_UNUSED;
}

/* The longest special token of those allowed that stands at the start of text, LM_NO_TOKEN if none does. */
static uint32_t special_at(const lm_tokenizer *tok, const char *text, size_t n, unsigned flags)
{
    unsigned first = (unsigned char)text[0];
    for (uint32_t i = tok->special_start[first]; i < tok->special_start[first + 1]; i++) {
        uint32_t id = tok->special[i];
        if (tok->tokens[id].type != LM_TOKEN_USER_DEFINED && !(flags & LM_ENCODE_SPECIAL))
            continue;
        if (tok->tokens[id].length <= n && memcmp(tok->tokens[id].bytes, text, tok->tokens[id].length) == 0)
            return id;
    }
    return LM_NO_TOKEN;
}

int32_t lm_tokenizer_find(const lm_tokenizer *tok, const char *bytes, size_t n_bytes)
{
    if (n_bytes == 0)
        return -1;
    uint32_t id = special_at(tok, bytes, n_bytes, LM_ENCODE_SPECIAL);
    if (id == LM_NO_TOKEN || tok->tokens[id].length != n_bytes)
        id = lm_vocab_find(tok, bytes, n_bytes);
    if (id == LM_NO_TOKEN && n_bytes == 1)
        id = tok->byte_id[(unsigned char)*bytes];
    return id == LM_NO_TOKEN ? -1 : (int32_t)id;
}

/* ------------------------------------------------------------------------------------------------- encode ---- */

/* Everything up to the next special token; *special is it, or LM_NO_TOKEN at the end of the text. */
static size_t stretch_length(const lm_tokenizer *tok, const char *text, size_t n, unsigned flags, uint32_t *special)
{
    *special = LM_NO_TOKEN;
    size_t i = 0;
    for (; i < n && *special == LM_NO_TOKEN; i += *special == LM_NO_TOKEN) {
        unsigned first = (unsigned char)text[i];
        if (tok->special_start[first] != tok->special_start[first + 1])
            *special = special_at(tok, text + i, n - i, flags);
    }
    return i;
}

/* Working memory of one encode call. */
typedef struct encoder {
    lm_splitter split;
    lm_bpe bpe;
    lm_text normal;
} encoder;

/* A piece, cut before spaces where no merge crosses them: short pieces are often whole tokens, and merge fast. */
static bool encode_piece(encoder *e, lm_string piece, lm_tokens *out, lm_error *err)
{
    const lm_tokenizer *tok = e->split.tok;
    for (size_t n; piece.n > 0; piece.data += n, piece.n -= n) {
        n = tok->parts_at_spaces ? 1 : piece.n;
        while (n < piece.n && !(piece.data[n] == ' ' && piece.data[n - 1] != ' '))
            n++;
        if (!lm_bpe_encode(&e->bpe, tok, (lm_string){piece.data, n}, out, err))
            return false;
    }
    return true;
}

static bool encode_stretch(encoder *e, lm_string text, bool first, lm_tokens *out, lm_error *err)
{
    if (!lm_normalize(e->split.tok, &text, first, &e->normal, err))
        return false;
    lm_splitter_start(&e->split, text.data, text.n);
    for (lm_string piece;;) {
        if (!lm_splitter_next(&e->split, &piece, err))
            return false;
        if (piece.n == 0)
            return true;
        if (!encode_piece(e, piece, out, err))
            return false;
    }
}

static bool push_id(lm_tokens *out, uint32_t id, lm_error *err)
{
    if (!lm_tokens_reserve(out, 1, err))
        return false;
    out->ids[out->n++] = (int32_t)id;
    return true;
}

bool lm_tokenizer_encode(const lm_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags, lm_tokens *out,
                         lm_error *err)
{
    if (!tok || !out || (!text && n_bytes))
        return lm_fail(err, LM_ERROR_USAGE, "tokenizer: NULL argument");
    encoder e = {0};
    if (!lm_splitter_init(&e.split, tok, err))
        return false;
    const size_t n_before = out->n;
    bool ok = !(flags & LM_ENCODE_BOS) || !tok->add_bos || push_id(out, (uint32_t)tok->bos_id, err);
    for (bool first = true; ok && n_bytes > 0; first = false) {
        uint32_t special;
        size_t n = stretch_length(tok, text, n_bytes, flags, &special);
        ok = encode_stretch(&e, (lm_string){text, n}, first, out, err);
        if (ok && special != LM_NO_TOKEN) {
            ok = push_id(out, special, err);
            n += tok->tokens[special].length;
        }
        text += n;
        n_bytes -= n;
    }
    if (!ok)
        out->n = n_before;
    lm_text_free(&e.normal);
    lm_bpe_free(&e.bpe);
    lm_splitter_free(&e.split);
    return ok;
}

void lm_tokens_free(lm_tokens *tokens)
{
    free(tokens->ids);
    *tokens = (lm_tokens){0};
}

/* ------------------------------------------------------------------------------------------------- decode ---- */

bool lm_text_append(lm_text *text, const char *bytes, size_t n_bytes, lm_error *err)
{
    if (n_bytes == SIZE_MAX || !lm_grow(&text->data, &text->capacity, text->n, n_bytes + 1, 1))
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for a text of %zu bytes", text->n + n_bytes);
    if (n_bytes)
        memcpy(text->data + text->n, bytes, n_bytes);
    text->n += n_bytes;
    text->data[text->n] = '\0';
    return true;
}

void lm_text_free(lm_text *text)
{
    free(text->data);
    *text = (lm_text){0};
}

static const char *shown_bytes(const lm_tokenizer *tok, int32_t id, unsigned flags, size_t *n_bytes)
{
    if (in_use(tok, id) && tok->tokens[id].type == LM_TOKEN_CONTROL && (flags & LM_DECODE_SKIP_SPECIAL)) {
        *n_bytes = 0;
        return NULL;
    }
    return lm_tokenizer_bytes(tok, id, n_bytes);
}

static bool is_special(const lm_tokenizer *tok, int32_t id)
{
    const lm_token_type type = lm_tokenizer_type(tok, id);
    return type == LM_TOKEN_CONTROL || type == LM_TOKEN_UNKNOWN || type == LM_TOKEN_USER_DEFINED;
}

bool lm_tokenizer_decode(const lm_tokenizer *tok, const int32_t *ids, size_t n_id, unsigned flags, lm_text *out,
                         lm_error *err)
{
    if (!tok || !out || (!ids && n_id))
        return lm_fail(err, LM_ERROR_USAGE, "tokenizer: NULL argument");
    const size_t n_before = out->n;
    bool prefixed = tok->prefix != LM_PREFIX_NONE && !(flags & LM_DECODE_CONTINUES); /* encode() put a space here */
    for (size_t i = 0; i < n_id; i++) {
        size_t n;
        const char *bytes = shown_bytes(tok, ids[i], flags, &n);
        const bool special = is_special(tok, ids[i]), skip = prefixed && !special && n > 0 && bytes[0] == ' ';
        if (!lm_text_append(out, n ? bytes + skip : NULL, n - skip, err)) {
            out->n = n_before;
            return false;
        }
        /* BOS in front is no part of the text. */
        prefixed = (special && tok->prefix == LM_PREFIX_ALL && !(flags & LM_DECODE_CONTINUES)) ||
                   (prefixed && i == 0 && ids[i] == tok->bos_id);
    }
    return n_id > 0 || lm_text_append(out, NULL, 0, err);
}

bool lm_stream_push(lm_stream *stream, const lm_tokenizer *tok, int32_t id, unsigned flags, lm_text *out, lm_error *err)
{
    if (!stream || !tok || !out)
        return lm_fail(err, LM_ERROR_USAGE, "tokenizer: NULL argument");
    size_t n, n_before = out->n;
    const char *bytes = shown_bytes(tok, id, flags, &n);
    if (!lm_text_append(out, stream->held, stream->n_held, err) || !lm_text_append(out, bytes, n, err)) {
        out->n = n_before;
        return false;
    }
    stream->n_held = 0;
    /* Only the last three bytes can be the start of a character that is still to be completed. */
    size_t n_new = out->n - n_before;
    for (size_t back = n_new < 3 ? n_new : 3; back > 0; back--) {
        const char *tail = out->data + out->n - back;
        if (lm_utf8_length(tail, back) > back) {
            memcpy(stream->held, tail, back);
            stream->n_held = (uint32_t)back;
            out->n -= back;
            out->data[out->n] = '\0';
            break;
        }
    }
    return true;
}

bool lm_stream_flush(lm_stream *stream, lm_text *out, lm_error *err)
{
    if (!stream || !out)
        return lm_fail(err, LM_ERROR_USAGE, "tokenizer: NULL argument");
    if (!lm_text_append(out, stream->held, stream->n_held, err))
        return false;
    stream->n_held = 0;
    return true;
}
