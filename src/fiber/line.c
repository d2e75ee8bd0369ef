#include "fiber/line.h"

#include "core/state.h"

/* Directories whose code is nobody's own; the first MACHINERY of them end the search: they call
 * the user's code, and who called them says nothing. */
enum {
    ASYNCIO,
    CONCURRENT,
    MACHINERY,
    VINYL = MACHINERY,
    DJANGO,
    ASGIREF,
    CONTEXTLIB,
    DIRECTORIES
};

static char *directories[DIRECTORIES];
static size_t lengths[DIRECTORIES];

/* Remembers where a package (or a module) is.  Errors are cleared: then it is not known. */
static void
find_directory(int which, const char *name)
{
    PyObject *module = PyImport_ImportModule(name);
    PyObject *file = module != NULL ? PyObject_GetAttrString(module, "__file__") : NULL;
    const char *text = file != NULL && PyUnicode_Check(file) ? PyUnicode_AsUTF8(file) : NULL;
    const char *end = text != NULL ? strstr(text, "__init__.py") : NULL;
    size_t len = end != NULL ? (size_t)(end - text) : text != NULL ? strlen(text) : 0;
    char *copy = len > 0 ? PyMem_Malloc(len + 1) : NULL;
    if (copy != NULL) {
        memcpy(copy, text, len);
        copy[len] = 0;
        directories[which] = copy;
        lengths[which] = len;
    }
    Py_XDECREF(file);
    Py_XDECREF(module);
    PyErr_Clear();
}

static void
find_directories(void)
{
    static const char *const names[DIRECTORIES] = {"asyncio", "concurrent", "vinyl",
                                                   "django",  "asgiref",    "contextlib"};
    static int found;
    if (!found) {
        found = 1;
        for (int i = 0; i < DIRECTORIES; i++) {
            find_directory(i, names[i]);
        }
    }
}

/* The directory that the code is in, or -1. */
static int
directory_of(PyCodeObject *code)
{
    Py_ssize_t size = 0;
    const char *file = PyUnicode_AsUTF8AndSize(code->co_filename, &size);
    if (file == NULL) {
        PyErr_Clear();
        return -1;
    }
    for (int i = 0; i < DIRECTORIES; i++) {
        if (lengths[i] > 0 && (size_t)size >= lengths[i] && memcmp(file, directories[i], lengths[i]) == 0) {
            return i;
        }
    }
    return -1;
}

void
vnl_line_find(vnl_line *line)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyFrameObject *frame = (PyFrameObject *)Py_XNewRef((PyObject *)PyEval_GetFrame());
    vnl_line_clear(line);
    find_directories();
    while (frame != NULL) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        int directory = directory_of(code);
        if (directory < 0) {
            line->code = (PyObject *)code;
            line->lasti = PyFrame_GetLasti(frame);
            break;
        }
        Py_DECREF(code);
        if (directory < MACHINERY) {
            break;
        }
        Py_SETREF(frame, PyFrame_GetBack(frame));
    }
    Py_XDECREF(frame);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

int
vnl_line_is_ours(void)
{
    PyFrameObject *frame = (PyFrameObject *)Py_XNewRef((PyObject *)PyEval_GetFrame());
    int ours = 1;
    find_directories();
    while (frame != NULL && ours) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        int directory = directory_of(code);
        Py_DECREF(code);
        ours = directory == VINYL || directory == DJANGO;
        Py_SETREF(frame, PyFrame_GetBack(frame));
    }
    Py_XDECREF(frame);
    return ours;
}

void
vnl_line_copy(vnl_line *line, const vnl_line *from)
{
    Py_XSETREF(line->code, Py_XNewRef(from->code));
    line->lasti = from->lasti;
}

void
vnl_line_clear(vnl_line *line)
{
    Py_CLEAR(line->code);
}

PyObject *
vnl_line_text(const vnl_line *line)
{
    if (line->code == NULL) {
        return PyUnicode_FromString("");
    }
    PyCodeObject *code = (PyCodeObject *)line->code;
    return PyUnicode_FromFormat("%U:%d", code->co_filename, PyCode_Addr2Line(code, line->lasti));
}
