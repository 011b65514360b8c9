/* The exact way: codes rule rows out with certainty, block by block for many queries at once. Part of _kernels.c. */
enum { ROWS_BLOCK = 256, STEP = 24 };

/* One query of a group, and the rows that were not ruled out when they were met. least: what an upper bound has to reach,
 * since k lower bounds do; full: how many rows there are when it is raised again. */
typedef struct {
    Query query;
    int32_t *row;
    float *low, *high;
    int64_t left, full, room;
    float least;
} Task;

/* Raise `least` towards the k-th best lower bound, and drop the rows that are ruled out by then. */
INLINE void tighten(Task *task, int64_t k) {
    if (task->left < k || task->left == 0) return;
    const float low = nearly_best(task->low, task->left, k, task->least, 12);
    task->least = low;
    int64_t left = 0;
    for (int64_t i = 0; i < task->left; i++) {
        task->row[left] = task->row[i], task->low[left] = task->low[i], task->high[left] = task->high[i];
        left += task->high[i] >= low;
    }
    task->left = left;
}

static int give_room(Task *task, int64_t room) {
    void *row = realloc(task->row, (size_t)room * 4), *low = realloc(task->low, (size_t)room * 4);
    void *high = realloc(task->high, (size_t)room * 4);
    if (row) task->row = row;
    if (low) task->low = low;
    if (high) task->high = high;
    if (!row || !low || !high) return 0;
    task->room = room;
    return 1;
}

/* Keep a row. Returns 0 where memory is short. */
INLINE int keep_row(Task *task, int64_t row, float low, float high, int64_t k) {
    task->row[task->left] = (int32_t)row, task->low[task->left] = low, task->high[task->left] = high;
    if (++task->left < task->full) return 1;
    tighten(task, k);
    task->full = task->left + MOST(STEP, task->left / 2);
    return task->full <= task->room || give_room(task, 2 * task->full);
}

INLINE void swap_kept(Task *task, int64_t i, int64_t j) {
    const int32_t row = task->row[i];
    const float low = task->low[i], high = task->high[i];
    task->row[i] = task->row[j], task->low[i] = task->low[j], task->high[i] = task->high[j];
    task->row[j] = row, task->low[j] = low, task->high[j] = high;
}

/* The k best of the rows that were kept, by float64 scores, best first: those with the best lower bounds come first, and of
 * the others whoever can still be among the k best. Returns how many, or -1 where a row is damaged; *scored: how many rows
 * were looked at. */
INLINE int64_t score_kept(const Rows *rows, Task *task, int64_t k, Scored *best, int64_t *scored,
                          const int bytes) {
    const float unit = task->query.unit;
    int64_t size = 0, first = 0;
    for (int64_t i = 0; i < task->left; i++)
        if (task->low[i] >= task->least) swap_kept(task, i, first++);
    *scored = 0;
    for (int64_t i = 0; i < LEAST(AHEAD, task->left); i++) prefetch_vector(rows, task->row[i]);
    for (int64_t i = 0; i < task->left; i++) {
        const int64_t next = i + AHEAD;
        if (next < task->left && !(size == k && task->high[next] * unit < best[0].score))
            prefetch_vector(rows, task->row[next]);
        if (size == k && task->high[i] * unit < best[0].score) continue;
        if (!score_row(rows, task->query.vector, task->row[i], k, best, &size, bytes)) return -1;
        ++*scored;
    }
    sort_heap(best, size);
    return size;
}

