/* lm/memory.h - what the machine can still give, so that what does not fit is an error; lists that grow. */
#ifndef LM_MEMORY_H
#define LM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that can be committed without swapping, as far as the system tells; UINT64_MAX if it does not. */
uint64_t lm_memory_available(void);

/* Makes room for `more` elements of `size` bytes after the first n in *list (NULL at first; free() it), and doubles the
 * room so that appending stays cheap. list: a pointer to the pointer. False: no memory, and *list stays as it is. */
bool lm_grow(void *list, size_t *capacity, size_t n, size_t more, size_t size);

#endif
