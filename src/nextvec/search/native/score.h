/* What a row is worth to a query. Part of _kernels.c. */
INLINE float near_score(const Rows *rows, const Query *query, int64_t row, const int bytes) {
    return (float)dot8(query, rows->codes + row * rows->dim, rows->dim, bytes) * rows->scale[row];
}

INLINE void prefetch_code(const Rows *rows, int64_t row) {
    const int8_t *code = rows->codes + row * rows->dim;
    for (int64_t i = 0; i < rows->dim; i += 64) __builtin_prefetch(code + i);
}

INLINE void prefetch_vector(const Rows *rows, int64_t row) {
    const float *vector = rows->vectors + row * rows->dim;
    for (int64_t j = 0; j < rows->dim; j += 16) __builtin_prefetch(vector + j);
    __builtin_prefetch(rows->check + row);
}

/* Offers a row by its float64 score. Returns 0 where the row is damaged. */
INLINE int score_row(const Rows *rows, const float *vector, int32_t row, int64_t k, Scored *best, int64_t *size,
                     const int bytes) {
    const float *own_vector = rows->vectors + (int64_t)row * rows->dim;
    uint64_t words;
    const float own = (float)(bytes ? dot64_bytes : has_wide ? dot64_wide : dot64)(own_vector, vector, rows->dim, &words);
    if (words != rows->check[row]) return 0;
    offer(best, size, k, (Scored){own, row});
    return 1;
}

/* The k best of `count` candidates, best first by their codes, by float64 scores, best first. Those whose codes put them
 * further below the k-th than rounding is likely to (see `likely` in indexes/exact.py) are left alone. Returns how many, or
 * -1 where a row is damaged. */
INLINE int64_t score(const Rows *rows, const Query *query, const Scored *found, int64_t count, int64_t k, Scored *best,
                     const int bytes) {
    const float off = query->row_error * rows->likely_error + query->row_norm * rows->likely_norm;
    int64_t size = 0;
    for (int64_t i = 0; i < LEAST(AHEAD, count); i++) prefetch_vector(rows, found[i].row);
    for (int64_t i = 0; i < count; i++) {
        if (size == k && (found[i].score + off) * query->unit < best[0].score) break;
        if (i + AHEAD < count) prefetch_vector(rows, found[i + AHEAD].row);
        if (!score_row(rows, query->vector, found[i].row, k, best, &size, bytes)) return -1;
    }
    sort_heap(best, size);
    return size;
}
