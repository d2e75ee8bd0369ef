#include "fiber/chunk.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* A later CPython may keep its frames otherwise: then each greenlet has its own, as ever. */
#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED)

#define KEPT 16

static _PyStackChunk *kept[KEPT];
static int count;

void
vnl_chunk_lend(void)
{
    PyThreadState *tstate = PyThreadState_Get();
    if (count > 0 && tstate->datastack_chunk == NULL) {
        _PyStackChunk *chunk = kept[--count];
        tstate->datastack_chunk = chunk;
        tstate->datastack_top = &chunk->data[1]; /* the first place says that it is the root */
        tstate->datastack_limit = (PyObject **)((char *)chunk + chunk->size);
    }
}

void
vnl_chunk_keep(void)
{
    PyThreadState *tstate = PyThreadState_Get();
    _PyStackChunk *chunk = tstate->datastack_chunk;
    if (count < KEPT && chunk != NULL && chunk->previous == NULL &&
        tstate->datastack_top == &chunk->data[1]) {
        tstate->datastack_chunk = NULL;
        tstate->datastack_top = NULL;
        tstate->datastack_limit = NULL;
        kept[count++] = chunk;
    }
}

#else

void
vnl_chunk_lend(void)
{
}

void
vnl_chunk_keep(void)
{
}

#endif
