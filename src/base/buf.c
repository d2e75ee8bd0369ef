#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
vnl_buf_init(vnl_buf *buf)
{
    memset(buf, 0, sizeof(*buf));
}

void
vnl_buf_free(vnl_buf *buf)
{
    free(buf->data);
    vnl_buf_init(buf);
}

void
vnl_buf_clear(vnl_buf *buf)
{
    buf->len = 0;
    buf->failed = 0;
}

int
vnl_buf_failed(const vnl_buf *buf)
{
    return buf->failed;
}

int
vnl_buf_reserve(vnl_buf *buf, size_t more)
{
    size_t cap = buf->cap ? buf->cap : 64;
    char *data = NULL;

    if (buf->failed) {
        return -1;
    }
    if (more <= buf->cap - buf->len) {
        return 0;
    }
    if (more > SIZE_MAX / 2 - buf->len) {
        goto fail;
    }
    while (cap < buf->len + more) {
        cap *= 2;
    }
    data = realloc(buf->data, cap);
    if (data == NULL) {
        goto fail;
    }
    buf->data = data;
    buf->cap = cap;
    return 0;

fail:
    buf->failed = 1;
    return -1;
}

int
vnl_buf_put(vnl_buf *buf, const void *data, size_t len)
{
    if (len == 0) {
        return buf->failed ? -1 : 0;
    }
    if (vnl_buf_reserve(buf, len) < 0) {
        return -1;
    }
    memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    return 0;
}

int
vnl_buf_puts(vnl_buf *buf, const char *text)
{
    return vnl_buf_put(buf, text, strlen(text));
}

int
vnl_buf_putc(vnl_buf *buf, char c)
{
    if (vnl_buf_reserve(buf, 1) < 0) {
        return -1;
    }
    buf->data[buf->len++] = c;
    return 0;
}

int
vnl_buf_put_u16(vnl_buf *buf, uint16_t value)
{
    unsigned char bytes[2] = {(unsigned char)(value >> 8), (unsigned char)value};
    return vnl_buf_put(buf, bytes, sizeof(bytes));
}

int
vnl_buf_put_u32(vnl_buf *buf, uint32_t value)
{
    unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                              (unsigned char)(value >> 8), (unsigned char)value};
    return vnl_buf_put(buf, bytes, sizeof(bytes));
}

int
vnl_buf_put_u64(vnl_buf *buf, uint64_t value)
{
    if (vnl_buf_put_u32(buf, (uint32_t)(value >> 32)) < 0) {
        return -1;
    }
    return vnl_buf_put_u32(buf, (uint32_t)value);
}

int
vnl_buf_printf(vnl_buf *buf, const char *format, ...)
{
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0 || vnl_buf_reserve(buf, (size_t)len + 1) < 0) {
        buf->failed = 1;
        return -1;
    }
    va_start(args, format);
    vsnprintf(buf->data + buf->len, (size_t)len + 1, format, args);
    va_end(args);
    buf->len += (size_t)len;
    return 0;
}

char *
vnl_buf_cstr(vnl_buf *buf)
{
    if (vnl_buf_reserve(buf, 1) < 0) {
        return NULL;
    }
    buf->data[buf->len] = '\0';
    return buf->data;
}

char *
vnl_buf_steal(vnl_buf *buf, size_t *len)
{
    char *data = buf->data;

    if (len != NULL) {
        *len = buf->len;
    }
    vnl_buf_init(buf);
    return data;
}
