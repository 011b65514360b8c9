/* Products of codes and of vectors, and the codes of queries. Part of _kernels.c. */
INLINE int32_t dot8(const Query *query, const int8_t *code, int64_t dim, const int bytes) {
    const int8_t *own = query->code;
    int32_t sum = 0;
    if (bytes) { /* that instruction wants one side without signs: code + 128 */
        for (int64_t i = 0; i < dim; i++) sum += (uint8_t)(code[i] ^ 0x80) * (int16_t)own[i];
        return sum - query->shift;
    }
    for (int64_t i = 0; i < dim; i++) sum += (int16_t)own[i] * (int16_t)code[i];
    return sum;
}

enum { SMALL = 15 };

/* Products of a query's code with `count` codes, [D] each: those at these places, or where there are none one after the
 * other. */
VERSIONS static void dots_any(const Query *query, const int8_t *codes, const int64_t *places, int64_t count,
                              int64_t dim, int32_t *out) {
    for (int64_t i = 0; i < count; i++) {
        if (places && i + 8 < count)
            for (int64_t j = 0; j < dim; j += 64) __builtin_prefetch(codes + places[i + 8] * dim + j);
        out[i] = dot8(query, codes + (places ? places[i] : i) * dim, dim, 0);
    }
}

#ifdef HAS_VECTORS
/* Four codes from number i on; those that come three times four later are fetched where they lie apart. */
INLINE void take_four(const int8_t *codes, const int64_t *places, int64_t i, int64_t count, int64_t dim,
                      const int8_t *code[4]) {
    for (int64_t r = i; r < i + 4; r++) {
        code[r - i] = codes + (places ? places[r] : r) * dim;
        if (places && r + 12 < count)
            for (int64_t j = 0; j < dim; j += 64) __builtin_prefetch(codes + places[r + 12] * dim + j);
    }
}

BYTES static inline __m512i add_product(__m512i sum, __m512i own, __m512i code) {
    return _mm512_dpbusd_epi32(sum, _mm512_xor_si512(code, _mm512_set1_epi8((char)0x80)), own);
}

/* Four codes at a time, so that adding up lanes costs little. */
BYTES static void dots_bytes(const Query *query, const int8_t *codes, const int64_t *places, int64_t count, int64_t dim,
                             int32_t *out) {
    const int64_t whole = dim & ~63;
    const __mmask64 rest = dim > whole ? ~UINT64_C(0) >> (64 - (dim - whole)) : 0;
    const __m512i last = _mm512_maskz_loadu_epi8(rest, query->code + whole);
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const int8_t *code[4];
        __m512i sum[4];
        take_four(codes, places, i, count, dim, code);
        for (int r = 0; r < 4; r++) sum[r] = _mm512_setzero_si512();
        for (int64_t j = 0; j < whole; j += 64) {
            __m512i own = _mm512_loadu_si512(query->code + j);
            for (int r = 0; r < 4; r++) sum[r] = add_product(sum[r], own, _mm512_loadu_si512(code[r] + j));
        }
        if (rest)
            for (int r = 0; r < 4; r++)
                sum[r] = add_product(sum[r], last, _mm512_maskz_loadu_epi8(rest, code[r] + whole));
        __m512i one = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[0], sum[1]), _mm512_unpackhi_epi32(sum[0], sum[1]));
        __m512i two = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[2], sum[3]), _mm512_unpackhi_epi32(sum[2], sum[3]));
        one = _mm512_add_epi32(_mm512_unpacklo_epi64(one, two), _mm512_unpackhi_epi64(one, two));
        __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(one), _mm512_extracti64x4_epi64(one, 1));
        __m128i all = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        _mm_storeu_si128((void *)(out + i), _mm_sub_epi32(all, _mm_set1_epi32(query->shift)));
    }
    for (; i < count; i++) out[i] = dot8(query, codes + (places ? places[i] : i) * dim, dim, 1);
}

