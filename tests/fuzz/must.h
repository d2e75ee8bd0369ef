/* What the fuzz targets check with: unlike CHECK of tests/c it ends the run, so that libFuzzer keeps
 * the input. */
#ifndef VNL_FUZZ_MUST_H
#define VNL_FUZZ_MUST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
