/* What the C tests need of a framework: CHECK, and a count at the end. */
#ifndef VNL_TESTS_CHECK_H
#define VNL_TESTS_CHECK_H

#include <stdio.h>

static int checks, failures;

#define CHECK(condition) \
    do { \
        checks++; \
        if (!(condition)) { \
            failures++; \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
        } \
    } while (0)

/* main() returns this. */
static inline int
checked(void)
{
    printf("%d checks, %d failed\n", checks, failures);
    return failures != 0 || checks == 0;
}

#endif
