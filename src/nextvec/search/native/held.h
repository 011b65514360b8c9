/* What Python holds: rows, a graph, cells or a filter over the memory of arrays, checked once. Part of _kernels.c. */
typedef struct {
    PyObject_HEAD
    enum { ROWS, GRAPH, CELLS, FILTER } what;
    union {
        Rows rows;
        Graph graph;
        Cells cells;
        Filter filter;
    } is;
    int held;
    Py_buffer buffers[9];
} Held;
static PyTypeObject *held_type;

static void held_dealloc(PyObject *self) {
    Held *held = (Held *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (int i = 0; i < held->held; i++) PyBuffer_Release(&held->buffers[i]);
    PyObject_Free(self);
    Py_DECREF(type);
}

static Held *new_held(int what) {
    Held *held = PyObject_New(Held, held_type);
    if (held) held->what = what, held->held = 0;
    return held;
}

/* The memory of an array, kept alive by `held`; its length has to be count * size bytes (count < 0: any multiple). */
static const void *keep(Held *held, PyObject *array, int64_t count, int64_t size, const char *name) {
    Py_buffer *buffer = &held->buffers[held->held];
    if (PyObject_GetBuffer(array, buffer, PyBUF_SIMPLE) < 0) return NULL;
    held->held++;
    if (count < 0 ? buffer->len % size != 0 : buffer->len != count * size) {
        PyErr_Format(PyExc_ValueError, "%s has %zd bytes", name, buffer->len);
        return NULL;
    }
    return buffer->buf ? buffer->buf : (const void *)"";
}

static int64_t kept_bytes(Held *held) { return held->buffers[held->held - 1].len; }

static PyObject *failed(Held *held) {
    Py_DECREF(held);
    return NULL;
}

static PyObject *make_rows(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *vectors, *codes, *scale, *error, *norm, *check;
    Py_ssize_t dim;
    float likely_error, likely_norm;
    if (!PyArg_ParseTuple(args, "OOOOOOffn", &vectors, &codes, &scale, &error, &norm, &check, &likely_error, &likely_norm,
                          &dim))
        return NULL;
    Held *held = new_held(ROWS);
    if (!held) return NULL;
    Rows *rows = &held->is.rows;
    rows->likely_error = likely_error, rows->likely_norm = likely_norm;
    rows->dim = dim;
    if (dim < 1 || !(rows->scale = keep(held, scale, -1, 4, "scale"))) return failed(held);
    rows->rows = kept_bytes(held) / 4;
    if (!(rows->error = keep(held, error, rows->rows, 4, "error")) ||
        !(rows->norm = keep(held, norm, rows->rows, 4, "norm")) ||
        !(rows->check = keep(held, check, rows->rows, 8, "check")) ||
        !(rows->vectors = keep(held, vectors, rows->rows * dim, 4, "vectors")) ||
        !(rows->codes = keep(held, codes, rows->rows * dim, 1, "codes")))
        return failed(held);
    if (rows->rows > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "more than 2,147,483,647 rows");
        return failed(held);
    }
    return (PyObject *)held;
}

static int within(const int32_t *rows, int64_t count, int64_t low, int64_t high) {
    for (int64_t i = 0; i < count; i++)
        if (rows[i] < low || rows[i] >= high) return 0;
    return 1;
}

static int sound_upper(const Graph *graph) {
    const int32_t *at = graph->upper, *end = at + graph->upper_size;
    while (at < end) {
        if (end - at < 2 || at[0] < 0 || at[1] < 0 || at[1] > 4096) return 0;
        int64_t count = at[0], width = at[1];
        if (end - at - 2 < count * (1 + width)) return 0;
        if (!within(at + 2, count, 0, graph->rows) || !within(at + 2 + count, count * width, -1, graph->rows)) return 0;
        at += 2 + count * (1 + width);
    }
    return 1;
}

static PyObject *make_graph(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *links, *upper;
    Py_ssize_t width, entry;
    if (!PyArg_ParseTuple(args, "OOnn", &links, &upper, &width, &entry)) return NULL;
    Held *held = new_held(GRAPH);
    if (!held) return NULL;
    Graph *graph = &held->is.graph;
    graph->width = width, graph->entry = entry;
    if (width < 1 || !(graph->links = keep(held, links, -1, 4 * width, "links"))) return failed(held);
    graph->rows = kept_bytes(held) / (4 * width);
    if (!(graph->upper = keep(held, upper, -1, 4, "upper"))) return failed(held);
    graph->upper_size = kept_bytes(held) / 4;
    if (entry < 0 || entry >= graph->rows || !within(graph->links, graph->rows * width, -1, graph->rows) ||
        !sound_upper(graph)) {
        PyErr_SetString(PyExc_ValueError, "links to rows that are not there");
        return failed(held);
    }
    return (PyObject *)held;
}

