/* Rows into model instances and through converters, as Django does it but
 * without Django's Python per row. */
#ifndef VNL_MODEL_HYDRATE_H
#define VNL_MODEL_HYDRATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int vnl_attribute_setup(PyObject *module);
int vnl_hydrator_setup(PyObject *module);
int vnl_converter_setup(PyObject *module);
int vnl_columns_setup(PyObject *module);
int vnl_initial_setup(PyObject *module);
int vnl_known_setup(PyObject *module);
int vnl_parameters_setup(PyObject *module);
int vnl_row_plan_setup(PyObject *module);
int vnl_value_rows_setup(PyObject *module);

/* --- columns.c: values that need no preparing, as vinyl/inserting.py knows them */
typedef struct {
    PyObject *types; /* tuple of classes that need no preparing */
    PyObject *test;  /* callable, or NULL: a value is plain unless it gives None or False */
    PyObject *wrap;  /* callable, or NULL: what makes the parameter of a value */
} vnl_value_rule;

/* 1, 0, or -1 with an exception. */
int vnl_value_is_plain(const vnl_value_rule *rule, PyObject *value);
/* New reference. */
PyObject *vnl_value_wrapped(const vnl_value_rule *rule, PyObject *value);

/* --- hydrator.c */
int vnl_hydrator_check(PyObject *object);

/* What makes the instances of one query. */
typedef struct vnl_maker vnl_maker;

/* `names`: a tuple of the model's attnames, in its order.  `fetch_mode` may be NULL.
 * `caches`: something will be put into the instances' caches.  New, or NULL
 * with an exception. */
vnl_maker *vnl_maker_new(PyObject *hydrator, PyObject *names, PyObject *db, PyObject *fetch_mode, int caches);
/* What fills instances that no row was read for: of all columns, with a state that
 * has nothing but a cache, where `caches`.  New, or NULL with an exception. */
vnl_maker *vnl_maker_of_new(PyObject *hydrator, int caches);
/* Takes NULL. */
void vnl_maker_free(vnl_maker *maker);
int vnl_maker_traverse(const vnl_maker *maker, visitproc visit, void *arg);
/* An instance whose attributes `names` are items[0] and so on.  New reference. */
PyObject *vnl_maker_make(const vnl_maker *maker, PyObject *const *items);
/* Whether vnl_maker_fill can do it: the instance has no attribute yet. */
int vnl_maker_fits(const vnl_maker *maker, PyObject *object);
/* 1, 0 it does not fit, -1 exception. */
int vnl_maker_fill(const vnl_maker *maker, PyObject *object, PyObject *const *items);

/* --- known.c: what the objects of a prefetch belong to */
int vnl_known_check(PyObject *object);
/* The instance of the key.  New reference; NULL without an exception where there is
 * none, which the relation keeps in mind. */
PyObject *vnl_known_find(PyObject *relation, PyObject *key);
/* Puts it into the object's cache, unless something is there.  0, or -1 with an exception. */
int vnl_known_put(PyObject *relation, PyObject *object, PyObject *instance);

/* --- converter.c: what the columns of a row go through */
typedef struct vnl_converters vnl_converters;

/* converters: {column: (functions, expression)}.  New, or NULL with an exception. */
vnl_converters *vnl_converters_new(PyObject *converters, PyObject *connection);
/* Takes NULL. */
void vnl_converters_free(vnl_converters *converters);
int vnl_converters_traverse(const vnl_converters *converters, visitproc visit, void *arg);
/* Converts in place: `cells` are `count` owned references.  0, or -1 with an exception. */
int vnl_converters_apply(const vnl_converters *converters, PyObject **cells, Py_ssize_t count);

#endif
