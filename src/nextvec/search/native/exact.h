/* The exact way: codes rule rows out with certainty, block by block for many queries at once. Part of _kernels.c. */
enum { ROWS_BLOCK = 256, GROUP = 32 };

/* One query of a group: the k best lower bounds, and the rows whose upper bound is no less than the last of these was when
 * they were met. */
typedef struct {
    Query query;
    Scored *best, *kept;
    int64_t size, left, room;
    float least;
} Task;

INLINE void drop_ruled_out(Task *task) {
    int64_t left = 0;
    for (int64_t i = 0; i < task->left; i++)
        if (task->kept[i].score >= task->least) task->kept[left++] = task->kept[i];
    task->left = left;
}

INLINE int keep_row(Task *task, Scored one) {
    if (task->left == task->room) {
        drop_ruled_out(task);
        if (task->left > task->room / 2) {
            Scored *more = realloc(task->kept, (size_t)(2 * task->room) * sizeof *more);
            if (!more) return 0;
            task->kept = more, task->room *= 2;
        }
    }
    task->kept[task->left++] = one;
    return 1;
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
        (bytes ? dots_bytes : dots_any)(query, rows->codes, number, some, rows->dim, product);
        for (int64_t i = 0; i < some; i++) {
            float near = (float)product[i] * scale[i];
            float off = query->row_error * error[i] + query->row_norm * norm[i];
            low[i] = near - off, high[i] = near + off;
        }
        for (int64_t i = 0; i < some; i++) {
            if (!(high[i] >= task->least) || !matches(filter, number[i])) continue;
            if (!keep_row(task, (Scored){high[i], (int32_t)number[i]})) return 0;
            offer(task->best, &task->size, k, (Scored){low[i], (int32_t)number[i]});
            if (task->size == k) task->least = task->best[0].score;
        }
    }
    return 1;
}
