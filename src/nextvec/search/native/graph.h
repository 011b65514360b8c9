/* The graph: candidates by a walk from neighbour to neighbour. Part of _kernels.c. */
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
INLINE int64_t reach(const Graph *graph, const Filter *filter, Marks *marks, int32_t at, int64_t *out,
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

/* Up to `most` candidates, best first, from a pool `wide` rows wide. Room: pool [wide], fresh and products [2 W]. */
INLINE int64_t walk(const Rows *rows, const Graph *graph, const Query *query, const Filter *filter, Marks *marks,
                    int64_t wide, int64_t most, Step *pool, int64_t *fresh, int32_t *products, Scored *found,
                    const int bytes) {
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
        dots(query, rows->codes, fresh, new, rows->dim, products, bytes);
        for (int64_t i = 0; i < new; i++) {
            const float own = (float)products[i] * rows->scale[fresh[i]];
            int64_t place = enter(pool, &size, wide, own, (int32_t)fresh[i]);
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
