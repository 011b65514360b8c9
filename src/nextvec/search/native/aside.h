/* Beside searches: bits of filters, texts of ids, vectors of length 1. Part of _kernels.c. */
#ifdef HAS_VECTORS
/* Which of 64 ranks lie from `low` to `high`. */
WIDE static uint64_t ranks_wide(const uint16_t *ranks, uint16_t low, uint16_t high) {
    const __m256i least = _mm256_set1_epi16((short)low), most = _mm256_set1_epi16((short)high);
    uint64_t bits = 0;
    for (int i = 0; i < 64; i += 32) {
        __m256i within[2];
        for (int j = 0; j < 2; j++) {
            const __m256i own = _mm256_loadu_si256((const void *)(ranks + i + 16 * j));
            within[j] = _mm256_and_si256(_mm256_cmpeq_epi16(_mm256_max_epu16(own, least), own),
                                         _mm256_cmpeq_epi16(_mm256_min_epu16(own, most), own));
        }
        /* Halves of 128 bits are packed each on their own. */
        const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(within[0], within[1]), 0xd8);
        bits |= (uint64_t)(uint32_t)_mm256_movemask_epi8(bytes) << i;
    }
    return bits;
}
#endif

/* 64 rows' answers to a filter, lowest bit first. */
INLINE uint64_t word(const Filter *filter, int64_t first, int count) {
    uint8_t yes[64] = {0};
#ifdef HAS_VECTORS
    if (has_wide && count == 64 && filter->kind == RANKS && !filter->extra)
        return ranks_wide((const uint16_t *)filter->data + first, (uint16_t)filter->low, (uint16_t)filter->high);
#endif
    if (filter->kind == INTS) {
        const int64_t *values = (const int64_t *)filter->data + first;
        for (int i = 0; i < count; i++) yes[i] = (values[i] >= filter->low) & (values[i] <= filter->high);
    } else if (filter->kind == FLOATS) {
        const double *values = (const double *)filter->data + first;
        for (int i = 0; i < count; i++) yes[i] = (values[i] >= filter->low_float) & (values[i] <= filter->high_float);
    } else if (filter->kind == CODES && filter->low >= 0) {
        const int32_t *codes = (const int32_t *)filter->data + first, wanted = (int32_t)filter->low;
        for (int i = 0; i < count; i++) yes[i] = codes[i] == wanted;
    } else if (filter->kind == RANKS && !filter->extra) {
        const uint16_t *ranks = (const uint16_t *)filter->data + first;
        const uint16_t low = (uint16_t)filter->low, high = (uint16_t)filter->high;
        for (int i = 0; i < count; i++) yes[i] = (ranks[i] >= low) & (ranks[i] <= high);
    } else if (filter->kind == RANKS) {
        const uint16_t *ranks = (const uint16_t *)filter->data + first;
        const uint16_t low = (uint16_t)filter->low, span = (uint16_t)(filter->high - filter->low);
        for (int i = 0; i < count; i++) { /* without a branch: which rows match cannot be foretold */
            const uint16_t from = (uint16_t)(ranks[i] - low), within = from <= span;
            yes[i] = (uint8_t)(within & filter->extra[within ? from : 0]);
        }
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

/* Of each row text[begins[row] : begins[row + 1]], UTF-8: a list of strings. */
static PyObject *strings_of(const Py_buffer *begins_held, const Py_buffer *text, const int64_t *rows, int64_t count) {
    const int32_t *begins = begins_held->buf;
    const int64_t total = begins_held->len / 4 - 1;
    PyObject *made = PyList_New(count);
    for (int64_t i = 0; made && i < count; i++) {
        PyObject *one = NULL;
        if (rows[i] < 0 || rows[i] >= total || begins[rows[i]] < 0 || begins[rows[i]] > begins[rows[i] + 1] ||
            begins[rows[i] + 1] > text->len)
            PyErr_SetString(PyExc_IndexError, "a listed row is not there");
        else
            one = PyUnicode_FromStringAndSize((const char *)text->buf + begins[rows[i]],
                                              begins[rows[i] + 1] - begins[rows[i]]);
        if (!one || PyList_SetItem(made, i, one) < 0) Py_CLEAR(made);
    }
    return made;
}

/* strings(begins int32 [N + 1], text, a list of rows int64 [n]) -> for each rows a list of n strings */
static PyObject *call_strings(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *objects[2], *each, *made = NULL;
    Py_buffer begins = {0}, text = {0};
    if (!PyArg_ParseTuple(args, "OOO!", &objects[0], &objects[1], &PyList_Type, &each)) return NULL;
    if (PyObject_GetBuffer(objects[0], &begins, PyBUF_SIMPLE) < 0) return NULL;
    if (PyObject_GetBuffer(objects[1], &text, PyBUF_SIMPLE) == 0) {
        made = PyList_New(PyList_Size(each));
        for (Py_ssize_t i = 0; made && i < PyList_Size(made); i++) {
            PyObject *one = NULL;
            Py_buffer rows;
            if (PyObject_GetBuffer(PyList_GetItem(each, i), &rows, PyBUF_SIMPLE) == 0) {
                one = strings_of(&begins, &text, rows.buf, rows.len / 8);
                PyBuffer_Release(&rows);
            }
            if (!one || PyList_SetItem(made, i, one) < 0) Py_CLEAR(made);
        }
        PyBuffer_Release(&text);
    }
    PyBuffer_Release(&begins);
    return made;
}

/* Vectors [N, D] at length 1; those that are up to the rounding of float32 stay as they are. Returns the first row whose length
 * is 0 or not finite, or -1. */
VERSIONS static int64_t units_of(const float *vectors, float *made, int64_t count, int64_t dim) {
    for (int64_t row = 0; row < count; row++, vectors += dim, made += dim) {
        double length = sqrt(dot64(vectors, vectors, dim, NULL));
        if (!(length > 0) || !isfinite(length)) return row;
        if (fabs(length - 1) <= ldexp(1, -23)) length = 1;
        for (int64_t i = 0; i < dim; i++) made[i] = (float)(vectors[i] / length);
    }
    return -1;
}

/* unit(vectors float32 [N, D], out, dim): see units_of */
static PyObject *call_unit(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *vectors, *out;
    Py_ssize_t dim;
    Py_buffer from, to;
    if (!PyArg_ParseTuple(args, "OOn", &vectors, &out, &dim)) return NULL;
    if (PyObject_GetBuffer(vectors, &from, PyBUF_SIMPLE) < 0) return NULL;
    if (PyObject_GetBuffer(out, &to, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&from);
        return NULL;
    }
    const int fits = dim > 0 && from.len == to.len && from.len % (4 * dim) == 0;
    const int64_t bad = fits ? units_of(from.buf, to.buf, from.len / (4 * dim), dim) : -1;
    PyBuffer_Release(&from);
    PyBuffer_Release(&to);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "arrays that do not fit each other");
        return NULL;
    }
    return PyLong_FromLongLong(bad);
}
