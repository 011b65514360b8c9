/* Codes of many queries times codes of a block of rows, and which rows their products do not rule out. Part of _kernels.c.
 *
 * Sixteen queries share a register: four values of a row, broadcast, times four values of each of them. Each byte of a row
 * is loaded once for all queries, and no sum goes across a register. Processors with a matrix unit (AMX) multiply sixteen
 * rows by sixteen queries at once; the order of the queries' values is the one that it wants, too. With AVX2 eight share one.
 */
enum { GROUP = 64, LANES_OF_ONE = 16, TILE_ROWS = 32, TILE_FROM = 4 }; /* TILE_FROM: queries; fewer go one by one */

typedef struct {
    int64_t wide, lanes;  /* D and the number of queries, each up to the next multiple: of 64, of 16 */
    int64_t eights;       /* the number of queries, up to the next multiple of 8 */
    int8_t *packed;       /* [lanes / 16, wide / 4, 16, 4] codes of the queries, 0 beyond D and beyond them */
    int8_t *rows;         /* [TILE_ROWS, wide] room for rows that are copied */
    int32_t *product;     /* [2, TILE_ROWS, lanes] */
    int32_t shift[GROUP]; /* 128 times the sum of a query's code */
    float row_error[GROUP], row_norm[GROUP];
    float least[GROUP]; /* an upper bound under this is ruled out */
} Tile;

#ifdef HAS_VECTORS
static int has_tiles(void) { return has_wide; }
#else
static int has_tiles(void) { return 0; }
#endif

static void *aligned(int64_t size) { return aligned_alloc(64, (size_t)((size + 63) / 64 * 64)); }

INLINE int32_t *product_of(const Tile *tile, int64_t turn) { return tile->product + turn * TILE_ROWS * tile->lanes; }

static void end_tile(Tile *tile) {
    free(tile->packed);
    free(tile->rows);
    free(tile->product);
}

static int begin_tile(Tile *tile, int64_t most, int64_t dim) {
    tile->wide = (dim + 63) / 64 * 64;
    tile->lanes = (most + LANES_OF_ONE - 1) / LANES_OF_ONE * LANES_OF_ONE;
    tile->packed = aligned(tile->lanes * tile->wide);
    tile->rows = aligned(TILE_ROWS * tile->wide);
    tile->product = aligned(2 * TILE_ROWS * tile->lanes * (int64_t)sizeof(int32_t));
    if (!tile->packed || !tile->rows || !tile->product) return 0;
    /* Beyond D and beyond the last row nothing is written, and what is read there is multiplied by 0 or left alone. */
    memset(tile->rows, 0, (size_t)(TILE_ROWS * tile->wide));
    memset(tile->product, 0, (size_t)(2 * TILE_ROWS * tile->lanes) * sizeof(int32_t));
    return 1;
}

static void set_query(Tile *tile, int64_t q, const Query *query, int64_t dim) {
    int8_t *to = tile->packed + q / LANES_OF_ONE * LANES_OF_ONE * tile->wide + q % LANES_OF_ONE * 4;
    for (int64_t i = 0; i < dim; i += 4) memcpy(to + i / 4 * 64, query->code + i, (size_t)LEAST(4, dim - i));
    tile->shift[q] = query->shift, tile->row_error[q] = query->row_error, tile->row_norm[q] = query->row_norm;
    tile->least[q] = -INFINITY;
}

/* Of `many` queries, for whom set_query comes next. */
static void set_queries(Tile *tile, int64_t many) {
    tile->lanes = (many + LANES_OF_ONE - 1) / LANES_OF_ONE * LANES_OF_ONE, tile->eights = (many + 7) / 8;
    memset(tile->packed, 0, (size_t)(tile->lanes * tile->wide));
    for (int64_t q = many; q < tile->lanes; q++) {
        tile->shift[q] = 0, tile->row_error[q] = tile->row_norm[q] = 0;
        tile->least[q] = INFINITY;
    }
}

