/* Where CPython keeps the attributes of a class's instances.  An instance whose
 * attributes are all known when it is made needs no __dict__ for it: the values
 * go where a setattr would have put them, and CPython makes the __dict__ when it
 * is first asked for. */
#ifndef VNL_MODEL_LAYOUT_H
#define VNL_MODEL_LAYOUT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Of `names`, attributes that no code of the class's runs for. */
typedef struct vnl_layout vnl_layout;

/* New, for instances that get at most `names` in this order; NULL with an
 * exception.  Where CPython's way is not known, or an instance made that way is
 * not one made by its __dict__, vnl_layout_make uses the __dict__.  `may_try`:
 * instances may be made to find that out, and dropped. */
vnl_layout *vnl_layout_new(PyTypeObject *type, PyObject *names, int may_try);
/* Takes NULL. */
void vnl_layout_free(vnl_layout *layout);
/* The layout of some of the names, in the same order.  New; takes NULL and gives it. */
vnl_layout *vnl_layout_part(const vnl_layout *whole, PyObject *names);
/* 1 when the values go there without a __dict__. */
int vnl_layout_is_direct(const vnl_layout *layout);
int vnl_layout_traverse(const vnl_layout *layout, visitproc visit, void *arg);
/* An instance with first[0] … first[nfirst - 1], then rest[0] … for the names in
 * turn.  New reference. */
PyObject *vnl_layout_make(const vnl_layout *layout, PyObject *const *first, Py_ssize_t nfirst,
                          PyObject *const *rest, Py_ssize_t nrest);

/* Whether vnl_layout_fill can do it: the places are known, and the instance, of that
 * very class, has no attribute yet. */
int vnl_layout_fits(const vnl_layout *layout, PyObject *instance);
/* The same values into an instance that is there.  1, or 0 where it does not fit. */
int vnl_layout_fill(const vnl_layout *layout, PyObject *instance, PyObject *const *first, Py_ssize_t nfirst,
                    PyObject *const *rest, Py_ssize_t nrest);

/* The attribute `name` where the instance has it in one of its class's places: new
 * reference.  NULL without an exception: it has to be asked for. */
PyObject *vnl_layout_peek(PyObject *instance, PyObject *name);

#endif
