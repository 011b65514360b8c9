/* What Python calls of cells: scan, lay, near. Part of _kernels.c. */
/* The cells of query number q of `count`, nearest first. query: its code, where that is known. The products of the queries
 * that come together are made when the first of them is asked for. */
static void rank_cells(const Cells *cells, float *vectors, int64_t count, int64_t q, const Query *query, Ranking *ranking,
                       int32_t *order) {
    const int64_t place = q % GROUP;
    const float *scores = ranking->scores;
    if (ranking->tile.packed) {
        if (!place) score_means_together(cells, vectors + q * cells->dim, LEAST(GROUP, count - q), ranking);
        scores += place * cells->cells;
    } else {
        if (!query) {
            quantise(vectors + q * cells->dim, cells->dim, &ranking->query);
            query = &ranking->query;
        }
        BEST_OF(score_means)(cells, query, ranking);
    }
    rank(cells, scores, ranking->steps, order);
}

/* scan(rows, cells, filter or None, queries, order int32 [Q, C] or None: cells, nearest first, enough float64 [Q], keep,
 * may_lose, k, most, out) -> the same, and -1 in place of the rows scored where too much was probably lost: see scan */
static PyObject *call_scan(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *rows, *cells_object, *filter_object, *queries, *nearest, *enough_object, *out;
    Py_ssize_t keep, k, most;
    double may_lose;
    Py_buffer enough = {0};
    Turned turned = {0};
    Kept kept = {0};
    Ranking ranking = {.steps = NULL};
    Call call = {0};
    if (!PyArg_ParseTuple(args, "OOOOOOndnnO", &rows, &cells_object, &filter_object, &queries, &nearest, &enough_object,
                          &keep, &may_lose, &k, &most, &out))
        return NULL;
    const Cells *cells = held_as(cells_object, CELLS);
    const Filter all = {0}, *filter = filter_object == Py_None ? &all : held_as(filter_object, FILTER);
    if (!cells || !filter || (nearest != Py_None && PyObject_GetBuffer(nearest, &call.list, PyBUF_SIMPLE) < 0) ||
        !begin_call(&call, rows, queries, out, k, most) ||
        PyObject_GetBuffer(enough_object, &enough, PyBUF_SIMPLE) < 0)
        return end(&call, 0);
    const int32_t *order = call.list.buf;
    int32_t *own = order ? NULL : malloc((size_t)room(cells->cells, sizeof *own));
    int there = (!order || call.list.len == call.count * cells->cells * 4) && enough.len == call.count * 8 && most >= 1 &&
                keep >= 0 && keep <= INT32_MAX && cells->dim == call.rows->dim && cells->reach <= call.rows->rows;
    if (there && order) there = within(order, call.count * cells->cells, 0, cells->cells);
    int sound = 1, enough_room = order || (own && begin_ranking(&ranking, cells->cells, call.count, cells->dim));
    if (there && keep) {
        turned.turned = malloc((size_t)cells->dim * sizeof(float));
        turned.levels = malloc((size_t)(8 * cells->bytes));
        turned.tables = malloc((size_t)(32 * cells->bytes));
        enough_room = enough_room && begin_kept(&kept, keep) && turned.turned && turned.levels && turned.tables;
    }
    if (!there) {
        PyErr_SetString(PyExc_ValueError, "cells that do not fit the rows, or no order of them");
    } else if (!enough_room) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS;
        kept.may_lose = may_lose;
        for (int64_t q = 0; sound && q < call.count; q++) {
            int64_t saw;
            begin_query(&call, q);
            if (keep) turn_query(&call.query, cells->flips, cells->dim, cells->bytes, &turned);
            if (!order) rank_cells(cells, call.queries.buf, call.count, q, &call.query, &ranking, own);
            int64_t count = BEST_OF(scan)(cells, &call.query, &turned, filter, order ? order + q * cells->cells : own,
                                          ((const double *)enough.buf)[q], k, most, &kept, call.found, &saw);
            int64_t hits = rescore(&call, call.found, count);
            sound = hits >= 0;
            end_query(&call, q, hits, saw);
        }
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&enough);
    free(own);
    free(turned.turned);
    free(turned.levels);
    free(turned.tables);
    end_kept(&kept);
    end_ranking(&ranking);
    return end(&call, sound);
}

