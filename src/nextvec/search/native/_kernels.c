/* Search kernels: what a search does to rows, in one call each and without Python's lock.
 *
 *   exact   the k best of listed rows: int8 codes rule rows out with certainty, the rest is scored in float64
 *   walk    candidates from a graph, through rows that match a filter (two hops where a neighbour does not match)
 *   near    the cells (an inverted file), nearest first, and how many rows of the nearest ones match
 *   scan    candidates from cells, among rows that match
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

/* One build serves old and new processors: the loader takes the version that fits. Functions that multiply codes exist
 * twice besides: BYTES is their version for processors that add up products of bytes in one instruction, a third of
 * the time; `bytes` says that this is one and is a constant where they are inlined. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define VERSIONS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define BYTES __attribute__((target("arch=x86-64-v4,avx512vnni")))
#define HAS_BYTES (__builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni"))
#else
#define VERSIONS
#define BYTES
#define HAS_BYTES 0
#endif
#define INLINE static inline __attribute__((always_inline))
#define LANES 16

typedef struct {
    float score;
    int32_t row;
} Scored;

typedef struct {
    const float *vectors;   /* [N, D] */
    const int8_t *codes;    /* [N, D] */
    const float *scale, *error, *norm; /* [N] */
    const uint64_t *check;  /* [N] sums of each vector's 32-bit words */
    int64_t rows, dim;
} Rows;

typedef struct {
    float *vector;
    int8_t *code;
    float row_error, row_norm;
    int32_t shift; /* 128 times the sum of the code */
} Query;

/* Which rows match. ALL; BITS: a bit per row; INTS, FLOATS: low <= value <= high, and a bit per row in valid unless
 * it is NULL; CODES: the code is low or, where low < 0, table[code] is set; code < 0 for rows without a value. */
enum { ALL, BITS, INTS, FLOATS, CODES };
typedef struct {
    int kind;
    const void *data;
    const uint8_t *extra;
    int64_t low, high;
    double low_float, high_float;
    int64_t rows; /* rows it covers; later ones do not match */
} Filter;

INLINE int bit(const uint8_t *bits, int64_t row) { return (bits[row >> 3] >> (row & 7)) & 1; }

INLINE int matches(const Filter *filter, int64_t row) {
    if (filter->kind == ALL) return 1;
    if (row >= filter->rows) return 0;
    switch (filter->kind) {
    case BITS: return bit(filter->data, row);
    case INTS: {
        int64_t value = ((const int64_t *)filter->data)[row];
        return (value >= filter->low) & (value <= filter->high) && (!filter->extra || bit(filter->extra, row));
    }
    case FLOATS: {
        double value = ((const double *)filter->data)[row];
        return (value >= filter->low_float) & (value <= filter->high_float) &&
               (!filter->extra || bit(filter->extra, row));
    }
    default: {
        int32_t code = ((const int32_t *)filter->data)[row];
        return filter->low >= 0 ? code == filter->low : code >= 0 && filter->extra[code];
    }
    }
}

INLINE int32_t dot8(const Query *query, const int8_t *code, int64_t dim, const int bytes) {
    const int8_t *own = query->code;
    int32_t sum = 0;
    if (bytes) { /* that instruction wants one side without signs: code + 128 */
        for (int64_t i = 0; i < dim; i++) sum += (uint8_t)(code[i] ^ 0x80) * (int16_t)own[i];
        return sum - query->shift;
    }
    for (int64_t i = 0; i < dim; i++) sum += (int16_t)own[i] * (int16_t)code[i];
    return sum;
}

/* In float64 and in one order whatever the row, so that equal rows get equal scores. */
INLINE double dot64(const float *a, const float *b, int64_t dim) {
    double lanes[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += (double)a[i + j] * (double)b[i + j];
    for (; i < dim; i++) sum += (double)a[i] * (double)b[i];
    for (int j = 0; j < LANES; j++) sum += lanes[j];
    return sum;
}

INLINE uint64_t word_sum(const float *vector, int64_t dim) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < dim; i++) {
        uint32_t word;
        memcpy(&word, vector + i, 4);
        sum += word;
    }
    return sum;
}

INLINE float near_score(const Rows *rows, const Query *query, int64_t row, const int bytes) {
    return (float)dot8(query, rows->codes + row * rows->dim, rows->dim, bytes) * rows->scale[row];
}

