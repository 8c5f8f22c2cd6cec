/*
 * The patterns of pre-tokenizers are written for Oniguruma with Ruby's syntax; here they are rewritten for PCRE2 where
 * the two differ, and refused where they differ in a way that no published pattern needs.
 *
 *   \s \S \w \W \b \B   the sets that Unicode defines, which PCRE2 does not take quite so
 *   \p{Han}             a script: PCRE2 would take its extensions along
 *   [a[bc]]             a class in a class: one class
 *   \v \uHHHH {,n}      \x{B} \x{HHHH} {0,n}
 *   ^ $ .               know lines, which end with LF
 */
#include "tokenizer_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define SPACE                                                                                                          \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define NO_SPACE                                                                                                       \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}"                    \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}"
/* Letters, marks, decimal digits, connectors; what else Unicode calls alphabetic; Latin-1's powers and fractions. */
#define WORD                                                                                                           \
    "\\p{L}\\p{M}\\p{Nl}\\p{Nd}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-"        \
    "\\x{1F189}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

typedef struct escape {
    char letter;
    const char *outside, *inside; /* of a class; NULL: refused there */
} escape;

static const escape escapes[] = {
    {'s', "[" SPACE "]", SPACE},
    {'S', "[^" SPACE "]", NO_SPACE},
    {'w', "[" WORD "]", WORD},
    {'W', "[^" WORD "]", NULL},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'v', "\\x{B}", "\\x{B}"},
    {'b', "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))", NULL},
    {'B', "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))", NULL},
    {'r', "\\r", "\\r"},
    {'n', "\\n", "\\n"},
    {'t', "\\t", "\\t"},
    {'f', "\\f", "\\f"},
    {'A', "\\A", NULL},
    {'z', "\\z", NULL},
    {'Z', "\\Z", NULL},
};

typedef struct translation {
    const char *at; /* in the pattern */
    lm_text out;
    int depth; /* of classes in classes; 0: outside */
    const char *refused;
    bool memory;
} translation;

static void put(translation *t, const char *bytes, size_t n)
{
    t->memory = t->memory && lm_text_append(&t->out, bytes, n, NULL);
}

static void put_text(translation *t, const char *text)
{
    put(t, text, strlen(text));
}

/* \p{Name}, \P{Name}: two letters are a category, as in PCRE2; longer names are scripts. */
static void take_property(translation *t)
{
    const char *name = t->at + 2, *close = *name == '{' ? strchr(name, '}') : NULL;
    if (!close) {
        t->refused = "a property without braces";
        return;
    }
    put(t, t->at, 3);
    name++;
    if (*name == '^')
        put(t, name++, 1);
    if (close - name > 2)
        put_text(t, "sc:");
    put(t, name, (size_t)(close + 1 - name));
    t->at = close + 1;
}

static size_t hex_digits(const char *s, size_t most)
{
    size_t n = 0;
    while (n < most && isxdigit((unsigned char)s[n]))
        n++;
    return n;
}

/* \xHH of ASCII, \x{H...}, \uHHHH */
static void take_code_point(translation *t)
{
    const bool braces = t->at[1] == 'x' && t->at[2] == '{';
    const char *digits = t->at + (braces ? 3 : 2);
    const size_t n = hex_digits(digits, braces ? 6 : t->at[1] == 'x' ? 2 : 4);
    if (braces ? n == 0 || digits[n] != '}' : t->at[1] == 'x' ? n != 2 || digits[0] > '7' : n != 4) {
        t->refused = "a code point that is not \\xHH up to \\x7F, \\x{H...} or \\uHHHH";
        return;
    }
    put_text(t, "\\x{");
    put(t, digits, n);
    put_text(t, "}");
    t->at = digits + n + braces;
}

static void take_escape(translation *t)
{
    const char letter = t->at[1];
    if (letter == 'p' || letter == 'P') {
        take_property(t);
        return;
    }
    if (letter == 'x' || letter == 'u') {
        take_code_point(t);
        return;
    }
    if (!isalnum((unsigned char)letter)) { /* itself */
        if (letter)
            put(t, t->at, 2);
        else
            t->refused = "a backslash at its end";
        t->at += 2;
        return;
    }
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        const char *text = t->depth ? escapes[i].inside : escapes[i].outside;
        if (escapes[i].letter != letter || !text)
            continue;
        put_text(t, text);
        t->at += 2;
        return;
    }
    t->refused = "a backslash with a letter or digit that is not known here";
}

