/* vinyl._postgres */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "row/decode.h"

static struct PyModuleDef_Slot slots[] = {{Py_mod_exec, vnl_row_init}, {0, NULL}};

static struct PyModuleDef moduledef = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "vinyl._postgres",
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__postgres(void)
{
    return PyModuleDef_Init(&moduledef);
}