INLINE void prefetch_code(const Rows *rows, int64_t row) {
    const int8_t *code = rows->codes + row * rows->dim;
    for (int64_t i = 0; i < rows->dim; i += 64) __builtin_prefetch(code + i);
}

/* A heap whose top is the worst of the best `most`: the lowest score, and of equal ones the latest row. */
INLINE int worse(Scored a, Scored b) { return a.score < b.score || (a.score == b.score && a.row > b.row); }

INLINE void sift(Scored *heap, int64_t size, int64_t at) {
    Scored moved = heap[at];
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

INLINE void offer(Scored *heap, int64_t *size, int64_t most, Scored one) {
    if (*size < most) {
        int64_t at = (*size)++;
        while (at && worse(one, heap[(at - 1) / 2])) {
            heap[at] = heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        heap[at] = one;
    } else if (worse(heap[0], one)) {
        heap[0] = one;
        sift(heap, *size, 0);
    }
}

/* Best first, in place. */
INLINE void sort_heap(Scored *heap, int64_t size) {
    while (size > 1) {
        Scored last = heap[0];
        heap[0] = heap[--size];
        heap[size] = last;
        sift(heap, size, 0);
    }
}

VERSIONS static void quantise(const float *vector, int64_t dim, Query *query) {
    float largest = 0;
    for (int64_t i = 0; i < dim; i++) largest = fmaxf(largest, fabsf(vector[i]));
    float scale = largest / 127.0f;
    double residual = 0, norm = 0;
    query->shift = 0;
    for (int64_t i = 0; i < dim; i++) {
        float code = scale > 0 ? nearbyintf(vector[i] / scale) : 0;
        code = fminf(fmaxf(code, -127), 127);
        query->code[i] = (int8_t)code;
        query->shift += 128 * (int32_t)query->code[i];
        double rest = (double)vector[i] - (double)code * (double)scale;
        residual += rest * rest;
        norm += (double)vector[i] * (double)vector[i];
    }
    /* Rounded up by more than what float32 loses; the same terms as indexes/exact.py has. */
    const double slack = 1 + 1e-5, unit = scale > FLT_MIN ? scale : FLT_MIN;
    double error = (sqrt(residual) + largest * ldexp(sqrt((double)dim), -23)) * slack;
    double reach = sqrt(norm) * slack + error;
    query->row_error = (float)(reach / unit * slack);
    query->row_norm = (float)((error + reach * ldexp(16, -24)) / unit * slack);
}

/* The k best of `count` candidates by float64 scores, best first. Returns how many, or -1 where a row is damaged. */
INLINE int64_t score(const Rows *rows, const float *vector, const Scored *found, int64_t count, int64_t k,
                     Scored *best) {
    int64_t size = 0;
    for (int64_t i = 0; i < count; i++) {
        const float *row = rows->vectors + (int64_t)found[i].row * rows->dim;
        if (i + 1 < count) {
            const float *next = rows->vectors + (int64_t)found[i + 1].row * rows->dim;
            for (int64_t j = 0; j < rows->dim; j += 16) __builtin_prefetch(next + j);
        }
        if (word_sum(row, rows->dim) != rows->check[found[i].row]) return -1;
        offer(best, &size, k, (Scored){(float)dot64(row, vector, rows->dim), found[i].row});
    }
    sort_heap(best, size);
    return size;
}

/* The k best of listed rows, for certain. kept: room for M. Returns how many (-1: damaged); *scored: in float64. */
INLINE int64_t exact(const Rows *rows, const Query *query, const int64_t *list, int64_t count, int64_t k,
                     int64_t direct, Scored *kept, Scored *best, int64_t *scored, const int bytes) {
    int64_t left = 0;
    if (count <= direct || count <= k) {
        for (int64_t i = 0; i < count; i++) kept[left++] = (Scored){0, (int32_t)list[i]};
    } else {
        int64_t size = 0;
        for (int64_t i = 0; i < count; i++) {
            int64_t row = list[i];
            if (i + 8 < count) prefetch_code(rows, list[i + 8]);
            float near = near_score(rows, query, row, bytes);
            float off = query->row_error * rows->error[row] + query->row_norm * rows->norm[row];
            kept[i] = (Scored){near + off, (int32_t)row};
            offer(best, &size, k, (Scored){near - off, (int32_t)row});
        }
        float least = best[0].score;
        for (int64_t i = 0; i < count; i++)
            if (kept[i].score >= least) kept[left++] = kept[i];
    }
    *scored = left;
    return score(rows, query->vector, kept, left, k, best);
}

/* ---------------------------------------------------------------- the graph */
typedef struct {
    const int32_t *links; /* [N, W], -1 after the last link of a row */
    const int32_t *upper; /* levels from the highest down to 1: count, links per row, rows [count], links [count, W] */
    int64_t rows, width, upper_size, entry;
} Graph;

/* Rows that a walk has seen have its number; cleared only when numbers run out. Handed out and taken back while Python's
 * lock is held, so that there are as many as walks go on at once. */
typedef struct Marks {
    uint16_t *seen;
    int64_t rows;
    uint16_t turn;
    struct Marks *next;
} Marks;
static Marks *spare_marks;

static Marks *take_marks(int64_t rows) {
    Marks *marks = spare_marks;
    if (marks) spare_marks = marks->next;
    else if (!(marks = calloc(1, sizeof *marks))) return NULL;
    if (marks->rows < rows || marks->turn == UINT16_MAX) {
        free(marks->seen);
        marks->seen = calloc((size_t)rows, sizeof *marks->seen);
        marks->rows = rows;
        marks->turn = 0;
        if (!marks->seen) {
            free(marks);
            return NULL;
        }
    }
    return marks;
}

static void give_marks(Marks *marks) {
    marks->next = spare_marks;
    spare_marks = marks;
}

/* From the highest level down, each time to the best neighbour: where the walk begins. */
INLINE int32_t descend(const Rows *rows, const Graph *graph, const Query *query, const int bytes) {
    int32_t at = (int32_t)graph->entry;
    float best = near_score(rows, query, at, bytes);
    const int32_t *level = graph->upper, *end = graph->upper + graph->upper_size;
    while (level < end) {
        int64_t count = level[0], width = level[1];
        const int32_t *members = level + 2, *links = members + count;
        for (int moved = 1; moved;) {
            int64_t low = 0, high = count;
            while (low < high) {
                int64_t middle = (low + high) / 2;
                if (members[middle] < at) low = middle + 1; else high = middle;
            }
            moved = 0;
            if (low >= count || members[low] != at) break;
            for (int64_t i = 0; i < width && links[low * width + i] >= 0; i++) {
                int32_t other = links[low * width + i];
                float own = near_score(rows, query, other, bytes);
                if (own > best) best = own, at = other, moved = 1;
            }
        }
        level = links + count * width;
    }
    return at;
}

typedef struct {
    float score;
    int32_t row; /* ~row once its links were followed */
} Step;

/* The pool: at most `most` rows, best first. Returns the place of the row, or `most` where it does not enter. */
INLINE int64_t enter(Step *pool, int64_t *size, int64_t most, float score, int32_t row) {
    if (*size == most && !(score > pool[most - 1].score)) return most;
    int64_t low = 0, high = *size;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (pool[middle].score >= score) low = middle + 1; else high = middle;
    }
    int64_t tail = (*size < most ? *size : most - 1) - low;
    memmove(pool + low + 1, pool + low, (size_t)tail * sizeof *pool);
    pool[low] = (Step){score, row};
    if (*size < most) ++*size;
    return low;
}

/* Rows that match and were not seen, from the links of `at`; where a neighbour does not match, from its links too. */
INLINE int64_t reach(const Graph *graph, const Filter *filter, Marks *marks, int32_t at, int32_t *out,
                     int64_t most) {
    uint16_t *seen = marks->seen, turn = marks->turn;
    int64_t count = 0;
    const int32_t *links = graph->links + (int64_t)at * graph->width;
    for (int64_t i = 0; i < graph->width && links[i] >= 0; i++) {
        int32_t row = links[i];
        if (seen[row] == turn) continue;
        seen[row] = turn;
        if (matches(filter, row)) {
            out[count++] = row;
        } else if (count < most) {
            const int32_t *further = graph->links + (int64_t)row * graph->width;
            for (int64_t j = 0; j < graph->width && further[j] >= 0 && count < most; j++) {
                int32_t other = further[j];
                if (seen[other] == turn || !matches(filter, other)) continue;
                seen[other] = turn;
                out[count++] = other;
            }
        }
    }
    return count;
}

/* Up to `most` candidates, best first, from a pool `wide` rows wide. Room: pool [wide], fresh [2 W]. */
INLINE int64_t walk(const Rows *rows, const Graph *graph, const Query *query, const Filter *filter, Marks *marks,
                    int64_t wide, int64_t most, Step *pool, int32_t *fresh, Scored *found, const int bytes) {
    int64_t size = 0, done = 0, count = 0;
    int32_t start = descend(rows, graph, query, bytes);
    marks->seen[start] = ++marks->turn;
    int start_matches = matches(filter, start);
    enter(pool, &size, wide, near_score(rows, query, start, bytes), start);
    while (done < size) {
        if (pool[done].row < 0) { done++; continue; }
        int32_t at = pool[done].row;
        pool[done].row = ~at;
        int64_t new = reach(graph, filter, marks, at, fresh, graph->width), next = done + 1;
        for (int64_t i = 0; i < new; i++) prefetch_code(rows, fresh[i]);
        for (int64_t i = 0; i < new; i++) {
            int64_t place = enter(pool, &size, wide, near_score(rows, query, fresh[i], bytes), fresh[i]);
            if (place < next) next = place;
        }
        done = next;
    }
    for (int64_t i = 0; i < size && count < most; i++) {
        int32_t row = pool[i].row < 0 ? ~pool[i].row : pool[i].row;
        if (row != start || start_matches) found[count++] = (Scored){pool[i].score, row};
    }
    return count;
}

/* ---------------------------------------------------------------- cells */
typedef struct {
    const int32_t *order;  /* [N] row numbers cell by cell */
    const int64_t *starts; /* [C + 1] */
    const int8_t *codes;   /* [N, D] in that order */
    const float *scale;
    const int8_t *means;   /* [C, D] codes of the cells' means */
    const float *means_scale;
    int64_t cells, dim;
} Cells;

typedef struct {
    uint32_t key;
    int32_t cell;
} Keyed;

/* By key, equal ones as they were: byte by byte, there and back again. */
INLINE void sort_keyed(Keyed *items, Keyed *room, int64_t count) {
    for (int shift = 0; shift < 32; shift += 8) {
        int32_t at[256] = {0}, before = 0;
        for (int64_t i = 0; i < count; i++) at[(items[i].key >> shift) & 255]++;
        for (int i = 0; i < 256; i++) {
            int32_t own = at[i];
            at[i] = before;
            before += own;
        }
        for (int64_t i = 0; i < count; i++) room[at[(items[i].key >> shift) & 255]++] = items[i];
        Keyed *swapped = items;
        items = room, room = swapped;
    }
}

/* The cells, that of the best mean first. Room: items [2 C]. */
INLINE int64_t rank(const Cells *cells, const Query *query, Keyed *items, int64_t *order, const int bytes) {
    for (int64_t c = 0; c < cells->cells; c++) {
        float own = (float)dot8(query, cells->means + c * cells->dim, cells->dim, bytes) * cells->means_scale[c];
        uint32_t word;
        memcpy(&word, &own, 4);
        items[c] = (Keyed){word >> 31 ? word : ~word & UINT32_C(0x7fffffff), (int32_t)c}; /* the largest first */
    }
    sort_keyed(items, items + cells->cells, cells->cells);
    for (int64_t c = 0; c < cells->cells; c++) order[c] = items[c].cell;
    return cells->cells;
}

/* Rows of the nearest cells, at least `enough`, and how many of them match. */
INLINE void share(const Cells *cells, const Filter *filter, const int64_t *order, int64_t enough, int64_t *counts) {
    int64_t rows = 0, matching = 0;
    for (int64_t c = 0; c < cells->cells && rows < enough; c++) {
        int64_t first = cells->starts[order[c]], end = cells->starts[order[c] + 1];
        for (int64_t i = first; i < end; i++) matching += matches(filter, cells->order[i]);
        rows += end - first;
    }
    counts[0] = rows, counts[1] = matching;
}

/* The best `most` of the first `enough` matching rows, cells in the order given. *saw: how many matched. */
INLINE int64_t scan(const Cells *cells, const Query *query, const Filter *filter, const int64_t *nearest, double enough,
                    int64_t most, Scored *found, int64_t *saw, const int bytes) {
    int64_t size = 0, count = 0;
    for (int64_t c = 0; c < cells->cells && (double)count < enough; c++) {
        for (int64_t i = cells->starts[nearest[c]]; i < cells->starts[nearest[c] + 1]; i++) {
            if (!matches(filter, cells->order[i])) continue;
            count++;
            float own = (float)dot8(query, cells->codes + i * cells->dim, cells->dim, bytes) * cells->scale[i];
            offer(found, &size, most, (Scored){own, cells->order[i]});
        }
    }
    *saw = count;
    return size;
}

/* ---------------------------------------------------------------- versions */
static int has_bytes; /* set once, when the module is loaded */

#define BOTH(name, declared, ...)                                                     \
    VERSIONS static int64_t name##_any declared { return name(__VA_ARGS__, 0); }      \
    BYTES static int64_t name##_bytes declared { return name(__VA_ARGS__, 1); }

BOTH(exact,
     (const Rows *rows, const Query *query, const int64_t *list, int64_t count, int64_t k, int64_t direct, Scored *kept,
      Scored *best, int64_t *scored),
     rows, query, list, count, k, direct, kept, best, scored)
BOTH(walk,
     (const Rows *rows, const Graph *graph, const Query *query, const Filter *filter, Marks *marks, int64_t wide,
      int64_t most, Step *pool, int32_t *fresh, Scored *found),
     rows, graph, query, filter, marks, wide, most, pool, fresh, found)
BOTH(scan,
     (const Cells *cells, const Query *query, const Filter *filter, const int64_t *nearest, double enough, int64_t most,
      Scored *found, int64_t *saw),
     cells, query, filter, nearest, enough, most, found, saw)
BOTH(rank, (const Cells *cells, const Query *query, Keyed *items, int64_t *order), cells, query, items, order)
#define BEST_OF(name) (has_bytes ? name##_bytes : name##_any)

/* ---------------------------------------------------------------- Python */
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
    Py_buffer buffers[6];
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
    if (!PyArg_ParseTuple(args, "OOOOOOn", &vectors, &codes, &scale, &error, &norm, &check, &dim)) return NULL;
    Held *held = new_held(ROWS);
    if (!held) return NULL;
    Rows *rows = &held->is.rows;
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

static PyObject *make_cells(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *order, *starts, *codes, *scale, *means, *means_scale;
    Py_ssize_t dim;
    if (!PyArg_ParseTuple(args, "OOOOOOn", &order, &starts, &codes, &scale, &means, &means_scale, &dim)) return NULL;
    Held *held = new_held(CELLS);
    if (!held) return NULL;
    Cells *cells = &held->is.cells;
    cells->dim = dim;
    if (dim < 1 || !(cells->order = keep(held, order, -1, 4, "order"))) return failed(held);
    int64_t rows = kept_bytes(held) / 4;
    if (!(cells->starts = keep(held, starts, -1, 8, "starts"))) return failed(held);
    cells->cells = kept_bytes(held) / 8 - 1;
    if (!(cells->codes = keep(held, codes, rows * dim, 1, "codes")) ||
        !(cells->scale = keep(held, scale, rows, 4, "scale")) ||
        !(cells->means = keep(held, means, cells->cells * dim, 1, "means")) ||
        !(cells->means_scale = keep(held, means_scale, cells->cells, 4, "scale of the means")))
        return failed(held);
    int sound = cells->cells >= 0 && cells->starts[0] == 0 && cells->starts[cells->cells] == rows;
    for (int64_t c = 0; sound && c < cells->cells; c++) sound = cells->starts[c] <= cells->starts[c + 1];
    if (!sound || !within(cells->order, rows, 0, rows)) {
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
    const int64_t sizes[] = {0, 0, 8, 8, 4};
    if (kind <= ALL || kind > CODES) {
        PyErr_SetString(PyExc_ValueError, "no such kind of filter");
        return failed(held);
    }
    filter->data = kind == BITS ? keep(held, data, (rows + 7) / 8, 1, "data")
                                : keep(held, data, rows, sizes[kind], "data");
    if (!filter->data) return failed(held);
    if (extra != Py_None && !(filter->extra = keep(held, extra, kind == CODES ? -1 : (rows + 7) / 8, 1, "extra")))
        return failed(held);
    if (kind == INTS) {
        filter->low = PyLong_AsLongLong(low), filter->high = PyLong_AsLongLong(high);
    } else if (kind == FLOATS) {
        filter->low_float = PyFloat_AsDouble(low), filter->high_float = PyFloat_AsDouble(high);
    } else if (kind == CODES) {
        filter->low = PyLong_AsLongLong(low);
        if (filter->low < 0 && !filter->extra) PyErr_SetString(PyExc_ValueError, "codes need a table");
    }
    return PyErr_Occurred() ? failed(held) : (PyObject *)held;
}

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

static const void *held_as(PyObject *object, int what) {
    if (Py_TYPE(object) != held_type || (int)((Held *)object)->what != what) {
        PyErr_SetString(PyExc_TypeError, "not what rows, graph, cells or filter made");
        return NULL;
    }
    return &((Held *)object)->is;
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

VERSIONS static int64_t rescore(Call *call, int64_t count) {
    return score(call->rows, call->query.vector, call->found, count, call->k, call->best);
}

static PyObject *end(Call *call, int sound) {
    end_call(call);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(sound);
}

/* exact(rows, queries, list int64 [M], k, direct, out) -> whether the rows are what was written */
static PyObject *call_exact(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *rows, *queries, *list, *out;
    Py_ssize_t k, direct;
    Call call = {0};
    int sound = 0;
    if (!PyArg_ParseTuple(args, "OOOnnO", &rows, &queries, &list, &k, &direct, &out)) return NULL;
    if (PyObject_GetBuffer(list, &call.list, PyBUF_SIMPLE) < 0) return NULL;
    int64_t count = call.list.len / 8;
    const int64_t *rows_listed = call.list.buf;
    if (!begin_call(&call, rows, queries, out, k, count)) return end(&call, 0);
    sound = 1;
    int there = 1;
    Py_BEGIN_ALLOW_THREADS;
    for (int64_t i = 0; i < count; i++) there &= rows_listed[i] >= 0 && rows_listed[i] < call.rows->rows;
    for (int64_t q = 0; there && sound && q < call.count; q++) {
        int64_t scored;
        begin_query(&call, q);
        int64_t hits = BEST_OF(exact)(call.rows, &call.query, rows_listed, count, k, direct, call.found, call.best, &scored);
        sound = hits >= 0;
        end_query(&call, q, hits, scored);
    }
    Py_END_ALLOW_THREADS;
    if (!there) PyErr_SetString(PyExc_IndexError, "a listed row is not there");
    return end(&call, sound);
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
    int32_t *fresh = malloc((size_t)(2 * graph->width) * sizeof *fresh);
    Marks *marks = take_marks(graph->rows);
    int sound = 1;
    if (!pool || !fresh || !marks) {
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
                                                            most < wide ? most : wide, pool, fresh, call.found);
            int64_t hits = rescore(&call, count);
            sound = hits >= 0;
            end_query(&call, q, hits, count);
        }
        Py_END_ALLOW_THREADS;
    }
    if (marks) give_marks(marks);
    free(pool);
    free(fresh);
    return end(&call, sound);
}

/* scan(rows, cells, filter or None, queries, order int64 [Q, C], enough float64 [Q], k, most, out) -> the same */
static PyObject *call_scan(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *rows, *cells_object, *filter_object, *queries, *nearest, *enough_object, *out;
    Py_ssize_t k, most;
    Py_buffer enough = {0};
    Call call = {0};
    if (!PyArg_ParseTuple(args, "OOOOOOnnO", &rows, &cells_object, &filter_object, &queries, &nearest, &enough_object,
                          &k, &most, &out))
        return NULL;
    const Cells *cells = held_as(cells_object, CELLS);
    const Filter all = {0}, *filter = filter_object == Py_None ? &all : held_as(filter_object, FILTER);
    if (!cells || !filter || PyObject_GetBuffer(nearest, &call.list, PyBUF_SIMPLE) < 0 ||
        !begin_call(&call, rows, queries, out, k, most) ||
        PyObject_GetBuffer(enough_object, &enough, PyBUF_SIMPLE) < 0)
        return end(&call, 0);
    const int64_t *order = call.list.buf;
    int there = call.list.len == call.count * cells->cells * 8 && enough.len == call.count * 8 && most >= 1 &&
                cells->dim == call.rows->dim && cells->starts[cells->cells] <= call.rows->rows;
    for (int64_t c = 0; there && c < call.count * cells->cells; c++) there = order[c] >= 0 && order[c] < cells->cells;
    int sound = 1;
    if (!there) {
        PyErr_SetString(PyExc_ValueError, "cells that do not fit the rows, or no order of them");
    } else {
        Py_BEGIN_ALLOW_THREADS;
        for (int64_t q = 0; sound && q < call.count; q++) {
            int64_t saw;
            begin_query(&call, q);
            int64_t count = BEST_OF(scan)(cells, &call.query, filter, order + q * cells->cells,
                                          ((const double *)enough.buf)[q], most, call.found, &saw);
            int64_t hits = rescore(&call, count);
            sound = hits >= 0;
            end_query(&call, q, hits, saw);
        }
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&enough);
    return end(&call, sound);
}

/* near(cells, filter or None, queries float32 [Q, D], enough, order int64 [Q, C], counts int64 [Q, 2]): the cells,
 * nearest first; of the nearest ones that hold at least `enough` rows, how many they hold and how many match */
static PyObject *call_near(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *objects[5];
    Py_ssize_t enough;
    Py_buffer buffers[3] = {{0}};
    Query query = {0};
    Keyed *items = NULL;
    if (!PyArg_ParseTuple(args, "OOOnOO", &objects[0], &objects[1], &objects[2], &enough, &objects[3], &objects[4]))
        return NULL;
    const Cells *cells = held_as(objects[0], CELLS);
    const Filter all = {0}, *filter = objects[1] == Py_None ? &all : held_as(objects[1], FILTER);
    if (cells && filter && PyObject_GetBuffer(objects[2], &buffers[0], PyBUF_SIMPLE) == 0 &&
        PyObject_GetBuffer(objects[3], &buffers[1], PyBUF_WRITABLE) == 0 &&
        PyObject_GetBuffer(objects[4], &buffers[2], PyBUF_WRITABLE) == 0) {
        int64_t row = 4 * cells->dim, count = buffers[0].len / row;
        int64_t *order = buffers[1].buf, *counts = buffers[2].buf;
        query.code = malloc((size_t)cells->dim);
        items = malloc((size_t)room(2 * cells->cells, sizeof *items));
        if (buffers[0].len % row || buffers[1].len != count * cells->cells * 8 || buffers[2].len != count * 16) {
            PyErr_SetString(PyExc_ValueError, "arrays that do not fit each other");
        } else if (!query.code || !items) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS;
            for (int64_t q = 0; q < count; q++) {
                quantise((const float *)buffers[0].buf + q * cells->dim, cells->dim, &query);
                BEST_OF(rank)(cells, &query, items, order + q * cells->cells);
                share(cells, filter, order + q * cells->cells, enough, counts + 2 * q);
            }
            Py_END_ALLOW_THREADS;
        }
    }
    for (int i = 0; i < 3; i++)
        if (buffers[i].obj) PyBuffer_Release(&buffers[i]);
    free(query.code);
    free(items);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* 64 rows' answers to a filter, lowest bit first. */
INLINE uint64_t word(const Filter *filter, int64_t first, int count) {
    uint8_t yes[64] = {0};
    if (filter->kind == INTS) {
        const int64_t *values = (const int64_t *)filter->data + first;
        for (int i = 0; i < count; i++) yes[i] = (values[i] >= filter->low) & (values[i] <= filter->high);
    } else if (filter->kind == FLOATS) {
        const double *values = (const double *)filter->data + first;
        for (int i = 0; i < count; i++) yes[i] = (values[i] >= filter->low_float) & (values[i] <= filter->high_float);
    } else if (filter->kind == CODES && filter->low >= 0) {
        const int32_t *codes = (const int32_t *)filter->data + first, wanted = (int32_t)filter->low;
        for (int i = 0; i < count; i++) yes[i] = codes[i] == wanted;
    } else {
        for (int i = 0; i < count; i++) yes[i] = (uint8_t)matches(filter, first + i);
    }
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) { /* eight bytes of 0 and 1 to eight bits by one product */
        uint64_t eight;
        memcpy(&eight, yes + 8 * i, 8);
        bits |= ((eight * UINT64_C(0x0102040810204080)) >> 56) << (8 * i);
    }
    return bits;
}

