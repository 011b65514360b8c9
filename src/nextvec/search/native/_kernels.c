/* Search kernels: what a search does to rows, in one call each and without Python's lock.
 *
 *   exact   the k best of listed rows or of all: int8 codes rule rows out with certainty, the rest is scored in float64
 *   few     the same of listed rows, from vectors of any length to ids
 *   walk    candidates from a graph, through rows that match a filter (two hops where a neighbour does not match)
 *   near    the cells (an inverted file), nearest first, and how many rows of the nearest ones match
 *   scan    candidates from cells, among rows that match
 *   lay     the rows that match, cell by cell on their own
 *
 * A row x is stored as float32 and as scale * code with |x - scale * code| <= error and |x| <= norm; see
 * indexes/codes.py for the bound. Candidates are ranked by int8 scores and scored in float64 afterwards.
 *
 * Shapes: N rows, D dimensions, M rows listed, W links of a row at the lowest level, C cells.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "rows.h"
#include "products.h"
#include "score.h"
#include "tile.h"
#include "exact.h"
#include "graph.h"
#include "signs.h"
#include "cells.h"
#include "held.h"
#include "aside.h"

/* ---------------------------------------------------------------- versions */
static int can_wide, can_bytes, can_matrix; /* what there is; set once, when the module is loaded */

#define BOTH(name, declared, ...)                                                     \
    VERSIONS static int64_t name##_any declared { return name(__VA_ARGS__, 0); }      \
    BYTES static int64_t name##_bytes declared { return name(__VA_ARGS__, 1); }

BOTH(look_at,
     (const Rows *rows, const int64_t *list, int64_t from, int64_t some, const Filter *filter, Task *tasks,
      int64_t count, int64_t k),
     rows, list, from, some, filter, tasks, count, k)
BOTH(score,
     (const Rows *rows, const Query *query, const Scored *found, int64_t count, int64_t k, Scored *best),
     rows, query, found, count, k, best)
BOTH(score_kept, (const Rows *rows, Task *task, int64_t k, Scored *best, int64_t *scored), rows, task, k, best, scored)
BOTH(walk,
     (const Rows *rows, const Graph *graph, const Query *query, const Filter *filter, Marks *marks, int64_t wide,
      int64_t most, Step *pool, int64_t *fresh, int32_t *products, Scored *found),
     rows, graph, query, filter, marks, wide, most, pool, fresh, products, found)
BOTH(scan,
     (const Cells *cells, const Query *query, const Turned *turned, const Filter *filter, const int32_t *nearest,
      double enough, int64_t k, int64_t most, Kept *kept, Scored *found, int64_t *saw),
     cells, query, turned, filter, nearest, enough, k, most, kept, found, saw)
BOTH(score_means, (const Cells *cells, const Query *query, const Ranking *ranking), cells, query, ranking)
#define BEST_OF(name) (has_bytes ? name##_bytes : name##_any)

/* Whether there is a matrix unit and the system lets this process use it: it has to be asked, since registers of 8 KB are
 * part of what it saves for each thread. */
static int may_use_matrix(void) {
#ifdef HAS_VECTORS
    enum { ASK_FOR_STATE = 0x1023, TILE_DATA = 18 };
    return __builtin_cpu_supports("amx-int8") && syscall(SYS_arch_prctl, ASK_FOR_STATE, TILE_DATA) == 0;
#else
    return 0;
#endif
}

/* ---------------------------------------------------------------- calls from Python */
/* What a call works on: queries, where hits go, and room. */
typedef struct {
    const Rows *rows;
    Py_buffer queries, out_rows, out_scores, out_counts, list;
    int64_t count, k;
    Query query;
    Scored *best, *found;
} Call;

static void end_call(Call *call) {
    Py_buffer *all[] = {&call->queries, &call->out_rows, &call->out_scores, &call->out_counts, &call->list};
    for (int i = 0; i < 5; i++)
        if (all[i]->obj) PyBuffer_Release(all[i]);
    free(call->query.code);
    free(call->best);
    free(call->found);
}

