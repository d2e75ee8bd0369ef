/* Line: a line of the user's code, remembered cheaply: a code object and an
 * offset in it; the text is made only when somebody wants to read it. */
#ifndef VNL_FIBER_LINE_H
#define VNL_FIBER_LINE_H

struct _object;

typedef struct {
    struct _object *code; /* owned, or NULL: not known */
    int lasti;
} vnl_line;

/* The innermost calling line that is neither vinyl's nor Django's; not known where asyncio calls. */
void vnl_line_find(vnl_line *line);
void vnl_line_copy(vnl_line *line, const vnl_line *from);
void vnl_line_clear(vnl_line *line);
/* Whether no calling line but vinyl's and Django's is under way, as far as the greenlet reaches. */
int vnl_line_is_ours(void);
/* "shop/views.py:31", or "" when it is not known.  New reference. */
struct _object *vnl_line_text(const vnl_line *line);

#endif
