/* Rows, queries and filters, and the best of many. Part of _kernels.c. */
/* One build serves old and new processors: the loader takes the version that fits. Functions that multiply codes exist
 * twice besides: BYTES is their version for processors that add up products of bytes in one instruction (a third of the
 * time); `bytes` says that this is one and is a constant where they are inlined. WIDE: written for AVX2, for processors of
 * the years between (and for tables of signs on ARM); used where `has_wide` says so. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define VERSIONS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define BYTES __attribute__((target("arch=x86-64-v4,avx512vnni")))
#define WIDE __attribute__((target("arch=x86-64-v3")))
#define HAS_BYTES (__builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni"))
#define HAS_WIDE (__builtin_cpu_supports("x86-64-v3"))
#define HAS_VECTORS
#define FAST_PRODUCTS 1 /* as fast as any library's */
#define WIDE_NAME "AVX2"
#include <immintrin.h>
#else
#define FAST_PRODUCTS 0
#define WIDE_NAME "NEON"
#define VERSIONS
#define BYTES
#define HAS_BYTES 0
#ifdef __aarch64__ /* where compilers make vectors of everything else but tables */
#define HAS_WIDE 1
#include <arm_neon.h>
#else
#define HAS_WIDE 0
#endif
#endif
static int has_wide, has_bytes, has_matrix; /* what is used */
#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define AHEAD 3 /* rows that are fetched while others are scored */
/* Not fminf and fmaxf: what these say of NaN, which never comes here, makes them calls where these are instructions. */
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))

typedef struct {
    float score;
    int32_t row;
} Scored;

typedef struct {
    const float *vectors;   /* [N, D] */
    const int8_t *codes;    /* [N, D] */
    const float *scale, *error, *norm; /* [N] */
    const uint64_t *check;  /* [N] sums of each vector's 32-bit words */
    float likely_error, likely_norm; /* of all rows the largest, times the share of it that is likely */
    int64_t rows, dim;
} Rows;

typedef struct {
    float *vector;
    int8_t *code;
    float unit, row_error, row_norm; /* unit: what the code is multiplied by */
    int32_t shift; /* 128 times the sum of the code */
} Query;

/* Which rows match. ALL; BITS: a bit per row; INTS, FLOATS: low <= value <= high, and a bit per row in valid unless
 * it is NULL; CODES: the code is low or, where low < 0, table[code] is set; code < 0 for rows without a value; RANKS:
 * low <= rank <= high, of 16 bits, and table[rank - low] is set, where there is one. */
enum { ALL, BITS, INTS, FLOATS, CODES, RANKS };
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
    if (filter->kind == BITS) return bit(filter->data, row); /* nearly always */
    switch (filter->kind) {
    case INTS: {
        int64_t value = ((const int64_t *)filter->data)[row];
        return (value >= filter->low) & (value <= filter->high) && (!filter->extra || bit(filter->extra, row));
    }
    case FLOATS: {
        double value = ((const double *)filter->data)[row];
        return (value >= filter->low_float) & (value <= filter->high_float) &&
               (!filter->extra || bit(filter->extra, row));
    }
    case RANKS: {
        uint16_t rank = ((const uint16_t *)filter->data)[row];
        return (rank >= filter->low) & (rank <= filter->high) && (!filter->extra || filter->extra[rank - filter->low]);
    }
    default: {
        int32_t code = ((const int32_t *)filter->data)[row];
        return filter->low >= 0 ? code == filter->low : code >= 0 && filter->extra[code];
    }
    }
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

/* The least and the greatest of `count` values, at least one. */
INLINE void extremes(const float *values, int64_t count, float *low, float *high) {
    float least[LANES], most[LANES];
    int64_t i = 0;
    for (int j = 0; j < LANES; j++) least[j] = most[j] = values[0];
    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; j++)
            least[j] = LEAST(least[j], values[i + j]), most[j] = MOST(most[j], values[i + j]);
    for (; i < count; i++) least[0] = LEAST(least[0], values[i]), most[0] = MOST(most[0], values[i]);
    for (int j = 1; j < LANES; j++) least[0] = LEAST(least[0], least[j]), most[0] = MOST(most[0], most[j]);
    *low = least[0], *high = most[0];
}

/* At least `least`, a value that k or more of `count` values reach, and hardly more than k: closer with every turn, of which
 * more are needed where a few values lie far above all others. 1 <= k <= count */
INLINE float nearly_best(const float *values, int64_t count, int64_t k, float least, int turns) {
    float low, high;
    extremes(values, count, &low, &high);
    low = MOST(low, least);
    for (int turn = 0; turn < turns && low < high; turn++) {
        const float middle = low + (high - low) / 2;
        int32_t above = 0;
        if (!(middle > low)) break; /* no float between them, or one of them is infinite */
        for (int64_t i = 0; i < count; i++) above += values[i] >= middle;
        if (above >= k) low = middle;
        else high = middle;
        if (above == k) break;
    }
    return low;
}