/* lay(cells, filter, starts int64 [C + 1], at int32 [M], signs uint8 [(M + 31) / 32, ...]) -> how many rows of these cells the
 * filter takes: see lay */
VERSIONS static PyObject *call_lay(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *objects[5];
    Py_buffer to[3] = {{0}};
    int64_t count = -1;
    if (!PyArg_ParseTuple(args, "OOOOO", &objects[0], &objects[1], &objects[2], &objects[3], &objects[4])) return NULL;
    const Cells *cells = held_as(objects[0], CELLS);
    const Filter *filter = cells ? held_as(objects[1], FILTER) : NULL;
    if (!filter) return NULL;
    int there = 1;
    for (int i = 0; there && i < 3; i++) there = PyObject_GetBuffer(objects[2 + i], &to[i], PyBUF_WRITABLE) == 0;
    if (there) {
        const int64_t most = to[1].len / 4;
        const int64_t room = (most + BLOCK - 1) / BLOCK * block_size(cells->bytes);
        if (!cells->at && to[0].len == (cells->cells + 1) * 8 && to[2].len == room) {
            Py_BEGIN_ALLOW_THREADS;
            count = lay(cells, filter, most, to[0].buf, to[1].buf, to[2].buf);
            Py_END_ALLOW_THREADS;
        }
        if (count < 0) PyErr_SetString(PyExc_ValueError, "no room for the rows that the filter takes");
    }
    for (int i = 0; i < 3; i++) PyBuffer_Release(&to[i]);
    return count < 0 ? NULL : PyLong_FromLongLong(count);
}

/* near(cells, filter, or cells with its rows alone, or None, queries float32 [Q, D], close, enough, order int32 [Q, C],
 * counts int64 [Q, 4]): the cells, nearest first; of the nearest ones that hold at least `close` rows, how many they hold and
 * how many match, and the same of those that hold at least `enough` */
static PyObject *call_near(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *objects[5];
    Py_ssize_t close, enough;
    Py_buffer buffers[3] = {{0}};
    Ranking ranking = {.steps = NULL};
    if (!PyArg_ParseTuple(args, "OOOnnOO", &objects[0], &objects[1], &objects[2], &close, &enough, &objects[3],
                          &objects[4]))
        return NULL;
    const Cells *cells = held_as(objects[0], CELLS);
    const Filter all = {0}, *filter = &all;
    const Cells *alone = NULL;
    if (Py_TYPE(objects[1]) == held_type && ((Held *)objects[1])->what == CELLS) alone = &((Held *)objects[1])->is.cells;
    else if (objects[1] != Py_None) filter = held_as(objects[1], FILTER);
    if (cells && filter && PyObject_GetBuffer(objects[2], &buffers[0], PyBUF_SIMPLE) == 0 &&
        PyObject_GetBuffer(objects[3], &buffers[1], PyBUF_WRITABLE) == 0 &&
        PyObject_GetBuffer(objects[4], &buffers[2], PyBUF_WRITABLE) == 0) {
        int64_t row = 4 * cells->dim, count = buffers[0].len / row;
        int32_t *order = buffers[1].buf;
        int64_t *counts = buffers[2].buf;
        if (buffers[0].len % row || buffers[1].len != count * cells->cells * 4 || buffers[2].len != count * 32 ||
            (alone && alone->cells != cells->cells)) {
            PyErr_SetString(PyExc_ValueError, "arrays that do not fit each other");
        } else if (!begin_ranking(&ranking, cells->cells, count, cells->dim)) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS;
            for (int64_t q = 0; q < count; q++) {
                rank_cells(cells, buffers[0].buf, count, q, NULL, &ranking, order + q * cells->cells);
                share(cells, filter, alone, order + q * cells->cells, close, enough, counts + 4 * q);
            }
            Py_END_ALLOW_THREADS;
        }
    }
    for (int i = 0; i < 3; i++)
        if (buffers[i].obj) PyBuffer_Release(&buffers[i]);
    end_ranking(&ranking);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}
