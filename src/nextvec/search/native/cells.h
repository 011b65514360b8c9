/* Cells: candidates from the nearest ones. Part of _kernels.c. */
typedef struct {
    const int32_t *order;  /* [N] row numbers cell by cell */
    const int64_t *starts; /* [C + 1] */
    const int8_t *codes;   /* [N, D] in that order */
    const float *scale;
    const int8_t *means;   /* [C, D] codes of the cells' means */
    const float *means_scale;
    const uint64_t *signs; /* [N, words + 1] see below */
    const int8_t *flips;   /* [2, D] 1 or -1 */
    int64_t cells, dim, words;
} Cells;

typedef struct {
    uint16_t key;
    int32_t cell;
} Keyed;

/* By key, equal ones as they were: byte by byte, there and back again. */
INLINE void sort_keyed(Keyed *items, Keyed *room, int64_t count) {
    for (int shift = 0; shift < 16; shift += 8) {
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

/* The cells, that of the best mean first, as far as 65,536 steps between worst and best tell them apart. Room: products
 * and scores [C], items [2 C]. */
INLINE int64_t rank(const Cells *cells, const Query *query, int32_t *products, float *scores, Keyed *items,
                    int64_t *order, const int bytes) {
    float low = 0, high = 0;
    (bytes ? dots_bytes : dots_any)(query, cells->means, NULL, cells->cells, cells->dim, products);
    for (int64_t c = 0; c < cells->cells; c++) scores[c] = (float)products[c] * cells->means_scale[c];
    if (cells->cells) extremes(scores, cells->cells, &low, &high);
    float step = high > low ? 65535 / (high - low) : 0;
    for (int64_t c = 0; c < cells->cells; c++)
        items[c] = (Keyed){(uint16_t)LEAST((high - scores[c]) * step, 65535.0f), (int32_t)c};
    sort_keyed(items, items + cells->cells, cells->cells);
    for (int64_t c = 0; c < cells->cells; c++) order[c] = items[c].cell;
    return cells->cells;
}

/* Rows of the nearest cells, at least `enough`, and how many of them match. */
INLINE void share(const Cells *cells, const Filter *filter, const int64_t *order, int64_t close, int64_t enough,
                  int64_t *counts) {
    int64_t rows = 0, matching = 0;
    memset(counts, 0, 4 * sizeof *counts);
    for (int64_t c = 0; c < cells->cells && rows < enough; c++) {
        int64_t first = cells->starts[order[c]], end = cells->starts[order[c] + 1];
        for (int64_t i = first; i < end; i++) matching += matches(filter, cells->order[i]);
        if (rows < close) counts[0] = rows + end - first, counts[1] = matching;
        rows += end - first;
    }
    counts[2] = rows, counts[3] = matching;
}

/* ---- a bit per dimension
 *
 * A row is its cell's mean and a rest r; of the rest, turned by a fixed rotation, `signs` has the signs b (+1 or -1), and
 *     q.r ~ <q', b> |r|^2 / <r', b>
 * for a turned query q', after RaBitQ (Gao and Long 2024, arXiv 2405.12497). For <q', b> four bits per dimension of q'
 * are enough: products become counts of bits. In the last word of a row are two float32: |r|^2 / <r', b>, and that times
 * twice the number of bits that are set. */
enum { PLANES = 4, LEVELS = (1 << PLANES) - 1, BLOCK = 128 };

typedef struct {
    float *turned;    /* [D] */
    uint64_t *planes; /* [PLANES, words] */
    float step, low, sum; /* q' ~ low + step * level, in the unit of the query's code; sum of q' */
} Turned;

INLINE void butterfly(float *values, int64_t size) {
    for (int64_t half = 1; half < size; half *= 2)
        for (int64_t first = 0; first < size; first += 2 * half)
            for (int64_t i = first; i < first + half; i++) {
                float a = values[i], b = values[i + half];
                values[i] = a + b, values[i + half] = a - b;
            }
    float scale = 1.0f / sqrtf((float)size);
    for (int64_t i = 0; i < size; i++) values[i] *= scale;
}

/* The rotation: twice, signs flipped and Hadamard's transform of the first and of the last 2^n values. */
INLINE void turn(const int8_t *flips, int64_t dim, float *values) {
    int64_t size = 1;
    while (2 * size <= dim) size *= 2;
    for (int round = 0; round < 2; round++) {
        for (int64_t i = 0; i < dim; i++) values[i] *= (float)flips[round * dim + i];
        butterfly(values, size);
        if (size < dim) butterfly(values + dim - size, size);
    }
}

INLINE int64_t turn_query(const Cells *cells, const Query *query, Turned *out, const int bytes) {
    (void)bytes;
    float *values = out->turned, low, high;
    for (int64_t i = 0; i < cells->dim; i++) values[i] = query->vector[i] / query->unit;
    turn(cells->flips, cells->dim, values);
    extremes(values, cells->dim, &low, &high);
    out->sum = 0;
    for (int64_t i = 0; i < cells->dim; i++) out->sum += values[i];
    out->low = low, out->step = (high - low) / LEVELS;
    float to_level = out->step > 0 ? 1 / out->step : 0;
    memset(out->planes, 0, (size_t)(PLANES * cells->words) * sizeof *out->planes);
    for (int64_t i = 0; i < cells->dim; i++) {
        unsigned level = (unsigned)((values[i] - low) * to_level + 0.5f);
        for (int p = 0; p < PLANES; p++)
            out->planes[p * cells->words + i / 64] |= (uint64_t)((level >> p) & 1) << (i % 64);
    }
    return cells->dim;
}

/* For each of `count` rows, the sum of the query's levels where its bits are set. words: a multiple of 4. */
VERSIONS static void levels_any(const uint64_t *planes, int64_t words, const uint64_t *signs, int64_t count,
                                int32_t *out) {
    for (int64_t i = 0; i < count; i++, signs += words + 1) {
        int64_t sum = 0;
        for (int64_t w = 0; w < words; w++)
            for (int p = 0; p < PLANES; p++)
                sum += (int64_t)__builtin_popcountll(signs[w] & planes[p * words + w]) << p;
        out[i] = (int32_t)sum;
    }
}

/* The products of a query and `count` rows of a cell, as their bits tell them; and a bit per row, set where that is more
 * than `least`. base: the product with the cell's mean. */
VERSIONS static void guess_any(const Turned *turned, int64_t words, const uint64_t *signs, int64_t count, float base,
                               float least, float *guess, uint8_t *above) {
    int32_t sums[BLOCK];
    levels_any(turned->planes, words, signs, count, sums);
    memset(above, 0, (size_t)(count + 7) / 8);
    for (int64_t i = 0; i < count; i++) {
        float own[2];
        memcpy(own, signs + i * (words + 1) + words, sizeof own);
        guess[i] = base + own[0] * (2 * turned->step * (float)sums[i] - turned->sum) + own[1] * turned->low;
        above[i / 8] |= (uint8_t)((guess[i] > least) << (i % 8));
    }
}

#ifdef HAS_VECTORS
/* Two planes beside each other in one register; eight rows at a time, so that adding up lanes costs little. */
BYTES static inline __m512i levels_lanes(const uint64_t *planes, int64_t words, const uint64_t *bits) {
    const __m512i low = _mm512_setr_epi64(0, 0, 0, 0, 1, 1, 1, 1), high = _mm512_setr_epi64(2, 2, 2, 2, 3, 3, 3, 3);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t w = 0; w < words; w += 4) {
        __m512i own = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)(bits + w)));
        __m512i one = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(planes + w))),
            _mm256_loadu_si256((const void *)(planes + words + w)), 1);
        __m512i two = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(planes + 2 * words + w))),
            _mm256_loadu_si256((const void *)(planes + 3 * words + w)), 1);
        one = _mm512_sllv_epi64(_mm512_popcnt_epi64(_mm512_and_si512(own, one)), low);
        two = _mm512_sllv_epi64(_mm512_popcnt_epi64(_mm512_and_si512(own, two)), high);
        sum = _mm512_add_epi64(sum, _mm512_add_epi64(one, two));
    }
    return sum;
}

