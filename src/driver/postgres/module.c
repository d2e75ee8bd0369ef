/* vinyl._postgres */
#include "py.h"

pg_state *
pg_state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &vnl_pg_module);
    return module != NULL ? PyModule_GetState(module) : NULL;
}

PyObject *
pg_module_of(PyTypeObject *type)
{
    return PyType_GetModuleByDef(type, &vnl_pg_module);
}

static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type);
    }
    return (PyTypeObject *)type;
}

static int
module_exec(PyObject *module)
{
    pg_state *state = PyModule_GetState(module);
    PyObject *core = PyImport_ImportModule("vinyl._core");
    if (core == NULL) {
        return -1;
    }
    Py_DECREF(core);
    const vnl_core_api *api = PyCapsule_Import(VNL_CORE_CAPSULE, 0);
    if (api == NULL) {
        return -1;
    }
    if (api->abi != VNL_CORE_ABI) {
        PyErr_Format(PyExc_ImportError, "vinyl._postgres was built for core ABI %d, vinyl._core has %d",
                     VNL_CORE_ABI, api->abi);
        return -1;
    }
    vnl_pg_core = api;
    if ((state->templates = PyDict_New()) == NULL || (state->raw = PyDict_New()) == NULL ||
        (state->config_type = add_type(module, &pg_config_spec)) == NULL ||
        (state->link_type = add_type(module, &pg_link_spec)) == NULL ||
        (state->cursor_type = add_type(module, &pg_cursor_spec)) == NULL ||
        (state->info_type = add_type(module, &pg_info_spec)) == NULL ||
        (state->copy_type = add_type(module, &pg_copy_spec)) == NULL) {
        return -1;
    }
    api->rows_register((PyObject *)state->cursor_type, &pg_cursor_source);
    PyObject *capsule = PyCapsule_New((void *)&pg_driver, VNL_DRIVER_CAPSULE, NULL);
    if (capsule == NULL || PyModule_AddObjectRef(module, "driver", capsule) < 0) {
        Py_XDECREF(capsule);
        return -1;
    }
    Py_DECREF(capsule);
    if (PyModule_AddIntConstant(module, "libpq_version", PQlibVersion()) < 0) {
        return -1;
    }
    return vnl_row_init(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    pg_state *state = PyModule_GetState(module);
    if (state != NULL) {
        Py_VISIT(state->config_type);
        Py_VISIT(state->link_type);
        Py_VISIT(state->cursor_type);
        Py_VISIT(state->info_type);
        Py_VISIT(state->copy_type);
        Py_VISIT(state->templates);
        Py_VISIT(state->raw);
        Py_VISIT(state->psycopg);
        Py_VISIT(state->errors);
        Py_VISIT(state->column);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    pg_state *state = PyModule_GetState(module);
    if (state != NULL) {
        Py_CLEAR(state->config_type);
        Py_CLEAR(state->link_type);
        Py_CLEAR(state->cursor_type);
        Py_CLEAR(state->info_type);
        Py_CLEAR(state->copy_type);
        Py_CLEAR(state->templates);
        Py_CLEAR(state->raw);
        Py_CLEAR(state->psycopg);
        Py_CLEAR(state->errors);
        Py_CLEAR(state->column);
    }
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static struct PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

struct PyModuleDef vnl_pg_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "vinyl._postgres",
    .m_doc = "The PostgreSQL engine.",
    .m_size = sizeof(pg_state),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__postgres(void)
{
    return PyModuleDef_Init(&vnl_pg_module);
}
