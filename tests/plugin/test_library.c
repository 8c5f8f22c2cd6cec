/* Prints why the library cannot use the CUDA backend beside this program. */
#include "prism_attn/prism_cuda.h"

#include <stdio.h>

int main(void)
{
    prism_cuda_info info = {.struct_size = sizeof info};
    const prism_status status = prism_cuda_describe(0, &info);
    printf("%s: %s\n", prism_status_name(status), info.problem);
    return status == PRISM_OK;
}
