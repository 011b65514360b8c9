/* Cells: candidates from the nearest ones. Part of _kernels.c. */
typedef struct {
    int64_t reach;         /* all row numbers are less */
    const int32_t *order;  /* [N] row numbers cell by cell */
    const int64_t *starts; /* [C + 1] */
    const int8_t *codes;   /* [N, D] in that order */
    const float *scale;
    const int8_t *means;   /* [C, D] codes of the cells' means, of -SMALL to SMALL */
    const float *means_scale;
    const uint8_t *signs;  /* [(N + BLOCK - 1) / BLOCK, block_size(bytes)] in that order too: see signs.h */
    const int8_t *flips;   /* [2, D] 1 or -1 */
    const int32_t *at;     /* where starts and signs are of some of the rows: their places in order, codes and scale; or NULL */
    int64_t cells, dim, bytes;
} Cells;

INLINE int64_t place_of(const Cells *cells, int64_t i) { return cells->at ? cells->at[i] : i; }

enum { STEPS = 512 };

/* Room for ranking C cells for `most` queries at once, which are multiplied together where that pays. */
typedef struct {
    Tile tile;
    Query query;       /* room for a code */
    int32_t *products; /* [C] */
    float *scores;     /* [most, C] */
    uint16_t *steps;   /* [C] */
} Ranking;

static int begin_ranking(Ranking *ranking, int64_t cells, int64_t queries, int64_t dim) {
    const int64_t most = LEAST(queries, GROUP), together = has_tiles() && most >= TILE_FROM;
    ranking->products = malloc((size_t)(cells + 1) * sizeof *ranking->products);
    ranking->scores = malloc((size_t)((together ? most : 1) * cells + 1) * sizeof *ranking->scores);
    ranking->steps = malloc((size_t)(cells + 1) * sizeof *ranking->steps);
    ranking->query.code = malloc((size_t)dim);
    return ranking->products && ranking->scores && ranking->steps && ranking->query.code &&
           (!together || begin_tile(&ranking->tile, most, dim));
}

static void end_ranking(Ranking *ranking) {
    end_tile(&ranking->tile);
    free(ranking->query.code);
    free(ranking->products);
    free(ranking->scores);
    free(ranking->steps);
}

/* The products of a query and all means. */
INLINE int64_t score_means(const Cells *cells, const Query *query, const Ranking *ranking, const int bytes) {
    int32_t *products = ranking->products;
    if (bytes || !has_wide) dots(query, cells->means, NULL, cells->cells, cells->dim, products, bytes);
    else dots_small_wide(query, cells->means, cells->cells, cells->dim, products);
    for (int64_t c = 0; c < cells->cells; c++) ranking->scores[c] = (float)products[c] * cells->means_scale[c];
    return cells->cells;
}

/* The same of `many` queries, vectors [many, D]. */
static void score_means_together(const Cells *cells, float *vectors, int64_t many, Ranking *ranking) {
    Tile *tile = &ranking->tile;
    const Rows means = {.codes = cells->means, .dim = cells->dim};
    set_queries(tile, many);
    for (int64_t q = 0; q < many; q++) {
        quantise(vectors + q * cells->dim, cells->dim, &ranking->query);
        set_query(tile, q, &ranking->query, cells->dim);
    }
    for (int64_t from = 0; from < cells->cells; from += TILE_ROWS) {
        const int64_t some = LEAST(TILE_ROWS, cells->cells - from);
        int64_t number[TILE_ROWS];
        for (int64_t i = 0; i < some; i++) number[i] = from + i;
        multiply_small(tile, &means, number, some);
        for (int64_t q = 0; q < many; q++)
            for (int64_t i = 0; i < some; i++)
                ranking->scores[q * cells->cells + from + i] =
                    (float)tile->product[i * tile->lanes + q] * cells->means_scale[from + i];
    }
}

/* The cells, that of the best score first, as far as STEPS between the best and the worst tell them apart. */
VERSIONS static void rank(const Cells *cells, const float *scores, uint16_t *steps, int32_t *order) {
    float low = 0, high = 0;
    int32_t at[STEPS] = {0}, before = 0;
    if (cells->cells) extremes(scores, cells->cells, &low, &high);
    const float step = high > low ? (STEPS - 1) / (high - low) : 0;
    for (int64_t c = 0; c < cells->cells; c++) steps[c] = (uint16_t)LEAST((high - scores[c]) * step, (float)(STEPS - 1));
    for (int64_t c = 0; c < cells->cells; c++) at[steps[c]]++;
    for (int i = 0; i < STEPS; i++) {
        const int32_t own = at[i];
        at[i] = before;
        before += own;
    }
    for (int64_t c = 0; c < cells->cells; c++) order[at[steps[c]]++] = (int32_t)c;
}

