/* Where quoted things end, by the rules of PostgreSQL's scan.l. */
#include "sql_scan.h"

#include <string.h>

int
vnl_sql_is_ident_start(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

int
vnl_sql_is_ident(unsigned char c)
{
    return vnl_sql_is_ident_start(c) || (c >= '0' && c <= '9') || c == '$';
}

size_t
vnl_sql_end_of_string(const char *in, size_t len, size_t pos, char quote, int escapes)
{
    for (pos++; pos < len; pos++) {
        if (escapes && in[pos] == '\\') {
            pos++;
        }
        else if (in[pos] == quote) {
            if (pos + 1 < len && in[pos + 1] == quote) {
                pos++;
            }
            else {
                return pos + 1;
            }
        }
    }
    return len;
}

size_t
vnl_sql_end_of_comment(const char *in, size_t len, size_t pos)
{
    int depth = 0;
    while (pos + 1 < len) {
        if (in[pos] == '/' && in[pos + 1] == '*') {
            depth++;
            pos += 2;
        }
        else if (in[pos] == '*' && in[pos + 1] == '/') {
            pos += 2;
            if (--depth == 0) {
                return pos;
            }
        }
        else {
            pos++;
        }
    }
    return len;
}

/* The end of a $tag$ … $tag$ string that starts at pos, or pos when none does. */
size_t
vnl_sql_end_of_dollar(const char *in, size_t len, size_t pos)
{
    size_t tag = pos + 1;
    if (tag < len && vnl_sql_is_ident_start((unsigned char)in[tag])) {
        while (tag < len && vnl_sql_is_ident((unsigned char)in[tag]) && in[tag] != '$') {
            tag++;
        }
    }
    if (tag >= len || in[tag] != '$') {
        return pos;
    }
    size_t taglen = tag + 1 - pos;
    const char *found = memmem(in + tag + 1, len - tag - 1, in + pos, taglen);
    return found != NULL ? (size_t)(found - in) + taglen : len;
}
