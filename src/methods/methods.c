/* The list of methods. */
#include "methods/methods.h"

#include <string.h>

static const prism_method_impl *const methods[] = {
    [PRISM_METHOD_PRISM] = &prism_method_prism,
    [PRISM_METHOD_DENSE] = &prism_method_dense,
    [PRISM_METHOD_MEANPOOL] = &prism_method_meanpool,
};
enum { n_method = sizeof methods / sizeof methods[0] };

const prism_method_impl *prism_method_get(prism_method method)
{
    return (unsigned)method < n_method ? methods[method] : NULL;
}

const char *prism_method_name(prism_method method)
{
    const prism_method_impl *m = prism_method_get(method);
    return m ? m->name : NULL;
}

prism_status prism_method_find(const char *name, prism_method *out)
{
    for (int i = 0; name && out && i < n_method; i++)
        if (!strcmp(name, methods[i]->name)) {
            *out = (prism_method)i;
            return PRISM_OK;
        }
    return PRISM_ERROR_INVALID;
}

int32_t prism_method_count(void)
{
    return n_method;
}
