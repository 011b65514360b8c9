/* A bit per dimension. Part of _kernels.c.
 *
 * A row is its cell's mean and a rest r; of the rest, turned by a fixed rotation, the signs b (+1 or -1) are kept, and
 *     q.r ~ <q', b> |r|^2 / <r', b>
 * for a turned query q', after RaBitQ (Gao and Long 2024, arXiv 2405.12497). For <q', b> four bits per dimension of q' are
 * enough. Rows lie in blocks of 32: the bits of eight dimensions of all rows, those of the next eight and so on, then two
 * float32 of all rows: |r|^2 / <r', b>, and that times twice the number of bits that are set. So four bits of 32 rows are
 * looked up in a table of a query's sums at once, in a register (as product quantisation does, Andre et al. 2015). */
enum { BLOCK = 32, PLANES = 4, LEVELS = (1 << PLANES) - 1, SPAN = 512 /* bytes of a row whose sum fits 16 bits */ };

typedef struct {
    float *turned;   /* [D] */
    uint8_t *levels; /* [8 bytes]: q' ~ low + step * level, in the unit of the query's code; 0 beyond D */
    uint8_t *tables; /* [2 bytes, 16]: for each four dimensions the sum of the levels whose bits are set; or, where nothing
                        looks them up, [PLANES, bytes]: the bits of the levels */
    float step, low, sum, norm; /* sum and length of q' */
} Turned;

/* What `guess` takes; bytes: of a row's bits, an even number. */
INLINE int64_t block_size(int64_t bytes) { return BLOCK * (bytes + 8); }

/* Hadamard's transform of groups of eight. */
INLINE void turn_eight_any(float *values, int64_t size) {
    for (int64_t half = 1; half < LEAST(8, size); half *= 2)
        for (int64_t first = 0; first < size; first += 2 * half)
            for (int64_t i = first; i < first + half; i++) {
                float a = values[i], b = values[i + half];
                values[i] = a + b, values[i + half] = a - b;
            }
}

#ifdef HAS_VECTORS
WIDE static void turn_eight_wide(float *values, int64_t size) {
    const __m256 one = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1), two = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1);
    const __m256 four = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);
    for (int64_t i = 0; i < size; i += 8) {
        __m256 own = _mm256_loadu_ps(values + i);
        own = _mm256_fmadd_ps(own, one, _mm256_permute_ps(own, 0xb1));
        own = _mm256_fmadd_ps(own, two, _mm256_permute_ps(own, 0x4e));
        own = _mm256_fmadd_ps(own, four, _mm256_permute2f128_ps(own, own, 1));
        _mm256_storeu_ps(values + i, own);
    }
}
#else
#define turn_eight_wide turn_eight_any
#endif

INLINE void butterfly(float *values, int64_t size) {
    if (has_wide && size >= 8) turn_eight_wide(values, size);
    else turn_eight_any(values, size);
    for (int64_t half = 8; half < size; half *= 2)
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

INLINE void set_planes(Turned *turned, int64_t bytes) {
    memset(turned->tables, 0, (size_t)(PLANES * bytes));
    for (int64_t i = 0; i < 8 * bytes; i++)
        for (int p = 0; p < PLANES; p++)
            turned->tables[p * bytes + i / 8] |= (uint8_t)(((turned->levels[i] >> p) & 1) << (i % 8));
}

#ifdef HAS_VECTORS
/* Both tables of a byte at once. */
WIDE static void set_tables(Turned *turned, int64_t bytes) {
    const __m256i lanes = _mm256_setr_epi64x(0, 0, 0x0404040404040404, 0x0404040404040404), one = _mm256_set1_epi8(1);
    const __m256i value = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __m256i with[4], place[4];
    for (int b = 0; b < 4; b++) {
        const __m256i bit = _mm256_set1_epi8((char)(1 << b));
        with[b] = _mm256_cmpeq_epi8(_mm256_and_si256(value, bit), bit);
        place[b] = b ? _mm256_add_epi8(place[b - 1], one) : lanes;
    }
    for (int64_t j = 0; j < bytes; j++) {
        int64_t eight;
        memcpy(&eight, turned->levels + 8 * j, 8);
        const __m256i levels = _mm256_set1_epi64x(eight);
        __m256i sum = _mm256_setzero_si256();
        for (int b = 0; b < 4; b++)
            sum = _mm256_add_epi8(sum, _mm256_and_si256(with[b], _mm256_shuffle_epi8(levels, place[b])));
        _mm256_storeu_si256((void *)(turned->tables + 32 * j), sum);
    }
}
#else
INLINE void set_tables(Turned *turned, int64_t bytes) {
    for (int64_t i = 0; i < 2 * bytes; i++)
        for (int v = 0; v < 16; v++) {
            uint8_t sum = 0;
            for (int b = 0; b < 4; b++) sum = (uint8_t)(sum + ((v >> b) & 1) * turned->levels[4 * i + b]);
            turned->tables[16 * i + v] = sum;
        }
}
#endif

VERSIONS static void turn_query(const Query *query, const int8_t *flips, int64_t dim, int64_t bytes, Turned *out) {
    float *values = out->turned, low, high, sum[LANES] = {0};
    for (int64_t i = 0; i < dim; i++) values[i] = query->vector[i] / query->unit;
    out->norm = (float)sqrt(dot64(query->vector, query->vector, dim, NULL)) / query->unit; /* turning leaves it */
    turn(flips, dim, values);
    extremes(values, dim, &low, &high);
    out->low = low, out->step = (high - low) / LEVELS;
    const float to_level = out->step > 0 ? 1 / out->step : 0;
    memset(out->levels, 0, (size_t)(8 * bytes));
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        int32_t level[LANES];
        for (int j = 0; j < LANES; j++) level[j] = (int32_t)((values[i + j] - low) * to_level + 0.5f);
        for (int j = 0; j < LANES; j++) out->levels[i + j] = (uint8_t)level[j];
        for (int j = 0; j < LANES; j++) sum[j] += values[i + j];
    }
    for (int64_t j = i; j < dim; j++) out->levels[j] = (uint8_t)(int32_t)((values[j] - low) * to_level + 0.5f);
    for (; i < dim; i++) sum[0] += values[i];
    for (int j = 1; j < LANES; j++) sum[0] += sum[j];
    out->sum = sum[0];
    if (has_wide) set_tables(out, bytes);
    else set_planes(out, bytes);
}