/* How many of the rows order[first], ... match. */
INLINE int64_t matching(const Filter *filter, const int32_t *order, int64_t first, int64_t end) {
    int64_t count = 0;
    if (filter->kind == ALL) return end - first;
    if (filter->kind == BITS) /* nearly always: nothing else is asked for each row then */
        for (int64_t i = first; i < end; i++) count += order[i] < filter->rows && bit(filter->data, order[i]);
    else
        for (int64_t i = first; i < end; i++) count += matches(filter, order[i]);
    return count;
}

/* Rows of the nearest cells, at least `enough`, and how many of them match: those of `alone`, where that is not NULL. */
INLINE void share(const Cells *cells, const Filter *filter, const Cells *alone, const int32_t *order, int64_t close,
                  int64_t enough, int64_t *counts) {
    int64_t rows = 0, those = 0;
    memset(counts, 0, 4 * sizeof *counts);
    for (int64_t c = 0; c < cells->cells && rows < enough; c++) {
        int64_t first = cells->starts[order[c]], end = cells->starts[order[c] + 1];
        if (alone) those += alone->starts[order[c] + 1] - alone->starts[order[c]];
        else those += matching(filter, cells->order, first, end);
        if (rows < close) counts[0] = rows + end - first, counts[1] = those;
        rows += end - first;
    }
    counts[2] = rows, counts[3] = those;
}

/* What a scan by signs keeps, in room for twice as many and a block. */
typedef struct {
    float *guess;
    int32_t *place;
    int64_t keep, count;
    double may_lose; /* of the k best, where all cells are looked at: the share that signs may probably leave out */
} Kept;

static int begin_kept(Kept *kept, int64_t keep) {
    kept->keep = keep;
    kept->guess = malloc((size_t)(2 * keep + BLOCK) * sizeof *kept->guess);
    kept->place = malloc((size_t)(2 * keep + BLOCK) * sizeof *kept->place);
    return kept->guess && kept->place;
}

static void end_kept(Kept *kept) {
    free(kept->guess);
    free(kept->place);
}

/* Leaves the `keep` best and hardly more; what a guess must be more than from now on. */
INLINE float keep_best(Kept *kept) {
    const float least = nearly_best(kept->guess, kept->count, kept->keep, -INFINITY, 64);
    int64_t left = 0;
    for (int64_t i = 0; i < kept->count; i++) {
        const float guess = kept->guess[i];
        kept->guess[left] = guess, kept->place[left] = kept->place[i];
        left += guess >= least;
    }
    kept->count = 2 * left > 3 * kept->keep ? kept->keep : left; /* many that are equal: any of them */
    return least;
}

/* Offers the rows at these places by their codes. */
INLINE void offer_places(const Cells *cells, const Query *query, const int32_t *place, int64_t count, int64_t most,
                         Scored *found, int64_t *size, const int bytes) {
    enum { SOME = 128 };
    for (int64_t from = 0; from < count; from += SOME) {
        int64_t some = LEAST(SOME, count - from), places[SOME];
        int32_t products[SOME];
        for (int64_t i = 0; i < some; i++) {
            places[i] = place_of(cells, place[from + i]);
            __builtin_prefetch(cells->scale + places[i]);
            __builtin_prefetch(cells->order + places[i]);
        }
        dots(query, cells->codes, places, some, cells->dim, products, bytes);
        for (int64_t i = 0; i < some; i++)
            offer(found, size, most, (Scored){(float)products[i] * cells->scale[places[i]], cells->order[places[i]]});
    }
}

/* Keeps of a cell what its signs put above `least`. base: the product with the cell's mean; fetch: whether to have the next
 * block come meanwhile, since cells lie apart. Returns what `least` is afterwards. */
INLINE float scan_cell(const Cells *cells, const Turned *turned, const Filter *filter, int64_t cell, float base, float least,
                       int fetch, Kept *kept) {
    const int64_t first = cells->starts[cell], end = cells->starts[cell + 1], size = block_size(cells->bytes);
    for (int64_t from = first / BLOCK * BLOCK; from < end; from += BLOCK) {
        float guess[BLOCK];
        const uint8_t *block = cells->signs + from / BLOCK * size;
        for (int64_t i = 0; fetch && i < size; i += 64) __builtin_prefetch(block + size + i);
        uint32_t above = (has_wide ? guess_wide : guess_any)(turned, cells->bytes, block, base, least, guess);
        if (from < first) above &= ~UINT32_C(0) << (first - from);
        if (end - from < BLOCK) above &= (UINT32_C(1) << (end - from)) - 1;
        int64_t count = kept->count;
        for (; above; above &= above - 1) { /* written whether it matches or not: that cannot be foretold */
            const int64_t i = __builtin_ctz(above);
            kept->guess[count] = guess[i], kept->place[count] = (int32_t)(from + i);
            count += matches(filter, cells->order[place_of(cells, from + i)]);
        }
        kept->count = count;
        if (count >= 2 * kept->keep) least = keep_best(kept);
    }
    return least;
}