static int64_t room(int64_t count, int64_t size) { return (count > 0 ? count : 1) * size; }

/* queries float32 [Q, D]; out: rows int64 [Q, k], scores float32 [Q, k], counts int64 [Q, 2] (hits, rows scored). */
static int begin_call(Call *call, PyObject *rows, PyObject *queries, PyObject *out, Py_ssize_t k, int64_t candidates) {
    PyObject *one, *two, *three;
    if (!(call->rows = held_as(rows, ROWS)) || !PyArg_ParseTuple(out, "OOO", &one, &two, &three)) return 0;
    if (PyObject_GetBuffer(queries, &call->queries, PyBUF_SIMPLE) < 0 ||
        PyObject_GetBuffer(one, &call->out_rows, PyBUF_WRITABLE) < 0 ||
        PyObject_GetBuffer(two, &call->out_scores, PyBUF_WRITABLE) < 0 ||
        PyObject_GetBuffer(three, &call->out_counts, PyBUF_WRITABLE) < 0)
        return 0;
    int64_t row = 4 * call->rows->dim;
    call->count = call->queries.len / row, call->k = k;
    if (k < 1 || call->queries.len % row || call->out_rows.len != call->count * k * 8 ||
        call->out_scores.len != call->count * k * 4 || call->out_counts.len != call->count * 16) {
        PyErr_SetString(PyExc_ValueError, "arrays that do not fit each other");
        return 0;
    }
    call->query.code = malloc((size_t)call->rows->dim);
    call->best = malloc((size_t)room(k, sizeof(Scored)));
    call->found = malloc((size_t)room(candidates, sizeof(Scored)));
    if (!call->query.code || !call->best || !call->found) {
        PyErr_NoMemory();
        return 0;
    }
    return 1;
}

static void begin_query(Call *call, int64_t q) {
    call->query.vector = (float *)call->queries.buf + q * call->rows->dim;
    quantise(call->query.vector, call->rows->dim, &call->query);
}

static void end_query(Call *call, int64_t q, int64_t hits, int64_t scored) {
    for (int64_t i = 0; i < hits; i++) {
        ((int64_t *)call->out_rows.buf)[q * call->k + i] = call->best[i].row;
        ((float *)call->out_scores.buf)[q * call->k + i] = call->best[i].score;
    }
    ((int64_t *)call->out_counts.buf)[2 * q] = hits;
    ((int64_t *)call->out_counts.buf)[2 * q + 1] = scored;
}

static int64_t rescore(Call *call, const Scored *found, int64_t count) {
    return BEST_OF(score)(call->rows, &call->query, found, count, call->k, call->best);
}

static PyObject *end(Call *call, int sound) {
    end_call(call);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(sound);
}

static int begin_tasks(Task *tasks, int64_t count, int64_t dim) {
    for (int64_t t = 0; t < count; t++) {
        tasks[t].query.code = malloc((size_t)dim);
        if (!tasks[t].query.code || !give_room(&tasks[t], 4 * STEP)) return 0;
    }
    return 1;
}

static void end_tasks(Task *tasks) {
    for (int64_t t = 0; t < GROUP; t++) {
        free(tasks[t].query.code);
        free(tasks[t].row);
        free(tasks[t].low);
        free(tasks[t].high);
    }
}

