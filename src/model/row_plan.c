/* The Python type RowPlan, and the loop over the rows of a query. */
#include "model/row_plan.h"

static PyObject *
row_plan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    vnl_row_plan *self = (vnl_row_plan *)type->tp_alloc(type, 0);
    if (self != NULL && vnl_row_plan_read(self, args) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *
row_plan_make(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 2) {
        return PyErr_Format(PyExc_TypeError, "make() takes 1 or 2 arguments (%zd given)", nargs);
    }
    Py_ssize_t most = nargs > 1 ? PyLong_AsSsize_t(args[1]) : -1;
    if (most == -1 && PyErr_Occurred()) {
        return NULL;
    }
    vnl_rows row;
    vnl_garbage_loop loop = {0};
    int rc = vnl_rows_open(&row, args[0], most);
    PyObject *made = rc == 0 ? PyList_New(0) : NULL;
    while (made != NULL && (rc = vnl_rows_next_wait(&row)) > 0) {
        PyObject *object = vnl_row_plan_make((vnl_row_plan *)op, &row, &loop);
        if (object == NULL || PyList_Append(made, object) < 0) {
            Py_CLEAR(made);
        }
        Py_XDECREF(object);
    }
    if (rc < 0) {
        Py_CLEAR(made);
    }
    vnl_garbage_end(&loop);
    vnl_rows_close(&row);
    return made;
}

static int
row_plan_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return vnl_row_plan_traverse((vnl_row_plan *)op, visit, arg);
}

static int
row_plan_clear(PyObject *op)
{
    vnl_row_plan_clear((vnl_row_plan *)op);
    return 0;
}

static void
row_plan_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    vnl_row_plan_clear((vnl_row_plan *)op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef row_plan_methods[] = {
    {"make", _PyCFunction_CAST(row_plan_make), METH_FASTCALL,
     "make(rows, most=-1, /) -> list\n\nThe instances of the rows, or of the next ones, as many as most."},
    {NULL},
};

static PyType_Slot row_plan_slots[] = {
    {Py_tp_doc,
     "RowPlan(root, db, fetch_mode, converters, connection, annotations, known, /)\n--\n\n"
     "What a queryset makes of each row. A node (root) is (Hydrator or from_db, attnames, columns,\n"
     "column of the key or -1, setter of the parent, setter of the object, nodes, peers or None); a\n"
     "setter is a name in the instance's cache, a callable, or None. annotations: (name, column).\n"
     "known: (relation, name in the cache, {key: object}, columns of the key), or (KnownRelation,\n"
     "column of the key)."},
    {Py_tp_new, row_plan_new},
    {Py_tp_methods, row_plan_methods},
    {Py_tp_traverse, row_plan_traverse},
    {Py_tp_clear, row_plan_clear},
    {Py_tp_dealloc, row_plan_dealloc},
    {0, NULL},
};

static PyType_Spec row_plan_spec = {
    .name = "vinyl._core.RowPlan",
    .basicsize = sizeof(vnl_row_plan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = row_plan_slots,
};

int
vnl_row_plan_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &row_plan_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
