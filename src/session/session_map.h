/* SessionMap: takes the place of django.db.connections._connections.  A vinyl
 * alias is looked up in the current task's scope, all others where Django
 * keeps them. */
#ifndef VNL_SESSION_SESSION_MAP_H
#define VNL_SESSION_SESSION_MAP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int vnl_session_map_setup(PyObject *module);

#endif
