#include "session/session_map.h"

#include "core/state.h"
#include "fiber/fiber.h"
#include "session/pin.h"
#include "session/scope.h"

typedef struct {
    PyObject_HEAD
    PyObject *base;    /* owned: Django's own store, by thread */
    PyObject *aliases; /* owned dict: alias -> alias of the session that serves it */
    PyObject *opened;  /* owned callable(scope, alias, session), or None */
} vnl_session_map;

static int
session_map_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"base", "aliases", "opened", NULL};
    vnl_session_map *self = (vnl_session_map *)op;
    PyObject *base = NULL, *aliases = NULL, *opened = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!|O:SessionMap", names, &base, &PyDict_Type, &aliases,
                                     &opened)) {
        return -1;
    }
    Py_XSETREF(self->base, Py_NewRef(base));
    Py_XSETREF(self->aliases, Py_NewRef(aliases));
    Py_XSETREF(self->opened, Py_NewRef(opened));
    return 0;
}

/* The dict of sessions that holds `alias` here, with *served set to the name
 * it has there (borrowed), *scope to the scope (new reference) or NULL.  New
 * reference; NULL without an exception when Django's own store is to be asked. */
static PyObject *
sessions_for(vnl_session_map *self, PyObject *alias, PyObject **served, PyObject **scope)
{
    *scope = NULL;
    *served = PyDict_GetItemWithError(self->aliases, alias);
    if (*served == NULL) {
        *served = PyErr_Occurred() ? NULL : alias;
        return NULL;
    }
    *scope = vnl_scope_current();
    if (*scope != NULL) {
        return Py_NewRef(((vnl_scope *)*scope)->sessions);
    }
    if (PyErr_Occurred()) {
        *served = NULL;
        return NULL;
    }
    if (vnl_core->pin != NULL) { /* plain code in a test: the same transaction */
        return Py_NewRef(((vnl_pin *)vnl_core->pin)->sessions);
    }
    if (vnl_here.place == VNL_PLAIN) {
        *served = alias; /* plain code: the plain alias keeps Django's backend */
    }
    return NULL;
}

static PyObject *
session_map_getattro(PyObject *op, PyObject *name)
{
    vnl_session_map *self = (vnl_session_map *)op;
    PyObject *served = NULL, *scope = NULL;
    if (self->base == NULL) {
        return PyObject_GenericGetAttr(op, name);
    }
    PyObject *sessions = sessions_for(self, name, &served, &scope);
    Py_XDECREF(scope);
    if (sessions == NULL) {
        if (served == NULL) {
            return NULL;
        }
        if (PyUnicode_CompareWithASCIIString(name, "__class__") == 0 ||
            PyUnicode_CompareWithASCIIString(name, "base") == 0) {
            return PyObject_GenericGetAttr(op, name);
        }
        return PyObject_GetAttr(self->base, served);
    }
    PyObject *session = PyDict_GetItemWithError(sessions, served);
    Py_XINCREF(session);
    Py_DECREF(sessions);
    if (session == NULL && !PyErr_Occurred()) {
        PyErr_SetObject(PyExc_AttributeError, name);
    }
    return session;
}

static int
set_session(vnl_session_map *self, PyObject *sessions, PyObject *scope, PyObject *served, PyObject *value)
{
    if (value == NULL) {
        int missing = PyDict_DelItem(sessions, served);
        if (missing && PyErr_ExceptionMatches(PyExc_KeyError)) {
            PyErr_SetObject(PyExc_AttributeError, served);
        }
        return missing;
    }
    if (PyDict_SetItem(sessions, served, value) < 0) {
        return -1;
    }
    if (scope == NULL || self->opened == Py_None) {
        return 0;
    }
    PyObject *done = PyObject_CallFunctionObjArgs(self->opened, scope, served, value, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int
session_map_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    vnl_session_map *self = (vnl_session_map *)op;
    PyObject *served = NULL, *scope = NULL;
    if (self->base == NULL) {
        PyErr_SetString(PyExc_AttributeError, "SessionMap is not initialised");
        return -1;
    }
    PyObject *sessions = sessions_for(self, name, &served, &scope);
    if (sessions == NULL) {
        Py_XDECREF(scope);
        return served == NULL ? -1 : PyObject_SetAttr(self->base, served, value);
    }
    int failed = set_session(self, sessions, scope, served, value);
    Py_DECREF(sessions);
    Py_XDECREF(scope);
    return failed;
}

static int
session_map_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_session_map *self = (vnl_session_map *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->base);
    Py_VISIT(self->aliases);
    Py_VISIT(self->opened);
    return 0;
}

static int
session_map_clear(PyObject *op)
{
    vnl_session_map *self = (vnl_session_map *)op;
    Py_CLEAR(self->base);
    Py_CLEAR(self->aliases);
    Py_CLEAR(self->opened);
    return 0;
}

static void
session_map_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)session_map_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef session_map_members[] = {
    {"base", Py_T_OBJECT_EX, offsetof(vnl_session_map, base), Py_READONLY, "Django's own store."},
    {NULL},
};

static PyType_Slot session_map_slots[] = {
    {Py_tp_doc,
     "SessionMap(base, aliases, opened=None)\n--\n\n"
     "Attribute access by alias, as django.db.connections wants it. aliases maps each alias that\n"
     "a task's scope serves to the alias of the session there; opened(scope, alias, session) is\n"
     "called when a session is put into a scope. Everything else goes to base."},
    {Py_tp_init, session_map_init},
    {Py_tp_traverse, session_map_traverse},
    {Py_tp_clear, session_map_clear},
    {Py_tp_dealloc, session_map_dealloc},
    {Py_tp_getattro, session_map_getattro},
    {Py_tp_setattro, session_map_setattro},
    {Py_tp_members, session_map_members},
    {0, NULL},
};

static PyType_Spec session_map_spec = {
    .name = "vinyl._core.SessionMap",
    .basicsize = sizeof(vnl_session_map),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = session_map_slots,
};

int
vnl_session_map_setup(PyObject *module)
{
    vnl_core->session_map_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &session_map_spec, NULL);
    return vnl_core->session_map_type == NULL ? -1 : PyModule_AddType(module, vnl_core->session_map_type);
}