/* Of queries first, ..., first + many - 1. Returns 1, 0 where rows are damaged, -1 where memory is short. */
static int exact_group(Call *call, Task *tasks, Tile *tile, int64_t first, int64_t many, const int64_t *list, int64_t start,
                       int64_t count, const Filter *filter, int64_t direct, float sure) {
    const Rows *rows = call->rows;
    for (int64_t t = 0; t < many; t++) {
        tasks[t].query.vector = (float *)call->queries.buf + (first + t) * rows->dim;
        quantise(tasks[t].query.vector, rows->dim, &tasks[t].query);
        tasks[t].query.row_error *= sure, tasks[t].query.row_norm *= sure;
        tasks[t].left = 0, tasks[t].full = STEP, tasks[t].least = -INFINITY;
    }
    if (list && (count <= direct || count <= call->k)) {
        for (int64_t t = 0; t < many; t++)
            for (int64_t i = 0; i < count; i++)
                if (!keep_row(&tasks[t], list[i], -INFINITY, INFINITY, call->k)) return -1;
    } else if (tile->packed && many >= TILE_FROM) {
        set_queries(tile, many);
        for (int64_t t = 0; t < many; t++) set_query(tile, t, &tasks[t].query, rows->dim);
        if (!look_at_all(rows, list, start, count, filter, tasks, tile, call->k, has_bytes + has_matrix)) return -1;
    } else {
        for (int64_t from = 0; from < count; from += ROWS_BLOCK) {
            int64_t some = count - from < ROWS_BLOCK ? count - from : ROWS_BLOCK;
            if (!BEST_OF(look_at)(rows, list, list ? from : start + from, some, filter, tasks, many, call->k)) return -1;
        }
    }
    for (int64_t t = 0; t < many; t++) {
        tighten(&tasks[t], call->k);
        int64_t scored, hits = BEST_OF(score_kept)(rows, &tasks[t], call->k, call->best, &scored);
        if (hits < 0) return 0;
        end_query(call, first + t, hits, scored);
    }
    return 1;
}

/* All queries of a call, among `count` rows: those listed or, without a list, those from `start` on. Returns 1, 0 where rows are
 * damaged; -1 and an error of Python's where there is one. */
static int exact_queries(Call *call, const int64_t *list, int64_t start, int64_t count, const Filter *filter, int64_t direct,
                         float sure) {
    Tile tile = {0};
    Task tasks[GROUP];
    const int64_t most = LEAST(call->count, GROUP), rows = call->rows->rows;
    int done = 1, there = 1;
    memset(tasks, 0, sizeof tasks);
    if (!begin_tasks(tasks, most, call->rows->dim) ||
        (has_tiles() && most >= TILE_FROM && !begin_tile(&tile, most, call->rows->dim))) {
        done = -1;
    } else {
        Py_BEGIN_ALLOW_THREADS;
        for (int64_t i = 0; list && i < count; i++) there &= list[i] >= 0 && list[i] < rows;
        for (int64_t q = 0; there && done == 1 && q < call->count; q += GROUP)
            done = exact_group(call, tasks, &tile, q, LEAST(GROUP, call->count - q), list, list ? 0 : start, count, filter, direct,
                               sure);
        Py_END_ALLOW_THREADS;
    }
    end_tasks(tasks);
    end_tile(&tile);
    if (done < 0) PyErr_NoMemory();
    if (!there) PyErr_SetString(PyExc_IndexError, "a listed row is not there");
    return there ? done : -1;
}

/* exact(rows, queries, list int64 [M] or None, filter or None, first, last, k, direct, sure, out) -> whether the rows are
 * what was written. Without a list: rows first to last - 1, of which a filter may take some. sure: how much of the largest
 * possible error is allowed for; 1 for certainty. */
static PyObject *call_exact(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *rows, *queries, *list_object, *filter_object, *out;
    Py_ssize_t first, last, k, direct;
    float sure;
    Call call = {0};
    if (!PyArg_ParseTuple(args, "OOOOnnnnfO", &rows, &queries, &list_object, &filter_object, &first, &last, &k, &direct,
                          &sure, &out))
        return NULL;
    const Filter all = {0}, *filter = filter_object == Py_None ? &all : held_as(filter_object, FILTER);
    if (!filter || (list_object != Py_None && PyObject_GetBuffer(list_object, &call.list, PyBUF_SIMPLE) < 0) ||
        !begin_call(&call, rows, queries, out, k, 0))
        return end(&call, 0);
    const int64_t *list = call.list.buf, count = list ? call.list.len / 8 : last - first;
    if (!list && (first < 0 || last < first || last > call.rows->rows)) {
        PyErr_SetString(PyExc_IndexError, "rows that are not there");
        return end(&call, 0);
    }
    return end(&call, exact_queries(&call, list, first, count, filter, direct, sure) == 1);
}

