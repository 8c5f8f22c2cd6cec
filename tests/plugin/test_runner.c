/* Prints what the runner's part for GPUs beside this program says, or why the runner does not use it. */
#include "lm/lm.h"

#include <stdio.h>

int main(void)
{
    char text[100];
    lm_error err = {0};
    puts(lm_cuda_probe(text, sizeof text, &err) ? text : err.text);
    return 0;
}