/* By AVX2: products of bytes in pairs, one side without signs. |q| times x with the sign of q is q x; since codes are -127 to
 * 127, two products fit 16 bits. */
WIDE static inline __m256i add_pairs(__m256i sum, __m256i size, __m256i own, __m256i code) {
    const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(code, own));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

WIDE static void dots_wide(const Query *query, const int8_t *codes, const int64_t *places, int64_t count, int64_t dim,
                           int32_t *out) {
    const int64_t whole = dim & ~31;
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const int8_t *code[4];
        __m256i sum[4];
        take_four(codes, places, i, count, dim, code);
        for (int r = 0; r < 4; r++) sum[r] = _mm256_setzero_si256();
        for (int64_t j = 0; j < whole; j += 32) {
            const __m256i own = _mm256_loadu_si256((const void *)(query->code + j)), size = _mm256_abs_epi8(own);
            for (int r = 0; r < 4; r++)
                sum[r] = add_pairs(sum[r], size, own, _mm256_loadu_si256((const void *)(code[r] + j)));
        }
        const __m256i four = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]), _mm256_hadd_epi32(sum[2], sum[3]));
        _mm_storeu_si128((void *)(out + i),
                         _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1)));
        for (int r = 0; r < 4; r++)
            for (int64_t j = whole; j < dim; j++) out[i + r] += query->code[j] * code[r][j];
    }
    for (; i < count; i++) out[i] = dot8(query, codes + (places ? places[i] : i) * dim, dim, 0);
}

/* The same of codes of -SMALL to SMALL that lie one after the other: with SMALL + 1 added they have no signs, and of four
 * times two products the sum fits 16 bits. */
WIDE static void dots_small_wide(const Query *query, const int8_t *codes, int64_t count, int64_t dim, int32_t *out) {
    const int64_t whole = dim & ~31;
    const __m256i up = _mm256_set1_epi8(SMALL + 1), one = _mm256_set1_epi16(1);
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const int8_t *code = codes + i * dim;
        __m256i sum[4];
        for (int r = 0; r < 4; r++) sum[r] = _mm256_setzero_si256();
        for (int64_t from = 0; from < whole; from += 128) {
            __m256i part[4];
            for (int r = 0; r < 4; r++) part[r] = _mm256_setzero_si256();
            for (int64_t j = from; j < LEAST(whole, from + 128); j += 32) {
                const __m256i own = _mm256_loadu_si256((const void *)(query->code + j));
                for (int r = 0; r < 4; r++) {
                    const __m256i plain = _mm256_add_epi8(_mm256_loadu_si256((const void *)(code + r * dim + j)), up);
                    part[r] = _mm256_add_epi16(part[r], _mm256_maddubs_epi16(plain, own));
                }
            }
            for (int r = 0; r < 4; r++) sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(part[r], one));
        }
        const __m256i four = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]), _mm256_hadd_epi32(sum[2], sum[3]));
        _mm_storeu_si128((void *)(out + i),
                         _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1)));
        for (int r = 0; r < 4; r++) {
            for (int64_t j = whole; j < dim; j++) out[i + r] += query->code[j] * (code[r * dim + j] + SMALL + 1);
            out[i + r] -= query->shift / 128 * (SMALL + 1);
        }
    }
    for (; i < count; i++) out[i] = dot8(query, codes + i * dim, dim, 0);
}
#else
#define dots_bytes dots_any
#define dots_wide dots_any
#define dots_small_wide(query, codes, count, dim, out) dots_any(query, codes, NULL, count, dim, out)
#endif

INLINE void dots(const Query *query, const int8_t *codes, const int64_t *places, int64_t count, int64_t dim, int32_t *out,
                 const int bytes) {
    (bytes ? dots_bytes : has_wide ? dots_wide : dots_any)(query, codes, places, count, dim, out);
}

/* In float64 and in one order whatever the row, so that equal rows get equal scores. *words: the sum of the 32-bit words of
 * a, where it is asked for: both by one look at the row. */
