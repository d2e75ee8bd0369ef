/* Values that both engines make: text and UUIDs. */
#ifndef VNL_BASE_VALUES_H
#define VNL_BASE_VALUES_H

#include "base/compat.h"

#include <string.h>

static inline int
vnl_is_ascii(const char *data, Py_ssize_t len)
{
    uint64_t high = 0, last = 0;
    Py_ssize_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, sizeof(word));
        high |= word;
    }
    memcpy(&last, data + i, (size_t)(len - i));
    return ((high | last) & UINT64_C(0x8080808080808080)) == 0;
}

/* str of UTF-8: new reference, or NULL with UnicodeDecodeError. */
static inline PyObject *
vnl_text_new(const char *data, Py_ssize_t len)
{
    if (len < 2 || !vnl_is_ascii(data, len)) { /* CPython has the short ones already */
        return PyUnicode_DecodeUTF8(data, len, NULL);
    }
    PyObject *text = PyUnicode_New(len, 127);
    if (text != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(text), data, (size_t)len);
    }
    return text;
}

/* What UUIDs are made of, without uuid.UUID's slow __init__. */
typedef struct {
    PyTypeObject *type;          /* owned: uuid.UUID */
    PyObject *unknown;           /* owned: SafeUUID.unknown */
    PyObject *str_int, *is_safe; /* owned: names of its slots */
    Py_ssize_t int_at, safe_at;  /* where an instance has them; 0: not known */
} vnl_uuids;

/* Where instances of `type` have the slot `name`; 0 where it is no plain slot. */
static inline Py_ssize_t
vnl_slot_at(PyTypeObject *type, PyObject *name)
{
    PyObject *member = PyObject_GetAttr((PyObject *)type, name);
    Py_ssize_t at = 0;
    if (member == NULL) {
        PyErr_Clear();
    }
    else if (Py_IS_TYPE(member, &PyMemberDescr_Type)) {
        const PyMemberDef *def = ((PyMemberDescrObject *)member)->d_member;
        at = def->type == Py_T_OBJECT_EX && (def->flags & Py_READONLY) == 0 ? def->offset : 0;
    }
    Py_XDECREF(member);
    return at;
}

/* Fills in a zeroed struct.  0, or -1 with an exception. */
static inline int
vnl_uuids_init(vnl_uuids *self)
{
    PyObject *module = PyImport_ImportModule("uuid");
    PyObject *safe = module != NULL ? PyObject_GetAttrString(module, "SafeUUID") : NULL;
    PyObject *type = safe != NULL ? PyObject_GetAttrString(module, "UUID") : NULL;
    self->unknown = type != NULL ? PyObject_GetAttrString(safe, "unknown") : NULL;
    Py_XDECREF(safe);
    Py_XDECREF(module);
    if (self->unknown == NULL || !PyType_Check(type)) {
        Py_XDECREF(type);
        return -1;
    }
    self->type = (PyTypeObject *)type;
    self->str_int = PyUnicode_InternFromString("int");
    self->is_safe = PyUnicode_InternFromString("is_safe");
    if (self->str_int == NULL || self->is_safe == NULL) {
        return -1;
    }
    self->int_at = vnl_slot_at(self->type, self->str_int);
    self->safe_at = vnl_slot_at(self->type, self->is_safe);
    return 0;
}

static inline int
vnl_uuids_traverse(const vnl_uuids *self, visitproc visit, void *arg)
{
    Py_VISIT(self->type);
    Py_VISIT(self->unknown);
    return 0;
}

static inline void
vnl_uuids_clear(vnl_uuids *self)
{
    Py_CLEAR(self->type);
    Py_CLEAR(self->unknown);
    Py_CLEAR(self->str_int);
    Py_CLEAR(self->is_safe);
}

/* The number of 16 bytes, the highest first: new reference. */
static inline PyObject *
vnl_uuid_number(const unsigned char *bytes)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_FromUnsignedNativeBytes(bytes, 16, Py_ASNATIVEBYTES_BIG_ENDIAN);
#else
    return _PyLong_FromByteArray(bytes, 16, 0, 0);
#endif
}

/* The 16 bytes of what is exactly a uuid.UUID: 1; 0 where it is not that, or its
 * number is not the usual one. */
static inline int
vnl_uuid_bytes(const vnl_uuids *self, PyObject *uuid, unsigned char *bytes)
{
    PyObject *number = NULL;
    int rc = -1;
    if (!Py_IS_TYPE(uuid, self->type)) {
        return 0;
    }
    number = self->int_at > 0 ? Py_XNewRef(*(PyObject **)((char *)uuid + self->int_at))
                              : PyObject_GetAttr(uuid, self->str_int);
    if (number != NULL && PyLong_CheckExact(number)) {
#if PY_VERSION_HEX >= 0x030D0000
        rc = _PyLong_AsByteArray((PyLongObject *)number, bytes, 16, 0, 0, 0);
#else
        rc = _PyLong_AsByteArray((PyLongObject *)number, bytes, 16, 0, 0);
#endif
    }
    Py_XDECREF(number);
    PyErr_Clear(); /* whoever asks it as Python does meets its error */
    return rc == 0;
}

/* New reference to the UUID of 16 bytes. */
static inline PyObject *
vnl_uuid_new(const vnl_uuids *self, const unsigned char *bytes)
{
    PyObject *number = vnl_uuid_number(bytes);
    PyObject *uuid = number != NULL ? self->type->tp_alloc(self->type, 0) : NULL;
    if (uuid != NULL && self->int_at > 0 && self->safe_at > 0) {
        *(PyObject **)((char *)uuid + self->int_at) = Py_NewRef(number);
        *(PyObject **)((char *)uuid + self->safe_at) = Py_NewRef(self->unknown);
    }
    /* UUID.__setattr__ refuses; its slots are set as its __init__ does. */
    else if (uuid != NULL && (PyObject_GenericSetAttr(uuid, self->str_int, number) < 0 ||
                              PyObject_GenericSetAttr(uuid, self->is_safe, self->unknown) < 0)) {
        Py_CLEAR(uuid);
    }
    Py_XDECREF(number);
    if (uuid != NULL && PyType_IS_GC(self->type)) {
        PyObject_GC_UnTrack(uuid); /* an int and an enum's member: no cycle comes back to it */
    }
    return uuid;
}

#endif