/* Rows list[from], ... (where there is no list: from, ...) for each task. Returns 0 where memory is short. */
INLINE int64_t look_at(const Rows *rows, const int64_t *list, int64_t from, int64_t some, const Filter *filter,
                       Task *tasks, int64_t count, int64_t k, const int bytes) {
    int64_t number[ROWS_BLOCK];
    float scale[ROWS_BLOCK], error[ROWS_BLOCK], norm[ROWS_BLOCK], low[ROWS_BLOCK], high[ROWS_BLOCK];
    int32_t product[ROWS_BLOCK];
    for (int64_t i = 0; i < some; i++) {
        int64_t row = number[i] = list ? list[from + i] : from + i;
        scale[i] = rows->scale[row], error[i] = rows->error[row], norm[i] = rows->norm[row];
    }
    for (Task *task = tasks; task < tasks + count; task++) {
        const Query *query = &task->query;
        dots(query, rows->codes, number, some, rows->dim, product, bytes);
        for (int64_t i = 0; i < some; i++) {
            float near = (float)product[i] * scale[i];
            float off = query->row_error * error[i] + query->row_norm * norm[i];
            low[i] = near - off, high[i] = near + off;
        }
        for (int64_t i = 0; i < some; i++) {
            if (!(high[i] >= task->least) || !matches(filter, number[i])) continue;
            if (!keep_row(task, number[i], low[i], high[i], k)) return 0;
        }
    }
    return 1;
}

#ifdef HAS_VECTORS
/* Some of the rows that are looked at, at most TILE_ROWS. */
typedef struct {
    int64_t some, number[TILE_ROWS];
    float scale[TILE_ROWS], error[TILE_ROWS], norm[TILE_ROWS];
} Part;

static void take_part(const Rows *rows, const int64_t *list, int64_t start, int64_t from, int64_t count, Part *part) {
    memset(part, 0, sizeof *part);
    part->some = LEAST(TILE_ROWS, count - from);
    for (int64_t i = 0; i < part->some; i++) {
        const int64_t row = part->number[i] = list ? list[from + i] : start + from + i;
        part->scale[i] = rows->scale[row], part->error[i] = rows->error[row], part->norm[i] = rows->norm[row];
    }
}

/* Keep what the products of a part do not rule out. Returns 0 where memory is short. */
static int keep_part(const Part *part, const int32_t *product, const Filter *filter, Task *tasks, Tile *tile, int64_t k,
                     int how) {
    uint16_t left[TILE_ROWS][GROUP / LANES_OF_ONE] = {{0}};
    (how ? not_ruled_out : not_ruled_out_wide)(tile, product, part->scale, part->error, part->norm, left);
    for (int64_t i = 0; i < part->some; i++) {
        uint64_t bits;
        memcpy(&bits, left[i], sizeof bits);
        if (!bits || !matches(filter, part->number[i])) continue;
        for (; bits; bits &= bits - 1) {
            const int64_t t = __builtin_ctzll(bits);
            Task *task = &tasks[t];
            const float near = (float)product[i * tile->lanes + t] * part->scale[i];
            const float off = tile->row_error[t] * part->error[i] + tile->row_norm[t] * part->norm[i];
            if (!keep_row(task, part->number[i], near - off, near + off, k)) return 0;
            tile->least[t] = task->least;
        }
    }
    return 1;
}

/* All rows that are listed (`count` from `start` on, where there is no list) for at least TILE_FROM queries, whose codes are in the
 * tile. The products of the next part are begun before the last ones are looked at, so that they need not be waited for.
 * how: 0 by AVX2, 1 by products of bytes, 2 by the matrix unit. Returns 0 where memory is short. */
static int look_at_all(const Rows *rows, const int64_t *list, int64_t start, int64_t count, const Filter *filter,
                       Task *tasks, Tile *tile, int64_t k, int how) {
    Part parts[2];
    int done = 1;
    if (how == 2) begin_matrix();
    for (int64_t from = 0, turn = 0; done && from < count + TILE_ROWS; from += TILE_ROWS, turn ^= 1) {
        if (from < count) {
            take_part(rows, list, start, from, count, &parts[turn]);
            (how == 2 ? multiply_matrix : how ? multiply_bytes : multiply_wide)(tile, rows, parts[turn].number,
                                                                               parts[turn].some, turn);
        }
        if (from) done = keep_part(&parts[!turn], product_of(tile, !turn), filter, tasks, tile, k, how);
    }
    if (how == 2) end_matrix();
    return done;
}
#else
static int look_at_all(const Rows *rows, const int64_t *list, int64_t start, int64_t count, const Filter *filter,
                       Task *tasks, Tile *tile, int64_t k, int how) {
    (void)rows, (void)list, (void)start, (void)count, (void)filter, (void)tasks, (void)tile, (void)k, (void)how;
    return 0;
}
#endif