INLINE double dot64(const float *a, const float *b, int64_t dim, uint64_t *words) {
    double lanes[LANES] = {0};
    uint64_t sums[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES)
        for (int j = 0; j < LANES; j++) {
            uint32_t word;
            memcpy(&word, a + i + j, sizeof word);
            sums[j] += word;
            lanes[j] += (double)a[i + j] * (double)b[i + j];
        }
    for (; i < dim; i++) {
        uint32_t word;
        memcpy(&word, a + i, sizeof word);
        sums[i % LANES] += word;
        lanes[i % LANES] += (double)a[i] * (double)b[i];
    }
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half], sums[j] += sums[j + half];
    if (words) *words = sums[0];
    return lanes[0];
}

#ifdef HAS_VECTORS
/* The same, sum for sum: a product of two floats is exact in float64, whether it is rounded before it is added or not. All of
 * it by instructions that do not move values across registers, of which there is one at a time. */
BYTES static double dot64_bytes(const float *a, const float *b, int64_t dim, uint64_t *words) {
    const __m512i low = _mm512_set1_epi64(UINT32_MAX);
    __m512d sum[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    __m512i even = _mm512_setzero_si512(), odd = even;
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        const __m512i whole = _mm512_loadu_si512(a + i);
        even = _mm512_add_epi64(even, _mm512_and_si512(whole, low));
        odd = _mm512_add_epi64(odd, _mm512_srli_epi64(whole, 32));
        for (int j = 0; j < 2; j++)
            sum[j] = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i + 8 * j)),
                                     _mm512_cvtps_pd(_mm256_loadu_ps(b + i + 8 * j)), sum[j]);
    }
    *words = (uint64_t)_mm512_reduce_add_epi64(_mm512_add_epi64(even, odd));
    double lanes[LANES];
    _mm512_storeu_pd(lanes, sum[0]);
    _mm512_storeu_pd(lanes + 8, sum[1]);
    for (; i < dim; i++) {
        uint32_t word;
        memcpy(&word, a + i, sizeof word);
        *words += word;
        lanes[i % LANES] += (double)a[i] * (double)b[i];
    }
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* The same by AVX2. */
WIDE static double dot64_wide(const float *a, const float *b, int64_t dim, uint64_t *words) {
    const __m256i low = _mm256_set1_epi64x(UINT32_MAX);
    __m256d sum[4];
    __m256i even = _mm256_setzero_si256(), odd = even;
    for (int j = 0; j < 4; j++) sum[j] = _mm256_setzero_pd();
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        for (int j = 0; j < 2; j++) {
            const __m256i whole = _mm256_loadu_si256((const void *)(a + i + 8 * j));
            even = _mm256_add_epi64(even, _mm256_and_si256(whole, low));
            odd = _mm256_add_epi64(odd, _mm256_srli_epi64(whole, 32));
        }
        for (int j = 0; j < 4; j++)
            sum[j] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(a + i + 4 * j)),
                                     _mm256_cvtps_pd(_mm_loadu_ps(b + i + 4 * j)), sum[j]);
    }
    uint64_t parts[4];
    _mm256_storeu_si256((void *)parts, _mm256_add_epi64(even, odd));
    *words = parts[0] + parts[1] + parts[2] + parts[3];
    double lanes[LANES];
    for (int j = 0; j < 4; j++) _mm256_storeu_pd(lanes + 4 * j, sum[j]);
    for (; i < dim; i++) {
        uint32_t word;
        memcpy(&word, a + i, sizeof word);
        *words += word;
        lanes[i % LANES] += (double)a[i] * (double)b[i];
    }
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}
#else
#define dot64_bytes dot64
#define dot64_wide dot64
#endif

/* The code of a vector whose largest value is `largest`, by the sum of its squares, the sum of the squares of what the code
 * leaves, and the sum of the code. */
