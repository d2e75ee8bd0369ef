/* vinyl._sqlite3: the SQLite engine. */
#include "py_sqlite.h"

static struct PyModuleDef moduledef;

static vnl_sqlite_state *
state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

vnl_sqlite_state *
vnl_sqlite_state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &moduledef);

    return module == NULL ? NULL : state_of(module);
}

vnl_sqlite_state *
vnl_sqlite_state_find(void)
{
    PyObject *module = PyImport_ImportModule("vinyl._sqlite3");
    vnl_sqlite_state *state = module == NULL ? NULL : state_of(module);

    Py_XDECREF(module); /* sys.modules keeps it */
    return state;
}

/* --- what the driver asks of Python */

static void *
host_unlock(void)
{
    return PyEval_SaveThread();
}

static void
host_lock(void *token)
{
    PyEval_RestoreThread(token);
}

static int
host_error_pending(void)
{
    return PyErr_Occurred() != NULL;
}

/* --- functions */

static PyObject *
use_django_converters(PyObject *module, PyObject *converters)
{
    if (!PyDict_Check(converters)) {
        PyErr_SetString(PyExc_TypeError, "use_django_converters() takes a dict");
        return NULL;
    }
    Py_XSETREF(state_of(module)->django_converters, PyDict_Copy(converters));
    Py_RETURN_NONE;
}

static PyObject *
install_vfs(PyObject *module, PyObject *Py_UNUSED(args))
{
    const char *name = vnl_sqlite_vfs();

    return name == NULL ? Py_NewRef(Py_None) : PyUnicode_FromString(name);
}

static PyObject *
install_memory_vfs(PyObject *module, PyObject *Py_UNUSED(args))
{
    const char *name = vnl_sqlite_memory_vfs();

    return PyUnicode_FromString(name == NULL ? "memdb" : name);
}

static PyMethodDef functions[] = {
    {"adapter", vnl_sqlite_adapter, METH_VARARGS,
     "adapter(kind, function, settings, /)\n\n"
     "A DatabaseOperations' method that adapts a field's value as Django's function does, in C for values\n"
     "of the usual class; kind is 'date', 'time' or 'datetime'.  settings: vars(django.conf.settings)."},
    {"uuid_hex", vnl_sqlite_uuid_hex, METH_O, "uuid_hex(uuid, /) -> str\n\nIts `hex`."},
    {"converter", vnl_sqlite_converter, METH_VARARGS,
     "converter(kind, function, zone=None, places=0, digits=0, /)\n\n"
     "Django's converter function of a column, in C for the values that Django writes; kind is\n"
     "'bool', 'date' (and time), 'datetime' (zone: what naive ones are in), 'uuid' or 'decimal'."},
    {"install_memory_vfs", install_memory_vfs, METH_NOARGS,
     "install_memory_vfs() -> str\n\n"
     "The name of the VFS of databases that live in memory and are shared by name."},
    {"install_vfs", install_vfs, METH_NOARGS,
     "install_vfs() -> str | None\n\n"
     "The name of the VFS whose fsync leaves the loop free, known to this copy of SQLite from now on."},
    {"use_django_converters", use_django_converters, METH_O,
     "use_django_converters(converters: dict[str, Callable], /) -> None\n\n"
     "The converters that Django registers, by sqlite3's upper-case name: as long as they are\n"
     "the registered ones, C decodes those types itself."},
    {NULL},
};

/* --- the module */

static int
import_names(vnl_sqlite_state *state)
{
    PyObject *sqlite3 = PyImport_ImportModule("sqlite3");

    if (sqlite3 == NULL) {
        return -1;
    }
    state->adapt = PyObject_GetAttrString(sqlite3, "adapt");
    state->adapters = PyObject_GetAttrString(sqlite3, "adapters");
    state->converters = PyObject_GetAttrString(sqlite3, "converters");
    state->prepare_protocol = PyObject_GetAttrString(sqlite3, "PrepareProtocol");
    Py_DECREF(sqlite3);
    if (state->adapt == NULL || state->adapters == NULL || state->converters == NULL ||
        state->prepare_protocol == NULL) {
        return -1;
    }
    state->django_converters = PyDict_New();
    return state->django_converters == NULL ? -1 : 0;
}

/* What sqlite3.adapters has an adapter under. */
static int
make_keys(vnl_sqlite_state *state)
{
    state->bool_key = PyTuple_Pack(2, (PyObject *)&PyBool_Type, state->prepare_protocol);
    state->bytes_key = PyTuple_Pack(2, (PyObject *)&PyBytes_Type, state->prepare_protocol);
    state->decimal_key = PyTuple_Pack(2, state->decimal, state->prepare_protocol);
    return state->bool_key == NULL || state->bytes_key == NULL || state->decimal_key == NULL ? -1 : 0;
}

