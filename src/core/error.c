/* The sentence about the last error, and the names of statuses. */
#include <stdarg.h>
#include <stdio.h>

#include "core/context.h"

prism_status prism_fail(prism_ctx *ctx, prism_status status, const char *format, ...)
{
    if (ctx) {
        va_list args;
        va_start(args, format);
        vsnprintf(ctx->error, sizeof ctx->error, format, args);
        va_end(args);
    }
    return status;
}

const char *prism_status_name(prism_status status)
{
    static const char *const names[] = {
        [PRISM_OK] = "PRISM_OK",
        [PRISM_ERROR_INVALID] = "PRISM_ERROR_INVALID",
        [PRISM_ERROR_UNSUPPORTED] = "PRISM_ERROR_UNSUPPORTED",
        [PRISM_ERROR_MEMORY] = "PRISM_ERROR_MEMORY",
        [PRISM_ERROR_WORKSPACE] = "PRISM_ERROR_WORKSPACE",
        [PRISM_ERROR_CAPACITY] = "PRISM_ERROR_CAPACITY",
        [PRISM_ERROR_DEVICE] = "PRISM_ERROR_DEVICE",
    };
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown status";
}