/* cells(order, starts, codes, scale, means, means_scale, signs, flips, at or None, dim) */
static PyObject *make_cells(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *array[9];
    Py_ssize_t dim;
    if (!PyArg_ParseTuple(args, "OOOOOOOOOn", &array[0], &array[1], &array[2], &array[3], &array[4], &array[5], &array[6],
                          &array[7], &array[8], &dim))
        return NULL;
    Held *held = new_held(CELLS);
    if (!held) return NULL;
    Cells *cells = &held->is.cells;
    cells->dim = dim, cells->bytes = (dim + 63) / 64 * 8, cells->at = NULL;
    if (dim < 1 || !(cells->order = keep(held, array[0], -1, 4, "order"))) return failed(held);
    const int64_t rows = cells->reach = kept_bytes(held) / 4;
    int64_t laid = rows;
    if (array[8] != Py_None) {
        if (!(cells->at = keep(held, array[8], -1, 4, "places"))) return failed(held);
        laid = kept_bytes(held) / 4;
    }
    if (!(cells->starts = keep(held, array[1], -1, 8, "starts"))) return failed(held);
    cells->cells = kept_bytes(held) / 8 - 1;
    if (!(cells->codes = keep(held, array[2], rows * dim, 1, "codes")) ||
        !(cells->scale = keep(held, array[3], rows, 4, "scale")) ||
        !(cells->means = keep(held, array[4], cells->cells * dim, 1, "means")) ||
        !(cells->means_scale = keep(held, array[5], cells->cells, 4, "scale of the means")) ||
        !(cells->signs = keep(held, array[6], (laid + BLOCK - 1) / BLOCK * block_size(cells->bytes), 1, "signs")) ||
        !(cells->flips = keep(held, array[7], 2 * dim, 1, "flips")))
        return failed(held);
    int sound = cells->cells >= 0 && cells->starts[0] == 0 && cells->starts[cells->cells] == laid;
    for (int64_t c = 0; sound && c < cells->cells; c++) sound = cells->starts[c] <= cells->starts[c + 1];
    if (!sound || !within(cells->order, rows, 0, rows) || (cells->at && !within(cells->at, laid, 0, rows))) {
        PyErr_SetString(PyExc_ValueError, "cells of rows that are not there");
        return failed(held);
    }
    return (PyObject *)held;
}

static PyObject *make_filter(PyObject *self, PyObject *args) {
    (void)self;
    int kind;
    PyObject *data, *extra, *low, *high;
    Py_ssize_t rows;
    if (!PyArg_ParseTuple(args, "iOOOOn", &kind, &data, &extra, &low, &high, &rows)) return NULL;
    Held *held = new_held(FILTER);
    if (!held) return NULL;
    Filter *filter = &held->is.filter;
    memset(filter, 0, sizeof *filter);
    filter->kind = kind, filter->rows = rows;
    const int64_t sizes[] = {0, 0, 8, 8, 4, 2};
    if (kind <= ALL || kind > RANKS) {
        PyErr_SetString(PyExc_ValueError, "no such kind of filter");
        return failed(held);
    }
    filter->data = kind == BITS ? keep(held, data, (rows + 7) / 8, 1, "data")
                                : keep(held, data, rows, sizes[kind], "data");
    if (!filter->data) return failed(held);
    const int table = kind == CODES || kind == RANKS;
    if (extra != Py_None && !(filter->extra = keep(held, extra, table ? -1 : (rows + 7) / 8, 1, "extra")))
        return failed(held);
    if (kind == INTS || kind == RANKS) {
        filter->low = PyLong_AsLongLong(low), filter->high = PyLong_AsLongLong(high);
        if (kind == RANKS && !PyErr_Occurred() && (filter->low < 0 || filter->high > UINT16_MAX))
            PyErr_SetString(PyExc_ValueError, "ranks of more than 16 bits");
        else if (kind == RANKS && filter->extra && kept_bytes(held) <= filter->high - filter->low)
            PyErr_SetString(PyExc_ValueError, "a table of fewer ranks");
    } else if (kind == FLOATS) {
        filter->low_float = PyFloat_AsDouble(low), filter->high_float = PyFloat_AsDouble(high);
    } else if (kind == CODES) {
        filter->low = PyLong_AsLongLong(low);
        if (filter->low < 0 && !filter->extra) PyErr_SetString(PyExc_ValueError, "codes need a table");
    }
    return PyErr_Occurred() ? failed(held) : (PyObject *)held;
}

static const void *held_as(PyObject *object, int what) {
    if (Py_TYPE(object) != held_type || (int)((Held *)object)->what != what) {
        PyErr_SetString(PyExc_TypeError, "not what rows, graph, cells or filter made");
        return NULL;
    }
    return &((Held *)object)->is;
}