BYTES static inline __m512i pairs(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

BYTES static inline __m512i quarters(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
}

BYTES static void levels_bytes(const uint64_t *planes, int64_t words, const uint64_t *signs, int64_t count,
                               int32_t *out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m512i own[8];
        for (int j = 0; j < 8; j++) own[j] = levels_lanes(planes, words, signs + (i + j) * (words + 1));
        __m512i first = quarters(pairs(own[0], own[1]), pairs(own[2], own[3]));
        __m512i second = quarters(pairs(own[4], own[5]), pairs(own[6], own[7]));
        _mm256_storeu_si256((void *)(out + i), _mm512_cvtepi64_epi32(quarters(first, second)));
    }
    for (; i < count; i++)
        out[i] = (int32_t)_mm512_reduce_add_epi64(levels_lanes(planes, words, signs + i * (words + 1)));
}

/* See guess_any; eight rows at a time. */
BYTES static void guess_bytes(const Turned *turned, int64_t words, const uint64_t *signs, int64_t count, float base,
                              float least, float *guess, uint8_t *above) {
    int32_t sums[BLOCK];
    levels_bytes(turned->planes, words, signs, count, sums);
    const __m256i at = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32((int)words + 1));
    for (int64_t i = 0; i < count; i += 8) {
        const __mmask8 there = count - i < 8 ? (__mmask8)((1 << (count - i)) - 1) : 0xff;
        const void *first = signs + i * (words + 1) + words;
        const __m512i own = _mm512_mask_i32gather_epi64(_mm512_setzero_si512(), there, at, first, 8);
        const __m256 one = _mm256_castsi256_ps(_mm512_cvtepi64_epi32(own));
        const __m256 two = _mm256_castsi256_ps(_mm512_cvtepi64_epi32(_mm512_srli_epi64(own, 32)));
        const __m256 sum = _mm256_cvtepi32_ps(_mm256_maskz_loadu_epi32(there, sums + i));
        __m256 made = _mm256_fmsub_ps(_mm256_set1_ps(2 * turned->step), sum, _mm256_set1_ps(turned->sum));
        made = _mm256_fmadd_ps(one, made, _mm256_fmadd_ps(two, _mm256_set1_ps(turned->low), _mm256_set1_ps(base)));
        _mm256_mask_storeu_ps(guess + i, there, made);
        above[i / 8] = (uint8_t)_mm256_mask_cmp_ps_mask(there, made, _mm256_set1_ps(least), _CMP_GT_OQ);
    }
}
#else
#define guess_bytes guess_any
#endif