INLINE void set_bounds(Query *query, int64_t dim, float largest, float scale, double norm, double residual, int32_t sum) {
    /* Rounded up by more than what float32 loses; the same terms as indexes/exact.py has. */
    const double slack = 1 + 1e-5, unit = scale > FLT_MIN ? scale : FLT_MIN;
    double error = (sqrt(residual) + largest * ldexp(sqrt((double)dim), -23)) * slack;
    double reach = sqrt(norm) * slack + error;
    query->shift = 128 * sum;
    query->unit = (float)unit;
    query->row_error = (float)(reach / unit * slack);
    query->row_norm = (float)((error + reach * ldexp(16, -24)) / unit * slack);
}

VERSIONS static void quantise_any(const float *vector, int64_t dim, Query *query) {
    float low, largest;
    extremes(vector, dim, &low, &largest);
    largest = MOST(largest, -low);
    const float scale = largest / 127.0f;
    double residual[LANES] = {0}, norm[LANES] = {0};
    int32_t sum[LANES] = {0};
    for (int64_t i = 0; i < dim; i += LANES) {
        const int64_t some = LEAST(LANES, dim - i);
        float part[LANES] = {0};
        int8_t codes[LANES];
        memcpy(part, vector + i, (size_t)some * sizeof *part);
        for (int j = 0; j < LANES; j++) {
            float code = scale > 0 ? nearbyintf(part[j] / scale) : 0;
            code = LEAST(MOST(code, -127.0f), 127.0f);
            codes[j] = (int8_t)code;
            sum[j] += codes[j];
            double rest = (double)part[j] - (double)code * (double)scale;
            residual[j] += rest * rest;
            norm[j] += (double)part[j] * (double)part[j];
        }
        memcpy(query->code + i, codes, (size_t)some);
    }
    for (int j = 1; j < LANES; j++) residual[0] += residual[j], norm[0] += norm[j], sum[0] += sum[j];
    set_bounds(query, dim, largest, scale, norm[0], residual[0], sum[0]);
}

#ifdef HAS_VECTORS
INLINE __mmask16 first_of(int64_t dim, int64_t i) {
    return dim - i >= LANES ? (__mmask16)-1 : (__mmask16)((1u << (dim - i)) - 1);
}

/* The same code, in a tenth of the time. */
BYTES static void quantise_bytes(const float *vector, int64_t dim, Query *query) {
    __m512 most = _mm512_setzero_ps();
    for (int64_t i = 0; i < dim; i += LANES)
        most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_maskz_loadu_ps(first_of(dim, i), vector + i)));
    const float largest = _mm512_reduce_max_ps(most), scale = largest / 127.0f;
    const __m512 divisor = _mm512_set1_ps(scale > 0 ? scale : INFINITY), bound = _mm512_set1_ps(127);
    const __m512d wide_scale = _mm512_set1_pd(scale);
    __m512d residual = _mm512_setzero_pd(), norm = residual;
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < dim; i += LANES) {
        const __m512 part = _mm512_maskz_loadu_ps(first_of(dim, i), vector + i);
        __m512 code = _mm512_roundscale_ps(_mm512_div_ps(part, divisor), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        code = _mm512_min_ps(_mm512_max_ps(code, _mm512_sub_ps(_mm512_setzero_ps(), bound)), bound);
        const __m512i whole = _mm512_cvtps_epi32(code);
        sum = _mm512_add_epi32(sum, whole);
        _mm512_mask_cvtepi32_storeu_epi8(query->code + i, first_of(dim, i), whole);
        for (int half = 0; half < 2; half++) {
            const __m512d own = _mm512_cvtps_pd(half ? _mm512_extractf32x8_ps(part, 1) : _mm512_castps512_ps256(part));
            const __m512d coded = _mm512_cvtps_pd(half ? _mm512_extractf32x8_ps(code, 1) : _mm512_castps512_ps256(code));
            const __m512d rest = _mm512_fnmadd_pd(coded, wide_scale, own);
            residual = _mm512_fmadd_pd(rest, rest, residual);
            norm = _mm512_fmadd_pd(own, own, norm);
        }
    }
    set_bounds(query, dim, largest, scale, _mm512_reduce_add_pd(norm), _mm512_reduce_add_pd(residual),
               _mm512_reduce_add_epi32(sum));
}

