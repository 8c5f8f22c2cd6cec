/* The environment: three options by variables of their own, every other option by its name in PRISM_OPTIONS. */
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

plugin_settings plugin_options;

static void set(const char *name, const char *value, const char *variable)
{
    if (prism_options_set(&plugin_options.options, name, value) && !*plugin_options.error)
        snprintf(plugin_options.error, sizeof plugin_options.error, "%s: option %s cannot be '%s'", variable, name,
                 value);
}

/* "name=value,name=value" */
static void set_all(const char *list)
{
    char text[1024];
    if (strlen(list) >= sizeof text) {
        snprintf(plugin_options.error, sizeof plugin_options.error, "PRISM_OPTIONS is too long");
        return;
    }
    strcpy(text, list);
    char *rest = NULL;
    for (char *item = strtok_r(text, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        char *equals = strchr(item, '=');
        if (equals)
            *equals = '\0';
        set(item, equals ? equals + 1 : "1", "PRISM_OPTIONS");
    }
}

void plugin_settings_read(void)
{
    static const char *const variables[][2] = {
        {"PRISM_METHOD", "method"}, {"PRISM_TOP_P", "top_p"}, {"PRISM_MIN_TOKENS", "min_tokens"}};
    plugin_options = (plugin_settings){0};
    prism_options_init(&plugin_options.options);
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *value = getenv(variables[i][0]);
        if (!value || !*value)
            continue;
        if (i == 0 && !strcmp(value, "ggml"))
            plugin_options.delegate_all = true;
        else
            set(variables[i][1], value, variables[i][0]);
    }
    const char *others = getenv("PRISM_OPTIONS");
    if (others)
        set_all(others);
}
