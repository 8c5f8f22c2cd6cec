#include "library.h"

#include <dlfcn.h>
#include <stddef.h>

bool lm_library_load(const char *what, const char *const *names, const lm_symbol *symbols, int n, lm_error *err)
{
    void *library = NULL;
    for (; !library && *names; names++)
        library = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return lm_fail(err, LM_ERROR_RUN, "%s is not installed, or not in a folder of LD_LIBRARY_PATH: %s", what,
                       dlerror());
    for (int i = 0; i < n; i++) {
        *(void **)symbols[i].function = dlsym(library, symbols[i].name);
        if (!*(void **)symbols[i].function)
            return lm_fail(err, LM_ERROR_RUN, "%s has no %s: it is of another version", what, symbols[i].name);
    }
    return true;
}