#ifdef HAS_VECTORS
/* What is written before is in memory: compilers do not know what the instructions on tiles read. */
#define WRITTEN() __asm__ volatile("" ::: "memory")
#define AMX __attribute__((target("arch=x86-64-v4,avx512vnni,avx512vpopcntdq,amx-tile,amx-int8")))

/* TILE_ROWS rows from number[0] on into tile->rows, each value XOR `turn`, zeros (XOR `turn`) after the last of `some`. */
BYTES static inline void copy_rows(const Tile *tile, const Rows *rows, const int64_t *number, int64_t some, char turn) {
    const __m512i turned = _mm512_set1_epi8(turn);
    for (int64_t r = 0; r < TILE_ROWS; r++) {
        int8_t *to = tile->rows + r * tile->wide;
        const int8_t *from = rows->codes + (r < some ? number[r] : 0) * rows->dim;
        for (int64_t j = 0; j < tile->wide; j += 64) {
            const int64_t left = r < some ? rows->dim - j : 0;
            const __mmask64 there = left >= 64 ? ~UINT64_C(0) : left > 0 ? ~UINT64_C(0) >> (64 - left) : 0;
            _mm512_store_si512(to + j, _mm512_xor_si512(_mm512_maskz_loadu_epi8(there, from + j), turned));
        }
    }
}

/* The products of 8 rows with `groups` (1 or 2) times 16 queries. */
BYTES static inline __attribute__((always_inline)) void multiply_eight(const Tile *tile, int32_t *product,
                                                                       int64_t first, int64_t group, const int groups) {
    const int8_t *row = tile->rows + first * tile->wide;
    const int8_t *own = tile->packed + group * LANES_OF_ONE * tile->wide;
    __m512i sum[8][2];
    for (int g = 0; g < groups; g++) {
        const __m512i shift = _mm512_loadu_si512(tile->shift + (group + g) * LANES_OF_ONE);
        for (int r = 0; r < 8; r++) sum[r][g] = _mm512_sub_epi32(_mm512_setzero_si512(), shift);
    }
    for (int64_t j = 0; j < tile->wide; j += 4) {
        __m512i code[2];
        for (int g = 0; g < groups; g++) code[g] = _mm512_load_si512(own + g * LANES_OF_ONE * tile->wide + j * 16);
        for (int r = 0; r < 8; r++) {
            int32_t four;
            memcpy(&four, row + r * tile->wide + j, 4);
            const __m512i same = _mm512_set1_epi32(four);
            for (int g = 0; g < groups; g++) sum[r][g] = _mm512_dpbusd_epi32(sum[r][g], same, code[g]);
        }
    }
    for (int r = 0; r < 8; r++)
        for (int g = 0; g < groups; g++)
            _mm512_store_si512(product + (first + r) * tile->lanes + (group + g) * LANES_OF_ONE, sum[r][g]);
}

BYTES static void multiply_bytes(const Tile *tile, const Rows *rows, const int64_t *number, int64_t some,
                                 int64_t turn) {
    int32_t *product = product_of(tile, turn);
    copy_rows(tile, rows, number, some, (char)0x80); /* one side without signs: code + 128 */
    for (int64_t g = 0, groups = tile->lanes / LANES_OF_ONE; g < groups; g += 2)
        for (int64_t first = 0; first < TILE_ROWS; first += 8)
            if (g + 1 < groups) multiply_eight(tile, product, first, g, 2);
            else multiply_eight(tile, product, first, g, 1);
}

AMX static void begin_matrix(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
    __asm__ volatile("" : : "r"(&shape) : "memory");
    _tile_loadconfig(&shape);
}

AMX static void end_matrix(void) { _tile_release(); }

