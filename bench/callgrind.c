/* What count.py asks of callgrind from inside the process: counters on, set to 0, written out. */
#include <valgrind/callgrind.h>

void vnl_bench_start(void);
void vnl_bench_zero(void);
void vnl_bench_dump(const char *title);

void
vnl_bench_start(void)
{
    CALLGRIND_START_INSTRUMENTATION;
}

void
vnl_bench_zero(void)
{
    CALLGRIND_ZERO_STATS;
}

void
vnl_bench_dump(const char *title)
{
    CALLGRIND_DUMP_STATS_AT(title);
}