/* The share of the k best that were probably left out, since their signs put them below `least`: what signs tell is off by
 * a normal error, whose deviation is that of the rows that were kept. found: best first. */
INLINE double probably_lost(const Cells *cells, const Turned *turned, const Kept *kept, float least, const Scored *found,
                            int64_t k) {
    const double spread = 0.603; /* sqrt(1 - 2 / pi): what of a row's rest its signs do not tell */
    double own = 0, lost = 0;
    for (int64_t i = 0; i < kept->count; i++) {
        const int64_t place = kept->place[i];
        const uint8_t *block = cells->signs + place / BLOCK * block_size(cells->bytes);
        own += (double)((const float *)(const void *)(block + BLOCK * cells->bytes))[place % BLOCK];
    }
    const double off = spread * turned->norm * own / (double)kept->count;
    for (int64_t i = 0; i < k; i++) lost += erfc(((double)found[i].score - (double)least) / (off * sqrt(2))) / 2;
    return lost / (double)k;
}

/* The best `most` matching rows of the nearest cells that hold at least `enough` rows, best first. keep > 0: by their bits
 * first, and by their codes only the `keep` best of these. *saw: rows of these cells; -1 where enough is infinite and more
 * of the k best were probably lost than may be. */
INLINE int64_t scan(const Cells *cells, const Query *query, const Turned *turned, const Filter *filter,
                    const int32_t *nearest, double enough, int64_t k, int64_t most, Kept *kept, Scored *found,
                    int64_t *saw, const int bytes) {
    enum { AT_ONCE = 16 };
    int64_t size = 0, rows = 0;
    int32_t products[AT_ONCE]; /* with the means of the next cells */
    float least = -INFINITY;
    kept->count = 0;
    for (int64_t c = 0; c < cells->cells && (double)rows < enough; c++) {
        const int64_t cell = nearest[c], first = cells->starts[cell], end = cells->starts[cell + 1];
        rows += end - first;
        if (kept->keep) {
            if (c % AT_ONCE == 0) {
                const int64_t some = LEAST(AT_ONCE, cells->cells - c);
                int64_t next[AT_ONCE];
                for (int64_t i = 0; i < some; i++) next[i] = nearest[c + i];
                dots(query, cells->means, next, some, cells->dim, products, bytes);
            }
            if (c + 1 < cells->cells) { /* what a processor fetches by itself begins too late */
                const uint8_t *next = cells->signs + cells->starts[nearest[c + 1]] / BLOCK * block_size(cells->bytes);
                for (int i = 0; i < 16; i++) __builtin_prefetch(next + 64 * i);
            }
            const float base = (float)products[c % AT_ONCE] * cells->means_scale[cell];
            least = scan_cell(cells, turned, filter, cell, base, least, !isinf(enough), kept);
            continue;
        }
        int32_t some[BLOCK];
        for (int64_t i = first, held = 0; i < end; i++) {
            if (matches(filter, cells->order[place_of(cells, i)])) some[held++] = (int32_t)i;
            if (held < BLOCK && i + 1 < end) continue;
            offer_places(cells, query, some, held, most, found, &size, bytes);
            held = 0;
        }
    }
    if (kept->count > kept->keep) least = keep_best(kept);
    if (kept->keep) offer_places(cells, query, kept->place, kept->count, most, found, &size, bytes);
    sort_heap(found, size);
    *saw = rows;
    if (kept->keep && isinf(enough) && least > -INFINITY &&
        (size < k || probably_lost(cells, turned, kept, least, found, k) > kept->may_lose))
        *saw = -1;
    return size;
}

/* The rows that a filter takes on their own: where each cell begins in them, their places and their signs, with room for
 * `most`. Returns how many they are, or -1 where there are more. */
INLINE int64_t lay(const Cells *cells, const Filter *filter, int64_t most, int64_t *starts, int32_t *at, uint8_t *signs) {
    const int64_t bytes = cells->bytes, size = block_size(bytes), floats = BLOCK * bytes;
    int64_t count = 0;
    for (int64_t c = 0; c < cells->cells; c++) {
        starts[c] = count;
        for (int64_t i = cells->starts[c]; i < cells->starts[c + 1]; i++) {
            if (!matches(filter, cells->order[i])) continue;
            if (count == most) return -1;
            at[count++] = (int32_t)i;
        }
    }
    starts[cells->cells] = count;
    for (int64_t n = 0; n < count; n++) {
        const uint8_t *from = cells->signs + at[n] / BLOCK * size;
        uint8_t *to = signs + n / BLOCK * size;
        const int64_t row = at[n] % BLOCK, own = n % BLOCK;
        if (own == 0) memset(to, 0, (size_t)size);
        for (int64_t j = 0; j < bytes; j++) to[BLOCK * j + own] = from[BLOCK * j + row];
        for (int64_t j = 0; j < 2; j++)
            memcpy(to + floats + 4 * (BLOCK * j + own), from + floats + 4 * (BLOCK * j + row), 4);
    }
    return count;
}
