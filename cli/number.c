/* Numbers of the command line: one grammar for all options. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* Reads -12, 12 and 8K, or, where whole is false, -12, 0.5 and 1e6. No space, + or 0x, which strtod() takes. Returns
 * where the number ends; NULL: text does not start with one. */
static const char *read_number(const char *text, bool whole, double *out)
{
    const char *digits = text + (*text == '-');
    const size_t n = strspn(digits, whole ? "0123456789" : "0123456789.eE+-");
    const bool is_k = whole && n && (digits[n] == 'K' || digits[n] == 'k');
    char *end;
    *out = strtod(text, &end) * (is_k ? 1024 : 1);
    return n && digits[0] != '+' && end == digits + n ? digits + n + is_k : NULL;
}

int32_t cli_parse_list(const char *text, bool whole, double min, double max, double *out, int32_t n)
{
    for (int32_t count = 0; count < n; text++) {
        double value;
        text = read_number(text, whole, &value);
        if (!text || (*text && *text != ',') || !(value >= min && value <= max))
            return -1;
        out[count++] = value;
        if (!*text)
            return count;
    }
    return -1;
}

bool cli_parse_whole(const char *name, const char *text, double min, double max, double *out)
{
    if (cli_parse_list(text, true, min, max, out, 1) == 1)
        return true;
    cli_fail(EXIT_USAGE, "%s '%s': give a whole number from %.0f to %.0f; K counts 1024", name, text, min, max);
    return false;
}

bool cli_parse_int(const char *name, const char *text, int32_t min, int32_t max, int32_t *out)
{
    double value;
    if (!cli_parse_whole(name, text, min, max, &value))
        return false;
    *out = (int32_t)value;
    return true;
}

bool cli_parse_number(const char *name, const char *text, double min, double max, double *out)
{
    if (cli_parse_list(text, false, min, max, out, 1) == 1)
        return true;
    cli_fail(EXIT_USAGE, "%s '%s': give a number from %g to %g", name, text, min, max);
    return false;
}