/* bits(filter, out uint8 [(N + 7) / 8]): a bit per row */
VERSIONS static PyObject *call_bits(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *filter_object, *out;
    Py_buffer to;
    if (!PyArg_ParseTuple(args, "OO", &filter_object, &out)) return NULL;
    const Filter *filter = held_as(filter_object, FILTER);
    if (!filter || PyObject_GetBuffer(out, &to, PyBUF_WRITABLE) < 0) return NULL;
    int fits = to.len == (filter->rows + 7) / 8;
    for (int64_t row = 0; fits && row < filter->rows; row += 64) {
        int count = filter->rows - row < 64 ? (int)(filter->rows - row) : 64;
        uint64_t own = word(filter, row, count);
        for (int i = 0; i < (count + 7) / 8; i++) ((uint8_t *)to.buf)[row / 8 + i] = (uint8_t)(own >> (8 * i));
    }
    if (fits && filter->extra && (filter->kind == INTS || filter->kind == FLOATS))
        for (int64_t i = 0; i < to.len; i++) ((uint8_t *)to.buf)[i] &= filter->extra[i];
    PyBuffer_Release(&to);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "no room of a bit per row");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* unit(vectors float32 [N, D], out, dim) -> the first row whose length is 0 or not finite, or -1; out: rows of length 1.
 * Rows that are of length 1 up to the rounding of float32 stay as they are. */
