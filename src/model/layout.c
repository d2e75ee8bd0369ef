/* The attributes of an instance, put where CPython's own setattr puts them.
 *
 * CPython 3.11 to 3.13 keep them in an array beside the instance, in the places
 * that the class has given their names, with the order in which they were set.
 * Its own headers say how, so this file follows the Python that it is compiled
 * for; a class's places are learned from an instance that was filled by its
 * __dict__, and a first one made from them is compared with that. */
#define Py_BUILD_CORE_MODULE 1
#include "model/layout.h"

#include <string.h>

#if PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION)
#if __has_include(<internal/pycore_dict.h>)
#define HAS_PLACES 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wcast-qual"
#include <internal/pycore_dict.h>
#include <internal/pycore_object.h>
#pragma GCC diagnostic pop
#endif
#endif

enum {
    MOST = 30 /* names that a class gives places to */
};

struct vnl_layout {
    PyTypeObject *type; /* owned */
    PyObject *names;    /* owned tuple */
    PyObject *empty;    /* owned: () */
    void *keys;         /* of the class, when its places were learned; NULL: not known */
    int last;           /* the highest place */
    uint8_t places[MOST];
};

#ifdef HAS_PLACES

/* The values of an instance that has no __dict__ and no attribute yet, or NULL. */
static inline PyDictValues *
fresh_values(PyObject *instance, int last)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyDictValues *values = _PyObject_InlineValues(instance);
    return values->valid && values->size == 0 && values->capacity > last ? values : NULL;
#else
#if PY_VERSION_HEX >= 0x030C0000
    PyDictOrValues found = *_PyObject_DictOrValuesPointer(instance);
    PyDictValues *values = _PyDictOrValues_IsValues(found) ? _PyDictOrValues_GetValues(found) : NULL;
#else
    PyDictValues *values = *_PyObject_ValuesPointer(instance);
#endif
    if (values == NULL || ((uint8_t *)values)[-2] != 0 || ((uint8_t *)values)[-1] < last + 3) {
        return NULL;
    }
    return values;
#endif
}

static inline void
put(PyDictValues *values, int place, PyObject *value)
{
    values->values[place] = Py_NewRef(value);
    _PyDictValues_AddToInsertionOrder(values, place);
}

static int
has_places(PyTypeObject *type)
{
#if PY_VERSION_HEX >= 0x030D0000
    if (!(type->tp_flags & Py_TPFLAGS_INLINE_VALUES) || type->tp_basicsize != sizeof(PyObject)) {
        return 0;
    }
#endif
    return (type->tp_flags & Py_TPFLAGS_HEAPTYPE) && (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) &&
           ((PyHeapTypeObject *)type)->ht_cached_keys != NULL;
}

/* Learns the places from the dict of an instance: 1, or 0 where they are not as expected. */
static int
learn(vnl_layout *self, PyObject *dict)
{
    const PyDictObject *filled = (PyDictObject *)dict;
    PyDictKeysObject *keys = ((PyHeapTypeObject *)self->type)->ht_cached_keys;
    Py_ssize_t count = PyTuple_GET_SIZE(self->names);
    if (filled->ma_values == NULL || filled->ma_keys != keys || filled->ma_used != count || count > MOST) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = PyDict_GetItemWithError(dict, PyTuple_GET_ITEM(self->names, i));
        Py_ssize_t place = 0;
        while (place < keys->dk_nentries && place < MOST && filled->ma_values->values[place] != value) {
            place++;
        }
        if (value == NULL || place == keys->dk_nentries || place == MOST) {
            return 0;
        }
        self->places[i] = (uint8_t)place;
        self->last = place > self->last ? (int)place : self->last;
    }
    self->keys = keys;
    return 1;
}

#endif

/* --- by the __dict__, which is always right */

static int
fill_dict(const vnl_layout *self, PyObject *dict, PyObject *const *first, Py_ssize_t nfirst,
          PyObject *const *rest, Py_ssize_t nrest)
{
    for (Py_ssize_t i = 0; i < nfirst + nrest; i++) {
        PyObject *value = i < nfirst ? first[i] : rest[i - nfirst];
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(self->names, i), value) < 0) {
            return -1;
        }
    }
    return 0;
}

