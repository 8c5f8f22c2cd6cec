/* lm/memory.h - what the machine can still give, so that what does not fit is an error. */
#ifndef LM_MEMORY_H
#define LM_MEMORY_H

#include <stdint.h>

/* Bytes that can be committed without swapping, as far as the system tells; UINT64_MAX if it does not. */
uint64_t lm_memory_available(void);

#endif