static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);

    if (type != NULL && PyModule_AddType(module, type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}

static int
add_methods(PyTypeObject *type, PyMethodDef *methods)
{
    for (; methods->ml_name != NULL; methods++) {
        PyObject *descr = PyDescr_NewMethod(type, methods);
        int rc = descr == NULL ? -1 : PyObject_SetAttrString((PyObject *)type, methods->ml_name, descr);
        Py_XDECREF(descr);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

static int
module_exec(PyObject *module)
{
    vnl_sqlite_state *state = state_of(module);
    PyObject *driver = NULL, *core = NULL;
    int rc;

    /* PyCapsule_Import itself imports the package only. */
    if ((core = PyImport_ImportModule("vinyl._core")) == NULL) {
        return -1;
    }
    Py_DECREF(core);
    if ((state->core = PyCapsule_Import(VNL_CORE_CAPSULE, 0)) == NULL) {
        return -1;
    }
    if (state->core->abi != VNL_CORE_ABI) {
        PyErr_SetString(PyExc_ImportError, "vinyl._sqlite3 was built for another version of vinyl._core");
        return -1;
    }
    vnl_sqlite_host_calls = (vnl_sqlite_host){
        .core = state->core,
        .unlock = host_unlock,
        .lock = host_lock,
        .error_pending = host_error_pending,
        .forget = vnl_sqlite_columns_free,
    };
    if (vnl_sqlite_errors_init(state) < 0 || import_names(state) < 0 || vnl_sqlite_temporal_init() < 0 ||
        vnl_sqlite_convert_init(state) < 0 || vnl_sqlite_adapt_init(state) < 0 || make_keys(state) < 0 ||
        (state->connection_type = add_type(module, &vnl_connection_spec)) == NULL ||
        add_methods(state->connection_type, vnl_connection_more) < 0 ||
        (state->cursor_type = add_type(module, &vnl_cursor_spec)) == NULL ||
        (state->batch_type = add_type(module, &vnl_batch_spec)) == NULL ||
        PyModule_AddIntConstant(module, "BATCH_COLUMNS", VNL_BATCH_COLUMNS) < 0 ||
        PyModule_AddStringConstant(module, "sqlite_version", sqlite3_libversion()) < 0) {
        return -1;
    }
    state->core->rows_register((PyObject *)state->cursor_type, &vnl_cursor_source);
    driver = PyCapsule_New((void *)&vnl_sqlite_driver, VNL_DRIVER_CAPSULE, NULL);
    rc = PyModule_AddObjectRef(module, "driver", driver);
    Py_XDECREF(driver);
    return rc;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    vnl_sqlite_state *state = state_of(module);

    Py_VISIT(state->connection_type);
    Py_VISIT(state->cursor_type);
    Py_VISIT(state->batch_type);
    for (size_t i = 0; i < sizeof(state->errors) / sizeof(state->errors[0]); i++) {
        Py_VISIT(state->errors[i]);
    }
    Py_VISIT(state->adapt);
    Py_VISIT(state->adapters);
    Py_VISIT(state->converters);
    Py_VISIT(state->prepare_protocol);
    Py_VISIT(state->bool_key);
    Py_VISIT(state->bytes_key);
    Py_VISIT(state->decimal_key);
    Py_VISIT(state->django_converters);
    Py_VISIT(state->decimal);
    Py_VISIT(state->str_use_tz);
    Py_VISIT(state->str_connection);
    Py_VISIT(state->str_timezone);
    Py_VISIT(state->str_hex);
    return vnl_uuids_traverse(&state->uuids, visit, arg);
}

static int
module_clear(PyObject *module)
{
    vnl_sqlite_state *state = state_of(module);

    Py_CLEAR(state->connection_type);
    Py_CLEAR(state->cursor_type);
    Py_CLEAR(state->batch_type);
    for (size_t i = 0; i < sizeof(state->errors) / sizeof(state->errors[0]); i++) {
        Py_CLEAR(state->errors[i]);
    }
    Py_CLEAR(state->adapt);
    Py_CLEAR(state->adapters);
    Py_CLEAR(state->converters);
    Py_CLEAR(state->prepare_protocol);
    Py_CLEAR(state->bool_key);
    Py_CLEAR(state->bytes_key);
    Py_CLEAR(state->decimal_key);
    Py_CLEAR(state->django_converters);
    Py_CLEAR(state->decimal);
    Py_CLEAR(state->str_use_tz);
    Py_CLEAR(state->str_connection);
    Py_CLEAR(state->str_timezone);
    Py_CLEAR(state->str_hex);
    struct vnl_sqlite_decimals *decimals = state->decimals;
    state->decimals = NULL;
    vnl_sqlite_decimals_free(decimals);
    vnl_uuids_clear(&state->uuids);
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static struct PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef moduledef = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "vinyl._sqlite3",
    .m_doc = "The SQLite engine.",
    .m_size = sizeof(vnl_sqlite_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__sqlite3(void)
{
    return PyModuleDef_Init(&moduledef);
}
