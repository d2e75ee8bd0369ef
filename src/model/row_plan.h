/* RowPlan: what a queryset makes of each row, that is an instance with the
 * related ones of select_related(), annotations and known related objects, in
 * the order in which Django's ModelIterable does it.  vinyl/rows.py makes it. */
#ifndef VNL_MODEL_ROW_PLAN_H
#define VNL_MODEL_ROW_PLAN_H

#include "model/garbage.h"
#include "model/hydrate.h"
#include "model/rows.h"

/* One model of the query. */
typedef struct vnl_row_node {
    vnl_maker *maker;    /* NULL: by from_db */
    PyObject *from_db;   /* or NULL */
    PyObject *names;     /* of its columns: a list for from_db, or NULL */
    Py_ssize_t *columns; /* where they are in the row */
    Py_ssize_t count;    /* of names and columns */
    int in_order;        /* they follow one another */
    Py_ssize_t pk;       /* no object where this column is None; -1: always one */
    PyObject *to_parent; /* name in the parent's cache, a setter(parent, object), or NULL */
    PyObject *to_child;  /* name in the object's cache, a setter(object, parent), or NULL */
    PyObject *peers;     /* list of weak references to all objects, or NULL */
    struct vnl_row_node *children;
    Py_ssize_t nchildren;
} vnl_row_node;

/* Objects that the queryset knows the rows are related to. */
typedef struct {
    PyObject *name; /* of the relation */
    PyObject *cache_name;
    PyObject *objects;   /* dict: key -> object */
    Py_ssize_t *columns; /* of the key */
    Py_ssize_t count;
} vnl_row_known;

typedef struct {
    PyObject *name;
    Py_ssize_t column;
} vnl_row_annotation;

typedef struct {
    PyObject_HEAD
    vnl_row_node root;
    PyObject *db;
    PyObject *fetch_mode;       /* or NULL */
    vnl_converters *converters; /* or NULL */
    vnl_row_annotation *annotations;
    Py_ssize_t nannotations;
    vnl_row_known *knowns;
    Py_ssize_t nknowns;
    PyObject *relation;         /* KnownRelation of the prefetch that the rows are for, or NULL */
    Py_ssize_t relation_column; /* of the key */
    int quiet;                  /* no Python runs while the nodes make theirs */
} vnl_row_plan;

/* --- row_read.c: from and to Python */
/* RowPlan's arguments into a zeroed plan.  0, or -1 with an exception. */
int vnl_row_plan_read(vnl_row_plan *plan, PyObject *args);
int vnl_row_plan_traverse(const vnl_row_plan *plan, visitproc visit, void *arg);
void vnl_row_plan_clear(vnl_row_plan *plan);

/* --- row_make.c */
/* What the plan makes of the row.  New reference. */
PyObject *vnl_row_plan_make(const vnl_row_plan *plan, vnl_rows *row, vnl_garbage_loop *loop);

#endif
