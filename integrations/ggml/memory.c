#include "plugin.h"

#include <stdlib.h>

void *plugin_buffer_reserve(plugin_buffer *buffer, size_t bytes)
{
    if (bytes > buffer->bytes) {
        free(buffer->data);
        buffer->bytes = (bytes + bytes / 4 + 63) / 64 * 64; /* prompts grow: a little ahead */
        buffer->data = aligned_alloc(64, buffer->bytes);
        if (!buffer->data)
            buffer->bytes = 0;
    }
    return buffer->data;
}

void plugin_buffer_free(plugin_buffer *buffer)
{
    free(buffer->data);
    *buffer = (plugin_buffer){0};
}