/* The same by AVX2, four values as float64 at a time; the last values as the portable version has them. */
WIDE static void quantise_wide(const float *vector, int64_t dim, Query *query) {
    const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MAX)), bound = _mm256_set1_ps(127);
    const int64_t whole = dim & ~7;
    __m256 most = _mm256_setzero_ps();
    for (int64_t i = 0; i < whole; i += 8) most = _mm256_max_ps(most, _mm256_and_ps(_mm256_loadu_ps(vector + i), no_sign));
    float each[8], largest = 0;
    _mm256_storeu_ps(each, most);
    for (int j = 0; j < 8; j++) largest = MOST(largest, each[j]);
    for (int64_t i = whole; i < dim; i++) largest = MOST(largest, fabsf(vector[i]));
    const float scale = largest / 127.0f;
    const __m256 divisor = _mm256_set1_ps(scale > 0 ? scale : INFINITY);
    const __m256d wide_scale = _mm256_set1_pd(scale);
    __m256d residual[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()}, norm[2] = {residual[0], residual[0]};
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < whole; i += 8) {
        const __m256 part = _mm256_loadu_ps(vector + i);
        __m256 code = _mm256_round_ps(_mm256_div_ps(part, divisor), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        code = _mm256_min_ps(_mm256_max_ps(code, _mm256_sub_ps(_mm256_setzero_ps(), bound)), bound);
        const __m256i eight = _mm256_cvtps_epi32(code);
        sum = _mm256_add_epi32(sum, eight);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
        _mm_storel_epi64((void *)(query->code + i), _mm_packs_epi16(words, words));
        for (int half = 0; half < 2; half++) {
            const __m256d own = _mm256_cvtps_pd(half ? _mm256_extractf128_ps(part, 1) : _mm256_castps256_ps128(part));
            const __m256d coded = _mm256_cvtps_pd(half ? _mm256_extractf128_ps(code, 1) : _mm256_castps256_ps128(code));
            const __m256d rest = _mm256_fnmadd_pd(coded, wide_scale, own);
            residual[half] = _mm256_fmadd_pd(rest, rest, residual[half]);
            norm[half] = _mm256_fmadd_pd(own, own, norm[half]);
        }
    }
    double rests[4], norms[4], all_rest = 0, all_norm = 0;
    int32_t sums[8], all = 0;
    _mm256_storeu_pd(rests, _mm256_add_pd(residual[0], residual[1]));
    _mm256_storeu_pd(norms, _mm256_add_pd(norm[0], norm[1]));
    _mm256_storeu_si256((void *)sums, sum);
    for (int j = 0; j < 4; j++) all_rest += rests[j], all_norm += norms[j];
    for (int j = 0; j < 8; j++) all += sums[j];
    for (int64_t i = whole; i < dim; i++) {
        const float code = LEAST(MOST(scale > 0 ? nearbyintf(vector[i] / scale) : 0, -127.0f), 127.0f);
        const double rest = (double)vector[i] - (double)code * (double)scale;
        query->code[i] = (int8_t)code, all += (int8_t)code;
        all_rest += rest * rest, all_norm += (double)vector[i] * (double)vector[i];
    }
    set_bounds(query, dim, largest, scale, all_norm, all_rest, all);
}
#else
#define quantise_bytes quantise_any
#define quantise_wide quantise_any
#endif

static void quantise(const float *vector, int64_t dim, Query *query) {
    (has_bytes ? quantise_bytes : has_wide ? quantise_wide : quantise_any)(vector, dim, query);
}