AMX static void multiply_matrix(const Tile *tile, const Rows *rows, const int64_t *number, int64_t some,
                                int64_t turn) {
    const int64_t wide = tile->wide, across = tile->lanes * 4, one = LANES_OF_ONE * wide;
    const int8_t *from = tile->rows;
    if (some == TILE_ROWS && wide == rows->dim && number[TILE_ROWS - 1] - number[0] == TILE_ROWS - 1)
        from = rows->codes + number[0] * wide; /* ascending, so one after the other */
    else copy_rows(tile, rows, number, some, 0);
    WRITTEN();
    /* Products of 32 rows with 32 queries in four tiles, since an addition to the same one has to wait for the last. */
    for (int64_t g = 0, groups = tile->lanes / LANES_OF_ONE; g < groups; g += 2) {
        const int8_t *own = tile->packed + g * one;
        int32_t *to = product_of(tile, turn) + g * LANES_OF_ONE;
        const int both = g + 1 < groups;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t j = 0; j < wide; j += 64) {
            _tile_loadd(6, own + j * 16, 64);
            _tile_loadd(4, from + j, wide);
            _tile_dpbssd(0, 4, 6);
            _tile_loadd(5, from + 16 * wide + j, wide);
            _tile_dpbssd(1, 5, 6);
            if (both) {
                _tile_loadd(7, own + one + j * 16, 64);
                _tile_dpbssd(2, 4, 7);
                _tile_dpbssd(3, 5, 7);
            }
        }
        _tile_stored(0, to, across);
        _tile_stored(1, to + 16 * tile->lanes, across);
        if (both) {
            _tile_stored(2, to + 16, across);
            _tile_stored(3, to + 16 * tile->lanes + 16, across);
        }
    }
}

/* For each row of the tile a bit for each query that it is not ruled out for; out is 0 before. */
BYTES static void not_ruled_out(const Tile *tile, const int32_t *product, const float *scale, const float *error,
                                const float *norm, uint16_t out[TILE_ROWS][GROUP / LANES_OF_ONE]) {
    for (int64_t g = 0; g < tile->lanes / LANES_OF_ONE; g++) {
        const __m512 row_error = _mm512_loadu_ps(tile->row_error + g * LANES_OF_ONE);
        const __m512 row_norm = _mm512_loadu_ps(tile->row_norm + g * LANES_OF_ONE);
        const __m512 least = _mm512_loadu_ps(tile->least + g * LANES_OF_ONE);
        for (int64_t i = 0; i < TILE_ROWS; i++) {
            __m512 high = _mm512_mul_ps(row_error, _mm512_set1_ps(error[i]));
            high = _mm512_fmadd_ps(row_norm, _mm512_set1_ps(norm[i]), high);
            const __m512 whole = _mm512_cvtepi32_ps(_mm512_load_si512(product + i * tile->lanes + g * LANES_OF_ONE));
            high = _mm512_fmadd_ps(whole, _mm512_set1_ps(scale[i]), high);
            out[i][g] = _mm512_cmp_ps_mask(high, least, _CMP_GE_OQ);
        }
    }
}

/* The products of 4 rows with `eights` (1 or 2) times 8 queries, of those from number 8 `eight` on. small: the rows' values
 * are of -SMALL to SMALL: with SMALL + 1 added they have no signs, and of four times two products the sum fits 16 bits. */
WIDE static inline __attribute__((always_inline)) void multiply_four(const Tile *tile, int32_t *product, int64_t first,
                                                                      int64_t eight, const int eights, const int small) {
    enum { TOGETHER = 16 }; /* values; `wide` is a multiple of it */
    const int8_t *row = tile->rows + first * tile->wide, *own = tile->packed + eight * 8 * tile->wide;
    const __m256i up = _mm256_set1_epi8(SMALL + 1), one = _mm256_set1_epi16(1);
    __m256i sum[4][2];
    for (int e = 0; e < eights; e++) {
        const __m256i shift = _mm256_loadu_si256((const void *)(tile->shift + 8 * (eight + e))), zero = _mm256_setzero_si256();
        for (int r = 0; r < 4; r++) /* shift / 8: SMALL + 1 times the sum of the code */
            sum[r][e] = small ? _mm256_sub_epi32(zero, _mm256_srai_epi32(shift, 3)) : zero;
    }
    for (int64_t from = 0; from < tile->wide; from += TOGETHER) {
        __m256i part[4][2];
        for (int64_t j = from; j < from + TOGETHER; j += 4) {
            __m256i code[2], size[2];
            for (int e = 0; e < eights; e++) {
                code[e] = _mm256_load_si256((const void *)(own + j * 16 + e * 32));
                size[e] = _mm256_abs_epi8(code[e]);
            }
            for (int r = 0; r < 4; r++) {
                int32_t four;
                memcpy(&four, row + r * tile->wide + j, 4);
                const __m256i same = _mm256_set1_epi32(four), plain = _mm256_add_epi8(same, up);
                for (int e = 0; e < eights; e++) {
                    if (!small) {
                        sum[r][e] = add_pairs(sum[r][e], size[e], code[e], same);
                        continue;
                    }
                    const __m256i pairs = _mm256_maddubs_epi16(plain, code[e]);
                    part[r][e] = j == from ? pairs : _mm256_add_epi16(part[r][e], pairs);
                }
            }
        }
        for (int r = 0; small && r < 4; r++)
            for (int e = 0; e < eights; e++) sum[r][e] = _mm256_add_epi32(sum[r][e], _mm256_madd_epi16(part[r][e], one));
    }
    for (int r = 0; r < 4; r++)
        for (int e = 0; e < eights; e++)
            _mm256_store_si256((void *)(product + (first + r) * tile->lanes + 8 * (eight + e)), sum[r][e]);
}