/* Reorders so that the `keep` best are the first ones; the lowest score among them. 1 <= keep <= count */
INLINE float keep_best(Scored *items, int64_t count, int64_t keep) {
    int64_t low = 0, high = count - 1;
    while (low < high) {
        float pivot = items[low + (high - low) / 2].score;
        int64_t i = low, j = high;
        while (i <= j) {
            while (items[i].score > pivot) i++;
            while (items[j].score < pivot) j--;
            if (i <= j) {
                Scored moved = items[i];
                items[i++] = items[j];
                items[j--] = moved;
            }
        }
        if (keep - 1 <= j) high = j;
        else if (keep - 1 >= i) low = i;
        else break;
    }
    float least = items[0].score;
    for (int64_t i = 1; i < keep; i++) least = LEAST(least, items[i].score);
    return least;
}

INLINE float code_score(const Cells *cells, const Query *query, int64_t place, const int bytes) {
    return (float)dot8(query, cells->codes + place * cells->dim, cells->dim, bytes) * cells->scale[place];
}

/* The best `most` matching rows of the nearest cells that hold at least `enough` rows. keep > 0: by their bits first,
 * and by their codes only the `keep` best of these. Room: items [2 keep]. *saw: rows of these cells. */
INLINE int64_t scan(const Cells *cells, const Query *query, const Turned *turned, const Filter *filter,
                    const int64_t *nearest, double enough, int64_t keep, int64_t most, Scored *items, Scored *found,
                    int64_t *saw, const int bytes) {
    int64_t size = 0, rows = 0, count = 0;
    float least = -INFINITY;
    for (int64_t c = 0; c < cells->cells && (double)rows < enough; c++) {
        const int64_t cell = nearest[c], first = cells->starts[cell], end = cells->starts[cell + 1];
        rows += end - first;
        if (!keep) {
            for (int64_t i = first; i < end; i++)
                if (matches(filter, cells->order[i]))
                    offer(found, &size, most, (Scored){code_score(cells, query, i, bytes), cells->order[i]});
            continue;
        }
        if (c + 1 < cells->cells) { /* what a processor fetches by itself begins too late */
            const char *next = (const char *)(cells->signs + cells->starts[nearest[c + 1]] * (cells->words + 1));
            for (int i = 0; i < 16; i++) __builtin_prefetch(next + 64 * i);
        }
        float base = (float)dot8(query, cells->means + cell * cells->dim, cells->dim, bytes) * cells->means_scale[cell];
        for (int64_t from = first; from < end; from += BLOCK) {
            int64_t some = end - from < BLOCK ? end - from : BLOCK;
            const uint64_t *signs = cells->signs + from * (cells->words + 1);
            float guess[BLOCK];
            uint8_t above[BLOCK / 8];
            (bytes ? guess_bytes : guess_any)(turned, cells->words, signs, some, base, least, guess, above);
            for (int64_t eight = 0; eight < some; eight += 8)
                for (unsigned left = above[eight / 8]; left; left &= left - 1) {
                    const int64_t i = eight + __builtin_ctz(left);
                    /* `least` may have risen since. */
                    if (!(guess[i] > least) || !matches(filter, cells->order[from + i])) continue;
                    items[count++] = (Scored){guess[i], (int32_t)(from + i)};
                    if (count == 2 * keep) {
                        least = keep_best(items, count, keep);
                        count = keep;
                    }
                }
        }
    }
    if (count > keep) keep_best(items, count, keep), count = keep;
    for (int64_t from = 0; from < count; from += BLOCK) {
        int64_t some = count - from < BLOCK ? count - from : BLOCK, places[BLOCK];
        int32_t products[BLOCK];
        for (int64_t i = 0; i < some; i++) places[i] = items[from + i].row;
        (bytes ? dots_bytes : dots_any)(query, cells->codes, places, some, cells->dim, products);
        for (int64_t i = 0; i < some; i++)
            offer(found, &size, most,
                  (Scored){(float)products[i] * cells->scale[places[i]], cells->order[places[i]]});
    }
    *saw = rows;
    return size;
}