/* The sums of levels where bits are set, of each row of a block: eight rows in a word, a byte each. */
INLINE void sums_any(const uint8_t *planes, const uint8_t *block, int64_t bytes, int32_t *sums) {
    enum { WORDS = BLOCK / 8 };
    const uint64_t ones = ~UINT64_C(0) / 255, low = ~UINT64_C(0) / 257; /* 1 in each byte; 0xff in every second one */
    for (int64_t from = 0; from < bytes; from += SPAN) {
        uint64_t even[WORDS] = {0}, odd[WORDS] = {0}; /* of 16 bits */
        for (int64_t j = from; j < LEAST(bytes, from + SPAN); j++) {
            uint64_t own[WORDS], total[WORDS] = {0};
            memcpy(own, block + BLOCK * j, sizeof own);
            for (int p = 0; p < PLANES; p++)
                for (int g = 0; g < WORDS; g++) { /* how many bits are set in both */
                    uint64_t both = own[g] & (planes[p * bytes + j] * ones);
                    both -= (both >> 1) & (0x55 * ones);
                    both = (both & (0x33 * ones)) + ((both >> 2) & (0x33 * ones));
                    total[g] += ((both + (both >> 4)) & (0x0f * ones)) << p;
                }
            for (int g = 0; g < WORDS; g++) even[g] += total[g] & low, odd[g] += (total[g] >> 8) & low;
        }
        for (int g = 0; g < WORDS; g++)
            for (int i = 0; i < 4; i++) {
                sums[8 * g + 2 * i] += (int32_t)((even[g] >> (16 * i)) & UINT16_MAX);
                sums[8 * g + 2 * i + 1] += (int32_t)((odd[g] >> (16 * i)) & UINT16_MAX);
            }
    }
}

INLINE uint32_t guess_of(const Turned *turned, const int32_t *sums, const float *own, float base, float least, float *guess) {
    uint32_t above = 0;
    for (int r = 0; r < BLOCK; r++)
        guess[r] = base + own[r] * (2 * turned->step * (float)sums[r] - turned->sum) + own[BLOCK + r] * turned->low;
    for (int r = 0; r < BLOCK; r++) above |= (uint32_t)(guess[r] > least) << r;
    return above;
}

/* The products of a query and the rows of a block, as their bits tell them; the result has a bit for each row for which that
 * is more than `least`. base: the product with the cell's mean. */
VERSIONS static uint32_t guess_any(const Turned *turned, int64_t bytes, const uint8_t *block, float base, float least,
                                   float *guess) {
    int32_t sums[BLOCK] = {0};
    sums_any(turned->tables, block, bytes, sums);
    return guess_of(turned, sums, (const float *)(const void *)(block + BLOCK * bytes), base, least, guess);
}

