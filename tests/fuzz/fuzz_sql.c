/* libFuzzer: any text is read in bounds, and what vnl_sql_read says of it is consistent.
 * The first byte chooses whether placeholders are looked for. */
#include "driver/postgres/pg.h"

#include <string.h>

#include "must.h"

static void
check_holes(const vnl_sql *sql)
{
    size_t names = 0;
    for (int i = 0; i < sql->nholes; i++) {
        const vnl_hole *hole = &sql->holes[i];
        MUST(hole->at <= sql->len);
        MUST(i == 0 || hole->at >= sql->holes[i - 1].at);
        MUST(hole->kind <= VNL_HOLE_ANY);
        MUST((sql->flags & VNL_SQL_NAMED) || hole->namelen == 0);
        names = (size_t)hole->name + hole->namelen > names ? (size_t)hole->name + hole->namelen : names;
    }
    volatile char last = names > 0 ? sql->names[names - 1] : 0; /* ASan looks */
    (void)last;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    int placeholders = data[0] & 1;
    size_t len = size - 1;
    char *text = malloc(len > 0 ? len : 1); /* no NUL behind it: ASan sees a read too far */
    MUST(text != NULL);
    memcpy(text, data + 1, len);
    char error[120];
    memset(error, 'x', sizeof(error));
    vnl_sql *sql = vnl_sql_read(text, len, placeholders, error);
    if (sql == NULL) {
        MUST(memchr(error, 0, sizeof(error)) != NULL);
    }
    else {
        MUST(sql->len <= len && sql->text[sql->len] == 0);
        MUST(placeholders || (sql->nholes == 0 && sql->len == len));
        check_holes(sql);
    }
    vnl_sql_free(sql);
    free(text);
    return 0;
}
