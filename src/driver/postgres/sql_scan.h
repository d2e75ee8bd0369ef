/* Where quoted things end, by the rules of PostgreSQL's scan.l.  Python-free. */
#ifndef VNL_SQL_SCAN_H
#define VNL_SQL_SCAN_H

#include <stddef.h>

int vnl_sql_is_ident_start(unsigned char c);
int vnl_sql_is_ident(unsigned char c);

/* Each takes the position of the opening and answers the one behind the end,
 * or `len` when there is none. */
size_t vnl_sql_end_of_string(const char *in, size_t len, size_t pos, char quote, int escapes);
size_t vnl_sql_end_of_comment(const char *in, size_t len, size_t pos);
/* `pos` itself when no $tag$ starts there. */
size_t vnl_sql_end_of_dollar(const char *in, size_t len, size_t pos);

#endif
