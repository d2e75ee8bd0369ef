/* A growable byte buffer.  Python-free.
 *
 * A failed allocation makes the buffer sticky-failed: further appends do
 * nothing and return -1, so that a caller may check once, at the end, with
 * vnl_buf_failed().
 */
#ifndef VNL_BASE_BUF_H
#define VNL_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

typedef struct vnl_buf {
    char *data; /* not terminated unless vnl_buf_cstr() was called */
    size_t len;
    size_t cap;
    int failed;
} vnl_buf;

#define VNL_BUF_INIT {NULL, 0, 0, 0}

void vnl_buf_init(vnl_buf *buf);
/* Frees the memory and leaves an empty, usable buffer. */
void vnl_buf_free(vnl_buf *buf);
/* Forgets the content, keeps the memory, clears the failure. */
void vnl_buf_clear(vnl_buf *buf);
int vnl_buf_failed(const vnl_buf *buf);

/* All return 0, or -1 out of memory. */
int vnl_buf_reserve(vnl_buf *buf, size_t more);
int vnl_buf_put(vnl_buf *buf, const void *data, size_t len);
int vnl_buf_puts(vnl_buf *buf, const char *text);
int vnl_buf_putc(vnl_buf *buf, char c);
int vnl_buf_put_u16(vnl_buf *buf, uint16_t value); /* big-endian */
int vnl_buf_put_u32(vnl_buf *buf, uint32_t value); /* big-endian */
int vnl_buf_put_u64(vnl_buf *buf, uint64_t value); /* big-endian */
int vnl_buf_printf(vnl_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The content with a NUL after it (not counted in len); NULL out of memory. */
char *vnl_buf_cstr(vnl_buf *buf);
/* The malloc-ed memory, now the caller's; the buffer is empty again. */
char *vnl_buf_steal(vnl_buf *buf, size_t *len);

#endif