/* few(rows, vectors float32 [Q, D], units float32 [Q, D], list int64 [M], k, direct, sure, out, begins, text) -> what unit, exact
 * among the listed rows and strings give together: for each query the ids of its hits; None where a vector has no direction
 * or rows are not what was written. units: room for the vectors at length 1. */
static PyObject *call_few(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *rows, *vectors_object, *units, *list, *out, *begins_object, *text_object, *made = NULL;
    Py_ssize_t k, direct;
    float sure;
    Call call = {0};
    Py_buffer vectors = {0}, begins = {0}, text = {0};
    const Filter all = {0};
    int done = -1;
    if (!PyArg_ParseTuple(args, "OOOOnnfOOO", &rows, &vectors_object, &units, &list, &k, &direct, &sure, &out, &begins_object,
                          &text_object))
        return NULL;
    if (PyObject_GetBuffer(vectors_object, &vectors, PyBUF_SIMPLE) == 0 &&
        PyObject_GetBuffer(begins_object, &begins, PyBUF_SIMPLE) == 0 &&
        PyObject_GetBuffer(text_object, &text, PyBUF_SIMPLE) == 0 &&
        PyObject_GetBuffer(list, &call.list, PyBUF_SIMPLE) == 0 && begin_call(&call, rows, units, out, k, 0)) {
        if (vectors.len != call.queries.len || call.queries.readonly)
            PyErr_SetString(PyExc_ValueError, "arrays that do not fit each other");
        else if (units_of(vectors.buf, call.queries.buf, call.count, call.rows->dim) >= 0) done = 0;
        else done = exact_queries(&call, call.list.buf, 0, call.list.len / 8, &all, direct, sure);
    }
    if (done == 1) made = PyList_New(call.count);
    for (int64_t q = 0; made && q < call.count; q++) {
        PyObject *own = strings_of(&begins, &text, (int64_t *)call.out_rows.buf + q * k, ((int64_t *)call.out_counts.buf)[2 * q]);
        if (!own || PyList_SetItem(made, q, own) < 0) Py_CLEAR(made);
    }
    Py_buffer *all_held[] = {&vectors, &begins, &text};
    for (int i = 0; i < 3; i++)
        if (all_held[i]->obj) PyBuffer_Release(all_held[i]);
    end_call(&call);
    if (made || PyErr_Occurred()) return made;
    Py_RETURN_NONE;
}

/* walk(rows, graph, filter or None, queries, widths int64 [Q], k, most, out) -> the same; of a query at most as many
 * candidates as its walk is wide */
static PyObject *call_walk(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *rows, *graph_object, *filter_object, *queries, *widths_object, *out;
    Py_ssize_t k, most;
    Call call = {0};
    if (!PyArg_ParseTuple(args, "OOOOOnnO", &rows, &graph_object, &filter_object, &queries, &widths_object, &k, &most,
                          &out))
        return NULL;
    const Graph *graph = held_as(graph_object, GRAPH);
    const Filter all = {0}, *filter = filter_object == Py_None ? &all : held_as(filter_object, FILTER);
    if (!graph || !filter || PyObject_GetBuffer(widths_object, &call.list, PyBUF_SIMPLE) < 0 ||
        !begin_call(&call, rows, queries, out, k, most))
        return end(&call, 0);
    const int64_t *widths = call.list.buf;
    int64_t widest = 1;
    int fits = call.list.len == call.count * 8 && graph->rows <= call.rows->rows && most >= 1;
    for (int64_t q = 0; fits && q < call.count; q++) {
        fits = widths[q] >= 1 && widths[q] <= INT32_MAX;
        if (widths[q] > widest) widest = widths[q];
    }
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "a graph of more rows than there are, or no width of 1 or more per query");
        return end(&call, 0);
    }
    Step *pool = malloc((size_t)widest * sizeof *pool);
    int64_t *fresh = malloc((size_t)(2 * graph->width) * sizeof *fresh);
    int32_t *products = malloc((size_t)(2 * graph->width) * sizeof *products);
    Marks *marks = take_marks(graph->rows);
    int sound = 1;
    if (!pool || !fresh || !products || !marks) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS;
        for (int64_t q = 0; sound && q < call.count; q++) {
            begin_query(&call, q);
            if (marks->turn == UINT16_MAX) {
                memset(marks->seen, 0, (size_t)marks->rows * sizeof *marks->seen);
                marks->turn = 0;
            }
            int64_t wide = widths[q], count = BEST_OF(walk)(call.rows, graph, &call.query, filter, marks, wide,
                                                            most < wide ? most : wide, pool, fresh, products, call.found);
            int64_t hits = rescore(&call, call.found, count);
            sound = hits >= 0;
            end_query(&call, q, hits, count);
        }
        Py_END_ALLOW_THREADS;
    }
    if (marks) give_marks(marks);
    free(pool);
    free(fresh);
    free(products);
    return end(&call, sound);
}