static void take_in_class(translation *t)
{
    const char c = *t->at++;
    if (c == '[' && (*t->at == ':' || *t->at == '^' || *t->at == ']')) {
        t->refused = "a class in a class that is negated or named";
    } else if (c == '[') {
        t->depth++;
    } else if (c == '&' && *t->at == '&') {
        t->refused = "an intersection of classes";
    } else if (c != ']' || --t->depth == 0) {
        put(t, &c, 1);
    }
}

static void open_class(translation *t)
{
    put(t, t->at++, 1);
    t->depth = 1;
    if (*t->at == '^')
        put(t, t->at++, 1);
    if (*t->at == ']')
        t->refused = "a class that starts with ]";
}

/* {n} {n,} {n,m} {,m}; another brace stands for itself. */
static void take_brace(translation *t)
{
    const char *s = t->at + 1;
    size_t low = strspn(s, "0123456789");
    const bool comma = s[low] == ',';
    size_t high = comma ? strspn(s + low + 1, "0123456789") : 0;
    const size_t n = low + comma + high;
    if (s[n] != '}' || low + high == 0) {
        put_text(t, "\\{");
        t->at++;
        return;
    }
    if (s[n + 1] == '+' || (s[n + 1] == '?' && !comma)) {
        t->refused = "a count in braces that + or ? follows";
        return;
    }
    put_text(t, low ? "{" : "{0");
    put(t, s, n + 1);
    t->at = s + n + 1;
}

static void take_group(translation *t)
{
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:", "(?i)"};
    size_t n = t->at[1] == '?' ? 0 : 1;
    for (size_t i = 0; n == 0 && i < sizeof known / sizeof *known; i++)
        if (strncmp(t->at, known[i], strlen(known[i])) == 0)
            n = strlen(known[i]);
    if (n == 0)
        t->refused = "a group that starts with (? and is not known here";
    put(t, t->at, n);
    t->at += n;
}

static void translate(translation *t)
{
    while (*t->at && !t->refused) {
        if (*t->at == '\\')
            take_escape(t);
        else if (t->depth)
            take_in_class(t);
        else if (*t->at == '[')
            open_class(t);
        else if (*t->at == '{')
            take_brace(t);
        else if (*t->at == '(')
            take_group(t);
        else
            put(t, t->at++, 1);
    }
}

static pcre2_code *compile(const char *pattern, bool literal, int *code)
{
    const uint32_t options = PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE;
    PCRE2_SIZE offset;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) {
        *code = PCRE2_ERROR_NOMEMORY;
        return NULL;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | (literal ? PCRE2_LITERAL : options), code, &offset, context);
    pcre2_compile_context_free(context);
    return compiled;
}

bool lm_regex_compile(const char *pattern, bool literal, lm_split_code *out, lm_error *err)
{
    translation t = {.at = literal ? "" : pattern, .memory = true};
    put(&t, NULL, 0);
    translate(&t);
    int code = 0;
    if (t.memory && !t.refused)
        out->pattern = compile(literal ? pattern : t.out.data, literal, &code);
    lm_text_free(&t.out);
    if (!t.memory)
        return lm_fail(err, LM_ERROR_MEMORY, "tokenizer: out of memory for a pattern");
    if (t.refused)
        return lm_fail(err, LM_ERROR_UNSUPPORTED,
                       "tokenizer: the split pattern \"%.80s\" has %s, which is not supported", pattern, t.refused);
    if (!out->pattern) {
        char why[120];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return lm_fail(err, LM_ERROR_UNSUPPORTED, "tokenizer: PCRE2 does not take the split pattern \"%.80s\": %s",
                       pattern, why);
    }
    /* Where JIT is not available or not allowed, the interpreter does the same, slower. */
    out->jit = pcre2_jit_compile(out->pattern, PCRE2_JIT_COMPLETE) == 0;
    return true;
}