int
vnl_layout_fits(const vnl_layout *self, PyObject *instance)
{
#ifdef HAS_PLACES
    return Py_TYPE(instance) == self->type && self->keys != NULL &&
           self->keys == ((PyHeapTypeObject *)self->type)->ht_cached_keys &&
           fresh_values(instance, self->last) != NULL;
#else
    return 0;
#endif
}

int
vnl_layout_fill(const vnl_layout *self, PyObject *instance, PyObject *const *first, Py_ssize_t nfirst,
                PyObject *const *rest, Py_ssize_t nrest)
{
    if (!vnl_layout_fits(self, instance)) {
        return 0;
    }
#ifdef HAS_PLACES
    PyDictValues *values = fresh_values(instance, self->last);
    for (Py_ssize_t i = 0; i < nfirst + nrest; i++) {
        put(values, self->places[i], i < nfirst ? first[i] : rest[i - nfirst]);
    }
#endif
    return 1;
}

PyObject *
vnl_layout_make(const vnl_layout *self, PyObject *const *first, Py_ssize_t nfirst, PyObject *const *rest,
                Py_ssize_t nrest)
{
    PyObject *instance = self->type->tp_new(self->type, self->empty, NULL);
    if (instance == NULL) {
        return NULL;
    }
#ifdef HAS_PLACES
    PyDictValues *values = NULL;
    if (self->keys != NULL && self->keys == ((PyHeapTypeObject *)self->type)->ht_cached_keys &&
        (values = fresh_values(instance, self->last)) != NULL) {
        for (Py_ssize_t i = 0; i < nfirst; i++) {
            put(values, self->places[i], first[i]);
        }
        for (Py_ssize_t i = 0; i < nrest; i++) {
            put(values, self->places[nfirst + i], rest[i]);
        }
        return instance;
    }
#endif
    PyObject *dict = PyObject_GenericGetDict(instance, NULL);
    if (dict == NULL || fill_dict(self, dict, first, nfirst, rest, nrest) < 0) {
        Py_CLEAR(instance);
    }
    Py_XDECREF(dict);
    return instance;
}

/* --- reading */

#ifdef HAS_PLACES

/* How many attributes are set, and the place of each, in the order in which they were. */
static inline int
set_count(const PyDictValues *values)
{
#if PY_VERSION_HEX >= 0x030D0000
    return values->size;
#else
    return ((const uint8_t *)values)[-2];
#endif
}

static inline int
nth_set(const PyDictValues *values, int n)
{
#if PY_VERSION_HEX >= 0x030D0000
    return ((const uint8_t *)&values->values[values->capacity])[n];
#else
    return ((const uint8_t *)values)[-3 - n];
#endif
}

/* Those of an instance, NULL where its attributes are in a __dict__ alone. */
static inline const PyDictValues *
values_of(PyObject *instance)
{
#if PY_VERSION_HEX >= 0x030D0000
    const PyDictValues *values = _PyObject_InlineValues(instance);
    return values->valid ? values : NULL;
#elif PY_VERSION_HEX >= 0x030C0000
    PyDictOrValues found = *_PyObject_DictOrValuesPointer(instance);
    return _PyDictOrValues_IsValues(found) ? _PyDictOrValues_GetValues(found) : NULL;
#else
    return *_PyObject_ValuesPointer(instance);
#endif
}

/* Of two exact strings: a class's keys are interned or not, as they came. */
static inline int
same_text(PyObject *a, PyObject *b, Py_hash_t hash_of_b)
{
    return a == b || (((PyASCIIObject *)a)->hash == hash_of_b && PyUnicode_Compare(a, b) == 0);
}

#endif

PyObject *
vnl_layout_peek(PyObject *instance, PyObject *name)
{
#ifdef HAS_PLACES
    PyTypeObject *type = Py_TYPE(instance);
    const PyDictValues *values = has_places(type) ? values_of(instance) : NULL;
    PyDictKeysObject *keys = values != NULL ? ((PyHeapTypeObject *)type)->ht_cached_keys : NULL;
    if (keys == NULL || !DK_IS_UNICODE(keys) || !PyUnicode_CheckExact(name)) {
        return NULL;
    }
    Py_hash_t hash = PyObject_Hash(name);
    const PyDictUnicodeEntry *entries = DK_UNICODE_ENTRIES(keys);
    for (int i = 0; i < set_count(values); i++) {
        int place = nth_set(values, i);
        if (place < keys->dk_nentries && same_text(entries[place].me_key, name, hash)) {
            return Py_XNewRef(values->values[place]);
        }
    }
#endif
    return NULL;
}

