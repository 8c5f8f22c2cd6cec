/* Prints the table of docs/cuda.md from the rows of src/cuda/takes.c. Needs no GPU. */
#include <stdio.h>

#include "cuda/takes.h"

int main(void)
{
    char text[1024];
    for (int kernel = -1; kernel < PRISM_N_CU_KERNEL; kernel++) {
        prism_cu_takes_markdown(kernel, text, sizeof text);
        fputs(text, stdout);
    }
    return 0;
}