VERSIONS static PyObject *call_unit(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *vectors, *out;
    Py_ssize_t dim, bad = -1;
    Py_buffer from, to;
    if (!PyArg_ParseTuple(args, "OOn", &vectors, &out, &dim)) return NULL;
    if (PyObject_GetBuffer(vectors, &from, PyBUF_SIMPLE) < 0) return NULL;
    if (PyObject_GetBuffer(out, &to, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&from);
        return NULL;
    }
    int fits = dim > 0 && from.len == to.len && from.len % (4 * dim) == 0;
    for (Py_ssize_t row = 0; fits && row < from.len / (4 * dim); row++) {
        const float *vector = (const float *)from.buf + row * dim;
        float *made = (float *)to.buf + row * dim;
        double length = sqrt(dot64(vector, vector, dim));
        if (!(length > 0) || !isfinite(length)) {
            bad = row;
            break;
        }
        if (fabs(length - 1) <= ldexp(1, -23)) length = 1;
        for (Py_ssize_t i = 0; i < dim; i++) made[i] = (float)(vector[i] / length);
    }
    PyBuffer_Release(&from);
    PyBuffer_Release(&to);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "arrays that do not fit each other");
        return NULL;
    }
    return PyLong_FromSsize_t(bad);
}

static PyMethodDef methods[] = {
    {"rows", make_rows, METH_VARARGS, "rows(vectors, codes, scale, error, norm, check, dim)"},
    {"graph", make_graph, METH_VARARGS, "graph(links, upper, width, entry)"},
    {"cells", make_cells, METH_VARARGS, "cells(order, starts, codes, scale, means, means_scale, dim)"},
    {"filter", make_filter, METH_VARARGS, "filter(kind, data, extra, low, high, rows)"},
    {"exact", call_exact, METH_VARARGS, "exact(rows, queries, list, k, direct, out)"},
    {"walk", call_walk, METH_VARARGS, "walk(rows, graph, filter, queries, widths, k, most, out)"},
    {"scan", call_scan, METH_VARARGS, "scan(rows, cells, filter, queries, order, enough, k, most, out)"},
    {"near", call_near, METH_VARARGS, "near(cells, filter, queries, enough, order, counts)"},
    {"bits", call_bits, METH_VARARGS, "bits(filter, out)"},
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
    has_bytes = HAS_BYTES;
    held_type = (PyTypeObject *)PyType_FromSpec(&spec);
    return held_type ? PyModule_Create(&module) : NULL;
}
