/* vinyl._sqlite3 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef moduledef = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "vinyl._sqlite3",
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__sqlite3(void)
{
    return PyModuleDef_Init(&moduledef);
}