#include "cells_calls.h"

/* use(level) -> the level in force: 0 for products one value after the other, 1 by AVX2, 2 of bytes, 3 by the matrix unit, as
 * far as they are there. For tests: each way gives the same. */
static PyObject *call_use(PyObject *self, PyObject *args) {
    (void)self;
    int level;
    if (!PyArg_ParseTuple(args, "i", &level)) return NULL;
    has_wide = can_wide && level >= 1;
    has_bytes = can_bytes && level >= 2;
    has_matrix = can_matrix && level >= 3;
    return PyLong_FromLong(has_wide + has_bytes + has_matrix);
}

static PyMethodDef methods[] = {
    {"rows", make_rows, METH_VARARGS, "rows(vectors, codes, scale, error, norm, check, dim)"},
    {"graph", make_graph, METH_VARARGS, "graph(links, upper, width, entry)"},
    {"cells", make_cells, METH_VARARGS, "cells(order, starts, codes, scale, means, means_scale, signs, flips, at, dim)"},
    {"filter", make_filter, METH_VARARGS, "filter(kind, data, extra, low, high, rows)"},
    {"exact", call_exact, METH_VARARGS, "exact(rows, queries, list, filter, first, last, k, direct, sure, out)"},
    {"few", call_few, METH_VARARGS, "few(rows, vectors, units, list, k, direct, sure, out, begins, text)"},
    {"walk", call_walk, METH_VARARGS, "walk(rows, graph, filter, queries, widths, k, most, out)"},
    {"scan", call_scan, METH_VARARGS, "scan(rows, cells, filter, queries, order, enough, keep, may_lose, k, most, out)"},
    {"lay", call_lay, METH_VARARGS, "lay(cells, filter, starts, at, signs)"},
    {"near", call_near, METH_VARARGS, "near(cells, filter, queries, close, enough, order, counts)"},
    {"bits", call_bits, METH_VARARGS, "bits(filter, out)"},
    {"strings", call_strings, METH_VARARGS, "strings(begins, text, rows)"},
    {"use", call_use, METH_VARARGS, "use(level)"},
    {"unit", call_unit, METH_VARARGS, "unit(vectors, out, dim)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_kernels", "Search kernels; see native/__init__.py.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernels(void) {
    static PyType_Slot slots[] = {{Py_tp_dealloc, held_dealloc}, {0, NULL}};
    static PyType_Spec spec = {"nextvec.search.native._kernels.Held", sizeof(Held), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    has_wide = can_wide = HAS_WIDE != 0;
    has_bytes = can_bytes = HAS_BYTES != 0;
    has_matrix = can_matrix = can_bytes && may_use_matrix();
    held_type = (PyTypeObject *)PyType_FromSpec(&spec);
    PyObject *made = held_type ? PyModule_Create(&module) : NULL;
    if (made && (PyModule_AddIntConstant(made, "fast", FAST_PRODUCTS && can_wide) < 0 ||
                 PyModule_AddStringConstant(made, "way", can_matrix  ? "AMX"
                                                         : can_bytes ? "AVX-512 with VNNI"
                                                         : can_wide  ? WIDE_NAME
                                                                     : "portable") < 0))
        Py_CLEAR(made);
    return made;
}
