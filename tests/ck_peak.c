#include "checkkern.h"
