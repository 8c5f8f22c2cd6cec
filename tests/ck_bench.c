#include "checkkern.h"
void ck_bench(void) {}