/* --- learning */

#ifdef HAS_PLACES

/* 1 the same keys and values in the same order, 0 not, -1 exception. */
static int
same_items(PyObject *one, PyObject *other)
{
    PyObject *a = PyObject_GenericGetDict(one, NULL);
    PyObject *b = a != NULL ? PyObject_GenericGetDict(other, NULL) : NULL;
    PyObject *key[2] = {NULL, NULL}, *value[2] = {NULL, NULL};
    Py_ssize_t at[2] = {0, 0};
    int same = b == NULL ? -1 : PyDict_GET_SIZE(a) == PyDict_GET_SIZE(b);
    while (same > 0 && PyDict_Next(a, &at[0], &key[0], &value[0])) {
        same = PyDict_Next(b, &at[1], &key[1], &value[1]) && value[0] == value[1] &&
               PyUnicode_Compare(key[0], key[1]) == 0;
    }
    Py_XDECREF(a);
    Py_XDECREF(b);
    return same;
}

/* Fills one instance by its __dict__, learns from it, and tries what it has
 * learned.  0, or -1 with an exception. */
static int
learn_by_trying(vnl_layout *self)
{
    Py_ssize_t count = PyTuple_GET_SIZE(self->names);
    PyObject *marks[MOST] = {NULL};
    PyObject *model = NULL, *dict = NULL, *tried = NULL;
    int rc = -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        marks[i] = PyDict_New(); /* nothing else is it; ModelState clears its cache when it goes */
        if (marks[i] == NULL) {
            goto done;
        }
    }
    model = vnl_layout_make(self, marks, count, NULL, 0);
    dict = model != NULL ? PyObject_GenericGetDict(model, NULL) : NULL;
    if (dict == NULL) {
        goto done;
    }
    rc = 0;
    if (learn(self, dict)) {
        tried = vnl_layout_make(self, marks, count, NULL, 0);
        int same = tried != NULL ? same_items(model, tried) : -1;
        if (same <= 0) {
            self->keys = NULL;
            rc = same;
        }
    }

done:
    Py_XDECREF(tried);
    Py_XDECREF(dict);
    Py_XDECREF(model);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_XDECREF(marks[i]);
    }
    return rc;
}

#endif

static vnl_layout *
new_layout(PyTypeObject *type, PyObject *names)
{
    vnl_layout *self = PyMem_Calloc(1, sizeof(*self));
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->type = (PyTypeObject *)Py_NewRef(type);
    self->names = Py_NewRef(names);
    self->empty = PyTuple_New(0);
    if (self->empty == NULL) {
        vnl_layout_free(self);
        return NULL;
    }
    return self;
}

vnl_layout *
vnl_layout_new(PyTypeObject *type, PyObject *names, int may_try)
{
    vnl_layout *self = new_layout(type, names);
#ifdef HAS_PLACES
    if (self != NULL && may_try && PyTuple_GET_SIZE(names) <= MOST && has_places(type) &&
        learn_by_trying(self) < 0) {
        vnl_layout_free(self);
        return NULL;
    }
#endif
    return self;
}

vnl_layout *
vnl_layout_part(const vnl_layout *whole, PyObject *names)
{
    vnl_layout *self = whole != NULL ? new_layout(whole->type, names) : NULL;
    if (self == NULL || whole->keys == NULL) {
        return self;
    }
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        while (at < PyTuple_GET_SIZE(whole->names) && PyTuple_GET_ITEM(whole->names, at) != name) {
            at++;
        }
        if (at == PyTuple_GET_SIZE(whole->names)) {
            return self; /* by the __dict__ */
        }
        self->places[i] = whole->places[at];
        self->last = whole->places[at] > self->last ? whole->places[at] : self->last;
    }
    self->keys = whole->keys;
    return self;
}

int
vnl_layout_is_direct(const vnl_layout *self)
{
    return self->keys != NULL;
}

int
vnl_layout_traverse(const vnl_layout *self, visitproc visit, void *arg)
{
    if (self != NULL) {
        Py_VISIT(self->type);
        Py_VISIT(self->names);
    }
    return 0;
}

void
vnl_layout_free(vnl_layout *self)
{
    if (self != NULL) {
        Py_CLEAR(self->type);
        Py_CLEAR(self->names);
        Py_CLEAR(self->empty);
        PyMem_Free(self);
    }
}