/* By AVX2. */
WIDE static inline __attribute__((always_inline)) void multiply_by_pairs(const Tile *tile, const Rows *rows,
                                                                         const int64_t *number, int64_t some,
                                                                         int64_t turn, const int small) {
    int32_t *product = product_of(tile, turn);
    for (int64_t r = 0; r < some; r++)
        memcpy(tile->rows + r * tile->wide, rows->codes + number[r] * rows->dim, (size_t)rows->dim);
    for (int64_t eight = 0; eight < tile->eights; eight += 2)
        for (int64_t first = 0; first < some; first += 4)
            if (eight + 1 < tile->eights) multiply_four(tile, product, first, eight, 2, small);
            else multiply_four(tile, product, first, eight, 1, small);
}

WIDE static void multiply_wide(const Tile *tile, const Rows *rows, const int64_t *number, int64_t some, int64_t turn) {
    multiply_by_pairs(tile, rows, number, some, turn, 0);
}

WIDE static void multiply_small_wide(const Tile *tile, const Rows *rows, const int64_t *number, int64_t some) {
    multiply_by_pairs(tile, rows, number, some, 0, 1);
}

/* The products, turn 0, of rows whose values are of -SMALL to SMALL. */
static void multiply_small(const Tile *tile, const Rows *rows, const int64_t *number, int64_t some) {
    if (has_bytes) multiply_bytes(tile, rows, number, some, 0);
    else multiply_small_wide(tile, rows, number, some);
}

/* See not_ruled_out. */
WIDE static void not_ruled_out_wide(const Tile *tile, const int32_t *product, const float *scale, const float *error,
                                    const float *norm, uint16_t out[TILE_ROWS][GROUP / LANES_OF_ONE]) {
    for (int64_t e = 0; e < tile->eights; e++) {
        const __m256 row_error = _mm256_loadu_ps(tile->row_error + 8 * e), row_norm = _mm256_loadu_ps(tile->row_norm + 8 * e);
        const __m256 least = _mm256_loadu_ps(tile->least + 8 * e);
        for (int64_t i = 0; i < TILE_ROWS; i++) {
            __m256 high = _mm256_mul_ps(row_error, _mm256_set1_ps(error[i]));
            high = _mm256_fmadd_ps(row_norm, _mm256_set1_ps(norm[i]), high);
            const __m256 whole = _mm256_cvtepi32_ps(_mm256_load_si256((const void *)(product + i * tile->lanes + 8 * e)));
            high = _mm256_fmadd_ps(whole, _mm256_set1_ps(scale[i]), high);
            const uint16_t above = (uint16_t)_mm256_movemask_ps(_mm256_cmp_ps(high, least, _CMP_GE_OQ));
            out[i][e / 2] |= (uint16_t)(above << (e % 2 * 8));
        }
    }
}
#else
static void multiply_small(const Tile *tile, const Rows *rows, const int64_t *number, int64_t some) {
    (void)tile, (void)rows, (void)number, (void)some;
}
#endif
