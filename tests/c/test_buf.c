#include "base/buf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* The linker sends buf.c's realloc() here (--wrap): memory can run out. */
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static int reallocs_left = -1; /* before they fail; -1: they never do */

void *
__wrap_realloc(void *memory, size_t size)
{
    if (reallocs_left == 0) {
        return NULL;
    }
    if (reallocs_left > 0) {
        reallocs_left--;
    }
    return __real_realloc(memory, size);
}

static void
test_bytes(void)
{
    static const unsigned char wanted[] = {'a', 0, 'b', 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8};
    vnl_buf buf = VNL_BUF_INIT;

    CHECK(vnl_buf_put(&buf, "a\0b", 3) == 0);
    CHECK(vnl_buf_put_u16(&buf, 0x0102) == 0);
    CHECK(vnl_buf_put_u32(&buf, 0x01020304) == 0);
    CHECK(vnl_buf_put_u64(&buf, 0x0102030405060708) == 0);
    CHECK(buf.len == sizeof(wanted) && memcmp(buf.data, wanted, sizeof(wanted)) == 0);
    vnl_buf_clear(&buf);
    CHECK(buf.len == 0 && buf.data != NULL);
    CHECK(vnl_buf_put(&buf, NULL, 0) == 0 && buf.len == 0);
    vnl_buf_free(&buf);
    CHECK(buf.data == NULL && buf.cap == 0);
}

static void
test_text(void)
{
    vnl_buf buf = VNL_BUF_INIT;
    char *text = NULL;
    size_t len = 0;

    CHECK(vnl_buf_puts(&buf, "x=") == 0 && vnl_buf_printf(&buf, "%d,%s", 42, "y") == 0 &&
          vnl_buf_putc(&buf, '!') == 0);
    text = vnl_buf_cstr(&buf);
    CHECK(text != NULL && strcmp(text, "x=42,y!") == 0);
    CHECK(buf.len == 7);
    text = vnl_buf_steal(&buf, &len);
    CHECK(len == 7 && buf.data == NULL && buf.len == 0);
    free(text);
    CHECK(vnl_buf_puts(&buf, "again") == 0 && buf.len == 5);
    vnl_buf_free(&buf);
}

static void
test_growth(void)
{
    vnl_buf buf = VNL_BUF_INIT;

    for (int i = 0; i < 100000; i++) {
        if (vnl_buf_putc(&buf, (char)('a' + i % 26)) < 0) {
            break;
        }
    }
    CHECK(buf.len == 100000 && buf.cap >= buf.len);
    CHECK(buf.data[0] == 'a' && buf.data[99999] == (char)('a' + 99999 % 26));
    vnl_buf_free(&buf);
}

static void
test_out_of_memory(void)
{
    vnl_buf buf = VNL_BUF_INIT;

    reallocs_left = 1;
    CHECK(vnl_buf_puts(&buf, "kept") == 0);
    CHECK(vnl_buf_reserve(&buf, 1000) < 0 && vnl_buf_failed(&buf));
    reallocs_left = -1;
    /* Sticky: what follows a failed append is not appended either. */
    CHECK(vnl_buf_putc(&buf, 'x') < 0 && vnl_buf_printf(&buf, "%d", 1) < 0 && vnl_buf_put(&buf, "", 0) < 0);
    CHECK(vnl_buf_cstr(&buf) == NULL);
    CHECK(buf.len == 4 && memcmp(buf.data, "kept", 4) == 0);
    vnl_buf_clear(&buf);
    CHECK(!vnl_buf_failed(&buf) && vnl_buf_puts(&buf, "new") == 0);
    vnl_buf_free(&buf);
}

static void
test_absurd_size(void)
{
    vnl_buf buf = VNL_BUF_INIT;

    CHECK(vnl_buf_puts(&buf, "x") == 0);
    CHECK(vnl_buf_reserve(&buf, SIZE_MAX) < 0 && vnl_buf_failed(&buf));
    vnl_buf_free(&buf);
}

int
main(void)
{
    test_bytes();
    test_text();
    test_growth();
    test_out_of_memory();
    test_absurd_size();
    return checked();
}