#ifdef HAS_VECTORS
/* The same sums in 16 bits: of rows 0 to 7 and 16 to 23, and of the others. bytes: at most SPAN. */
WIDE static inline void sums_wide(const uint8_t *tables, const uint8_t *block, int64_t bytes, __m256i out[2]) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i both = _mm256_setzero_si256(), odd = both; /* of 16 bits: even rows + 256 times odd rows; odd rows */
    for (int64_t j = 0; j < bytes; j += 2) {
        __m256i four[4];
        for (int i = 0; i < 2; i++) {
            const __m256i own = _mm256_loadu_si256((const void *)(block + BLOCK * (j + i)));
            four[2 * i] = _mm256_and_si256(own, low);
            four[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi16(own, 4), low);
        }
        for (int i = 0; i < 4; i++) {
            const __m128i table = _mm_loadu_si128((const void *)(tables + 32 * j + 16 * i));
            four[i] = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), four[i]);
        }
        const __m256i sum = _mm256_add_epi8(_mm256_add_epi8(four[0], four[1]), _mm256_add_epi8(four[2], four[3]));
        both = _mm256_add_epi16(both, sum);
        odd = _mm256_add_epi16(odd, _mm256_srli_epi16(sum, 8));
    }
    const __m256i even = _mm256_sub_epi16(both, _mm256_slli_epi16(odd, 8));
    out[0] = _mm256_unpacklo_epi16(even, odd), out[1] = _mm256_unpackhi_epi16(even, odd);
}

/* See guess_any; eight rows at a time. */
WIDE static uint32_t guess_wide(const Turned *turned, int64_t bytes, const uint8_t *block, float base, float least,
                                float *guess) {
    __m256i sums[4];
    for (int i = 0; i < 4; i++) sums[i] = _mm256_setzero_si256();
    for (int64_t from = 0; from < bytes; from += SPAN) {
        __m256i own[2];
        sums_wide(turned->tables + 32 * from, block + BLOCK * from, LEAST(SPAN, bytes - from), own);
        for (int i = 0; i < 2; i++) {
            sums[i] = _mm256_add_epi32(sums[i], _mm256_cvtepu16_epi32(_mm256_castsi256_si128(own[i])));
            sums[2 + i] = _mm256_add_epi32(sums[2 + i], _mm256_cvtepu16_epi32(_mm256_extracti128_si256(own[i], 1)));
        }
    }
    const float *own = (const float *)(const void *)(block + BLOCK * bytes);
    uint32_t above = 0;
    for (int i = 0; i < 4; i++) {
        __m256 made = _mm256_fmsub_ps(_mm256_set1_ps(2 * turned->step), _mm256_cvtepi32_ps(sums[i]),
                                      _mm256_set1_ps(turned->sum));
        const __m256 rest = _mm256_fmadd_ps(_mm256_loadu_ps(own + BLOCK + 8 * i), _mm256_set1_ps(turned->low),
                                            _mm256_set1_ps(base));
        made = _mm256_fmadd_ps(_mm256_loadu_ps(own + 8 * i), made, rest);
        _mm256_storeu_ps(guess + 8 * i, made);
        above |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(made, _mm256_set1_ps(least), _CMP_GT_OQ)) << (8 * i);
    }
    return above;
}
#elif defined(__aarch64__)
/* See guess_any; sixteen rows at a time. */
static uint32_t guess_wide(const Turned *turned, int64_t bytes, const uint8_t *block, float base, float least,
                           float *guess) {
    int32_t sums[BLOCK] = {0};
    for (int64_t from = 0; from < bytes; from += SPAN)
        for (int half = 0; half < 2; half++) {
            uint16x8_t low = vdupq_n_u16(0), high = low;
            for (int64_t j = from; j < LEAST(bytes, from + SPAN); j++) {
                const uint8x16_t own = vld1q_u8(block + BLOCK * j + 16 * half);
                const uint8x16_t one = vqtbl1q_u8(vld1q_u8(turned->tables + 32 * j), vandq_u8(own, vdupq_n_u8(15)));
                const uint8x16_t two = vqtbl1q_u8(vld1q_u8(turned->tables + 32 * j + 16), vshrq_n_u8(own, 4));
                const uint8x16_t both = vaddq_u8(one, two);
                low = vaddw_u8(low, vget_low_u8(both));
                high = vaddw_high_u8(high, both);
            }
            uint16_t each[16];
            vst1q_u16(each, low);
            vst1q_u16(each + 8, high);
            for (int r = 0; r < 16; r++) sums[16 * half + r] += each[r];
        }
    return guess_of(turned, sums, (const float *)(const void *)(block + BLOCK * bytes), base, least, guess);
}
#else
#define guess_wide guess_any
#endif
