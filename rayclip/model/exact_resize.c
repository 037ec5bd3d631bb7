/* Pillow's resize of an RGB picture, to the byte: along rows first, then along columns.
 *
 * In each pass, Pillow multiplies bytes by weights with 22 fractional bits, adds a half, shifts and
 * clips to 0..255. Sums of integers do not depend on their order, so this gives the same bytes.
 *
 * Both passes work on blocks of 16 outputs and on taps in pairs, because x86 has an instruction that
 * multiplies 16-bit numbers and adds the products in pairs. A weight has up to 24 bits, so it is
 * split: weight = high * 65536 + low, both signed 16-bit numbers.
 *
 * Nothing outside the picture is read.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { BITS = 22, HALF = 1 << (BITS - 1), BLOCK = 16, ROWS = 4 };

#define INLINE static inline __attribute__((always_inline))

/* How outputs are weighed sums of inputs, along rows or along columns. */
typedef struct {
    int32_t inputs;         /* how many there are */
    int32_t outputs;        /* how many are wanted */
    int32_t pairs;          /* of taps of each output */
    const int32_t *first;   /* [outputs]: the first input; even, never decreasing */
    const int32_t *weights; /* [outputs, pairs, 2]: low halves of a pair, then the high halves */
} Axis;

/* Weigh a block.
 *
 * taps: [pairs, BLOCK, 2], with `step` bytes from one pair to the next.
 */
typedef void Weigh(const uint8_t *taps, size_t step, const int32_t *weights, int32_t pairs,
                   uint8_t out[BLOCK]);

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline void weigh_avx2(const uint8_t *taps, size_t step, const int32_t *weights,
                                   int32_t pairs, uint8_t out[BLOCK]) {
    __m256i low[2] = {_mm256_set1_epi32(HALF), _mm256_set1_epi32(HALF)};
    __m256i high[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int32_t pair = 0; pair < pairs; pair++, taps += step) {
        const __m256i low_weights = _mm256_set1_epi32(weights[2 * pair]);
        const __m256i high_weights = _mm256_set1_epi32(weights[2 * pair + 1]);
        for (int i = 0; i < 2; i++) {
            const __m128i bytes = _mm_loadu_si128((const __m128i *)taps + i);
            const __m256i wide = _mm256_cvtepu8_epi16(bytes);
            low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(wide, low_weights));
            high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(wide, high_weights));
        }
    }
    for (int i = 0; i < 2; i++) {
        low[i] = _mm256_add_epi32(low[i], _mm256_slli_epi32(high[i], 16));
        low[i] = _mm256_srai_epi32(low[i], BITS);
    }
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low[0], low[1]), 0xd8);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)out, bytes);
}

static inline void weigh_sse2(const uint8_t *taps, size_t step, const int32_t *weights,
                              int32_t pairs, uint8_t out[BLOCK]) {
    const __m128i zero = _mm_setzero_si128(), half = _mm_set1_epi32(HALF);
    __m128i low[4] = {half, half, half, half}, high[4] = {zero, zero, zero, zero};
    for (int32_t pair = 0; pair < pairs; pair++, taps += step) {
        const __m128i low_weights = _mm_set1_epi32(weights[2 * pair]);
        const __m128i high_weights = _mm_set1_epi32(weights[2 * pair + 1]);
        for (int i = 0; i < 4; i++) {
            const __m128i bytes = _mm_loadl_epi64((const __m128i *)(taps + 8 * i));
            const __m128i wide = _mm_unpacklo_epi8(bytes, zero);
            low[i] = _mm_add_epi32(low[i], _mm_madd_epi16(wide, low_weights));
            high[i] = _mm_add_epi32(high[i], _mm_madd_epi16(wide, high_weights));
        }
    }
    for (int i = 0; i < 4; i++) {
        low[i] = _mm_srai_epi32(_mm_add_epi32(low[i], _mm_slli_epi32(high[i], 16)), BITS);
    }
    const __m128i left = _mm_packs_epi32(low[0], low[1]);
    const __m128i right = _mm_packs_epi32(low[2], low[3]);
    _mm_storeu_si128((__m128i *)out, _mm_packus_epi16(left, right));
}

#else

/* For other processors. Compilers turn the loops over i into vector instructions. */
static inline void weigh_plain(const uint8_t *taps, size_t step, const int32_t *weights,
                               int32_t pairs, uint8_t out[BLOCK]) {
    int32_t sums[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        sums[i] = HALF;
    }
    for (int32_t pair = 0; pair < pairs; pair++, taps += step) {
        const int32_t low = weights[2 * pair], high = weights[2 * pair + 1];
        const int32_t first = (int16_t)low + (int16_t)high * 65536;
        const int32_t second = (low >> 16) + (high >> 16) * 65536;
        for (int i = 0; i < BLOCK; i++) {
            sums[i] += taps[2 * i] * first + taps[2 * i + 1] * second;
        }
    }
    for (int i = 0; i < BLOCK; i++) {
        const int32_t sum = sums[i] >> BITS;
        out[i] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

#endif

/* Interleave two pixels of two rows; reads 3 bytes of each.
 *
 * above, below: the left pixel in each row.
 * to_right: from a left pixel to the right one.
 * out: [RGB, above and below, left and right]; the last 4 of the 16 bytes are not used.
 */
INLINE void interleave_at_edge(const uint8_t *above, const uint8_t *below, ptrdiff_t to_right,
                               uint8_t out[BLOCK]) {
    for (int colour = 0; colour < 3; colour++) {
        out[4 * colour] = above[colour];
        out[4 * colour + 1] = above[to_right + colour];
        out[4 * colour + 2] = below[colour];
        out[4 * colour + 3] = below[to_right + colour];
    }
}

/* The same, but may read 4 bytes of each pixel. */
INLINE void interleave(const uint8_t *above, const uint8_t *below, ptrdiff_t to_right,
                       uint8_t out[BLOCK]) {
#if defined(__x86_64__)
    int32_t pixels[4];
    memcpy(&pixels[0], above, 4);
    memcpy(&pixels[1], above + to_right, 4);
    memcpy(&pixels[2], below, 4);
    memcpy(&pixels[3], below + to_right, 4);
    const __m128i top = _mm_unpacklo_epi8(_mm_cvtsi32_si128(pixels[0]), _mm_cvtsi32_si128(pixels[1]));
    const __m128i low = _mm_unpacklo_epi8(_mm_cvtsi32_si128(pixels[2]), _mm_cvtsi32_si128(pixels[3]));
    _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi16(top, low));
#else
    interleave_at_edge(above, below, to_right, out);
#endif
}

/* Copy the columns first..first + 2 * pairs of two rows into taps: [pairs, BLOCK, 2], every second.
 *
 * Only the first and the last pixel of a row can be at the end of the picture's memory, whatever
 * the strides are. Columns after the last, whose weights are 0, repeat it.
 */
INLINE void gather(const uint8_t *above, const uint8_t *below, ptrdiff_t stride, int32_t width,
                   int32_t first, int32_t pairs, uint8_t *taps) {
    for (int32_t pair = 0; pair < pairs; pair++, taps += 2 * BLOCK) {
        const int32_t x = first + 2 * pair;
        if (x == 0 || x + 2 >= width) {
            const int32_t left = x < width ? x : width - 1, right = x + 1 < width ? x + 1 : width - 1;
            interleave_at_edge(above + left * stride, below + left * stride, (right - left) * stride,
                               taps);
        } else {
            interleave(above + x * stride, below + x * stride, stride, taps);
        }
    }
}

INLINE int resize(Weigh *weigh, const uint8_t *pixels, ptrdiff_t row_stride,
                  ptrdiff_t column_stride, const Axis *x, const Axis *y, uint8_t *out,
                  ptrdiff_t out_stride) {
    const int32_t left = x->first[0], right = x->first[x->outputs - 1] + 2 * x->pairs;
    const int32_t top = y->first[0], bottom = y->first[y->outputs - 1] + 2 * y->pairs;
    const int32_t pairs = (right - left) / 2, bytes = 3 * x->outputs;
    /* Pairs of rows, each [bytes, 2], with room for whole blocks. */
    const size_t stride = (size_t)(bytes / BLOCK + 1) * BLOCK * 2;
    uint8_t *taps = calloc((size_t)pairs, 2 * BLOCK);
    uint8_t *rows = malloc(((size_t)(bottom - top) / ROWS + 1) * (ROWS / 2) * stride);
    if (taps == NULL || rows == NULL) {
        free(taps);
        free(rows);
        return -1;
    }
    uint8_t *row = rows;
    for (int32_t first = top; first < bottom; first += ROWS, row += ROWS / 2 * stride) {
        const uint8_t *inputs[ROWS];
        for (int i = 0; i < ROWS; i++) {
            const int32_t number = first + i < y->inputs ? first + i : y->inputs - 1;
            inputs[i] = pixels + number * row_stride;
        }
        gather(inputs[0], inputs[1], column_stride, x->inputs, left, pairs, taps);
        gather(inputs[2], inputs[3], column_stride, x->inputs, left, pairs, taps + BLOCK);
        for (int32_t i = 0; i < x->outputs; i++) {
            const size_t pair = (size_t)(x->first[i] - left) / 2;
            uint8_t block[BLOCK];
            weigh(taps + pair * 2 * BLOCK, 2 * BLOCK, x->weights + (size_t)i * 2 * x->pairs, x->pairs,
                  block);
            memcpy(row + 6 * i, block, 8); /* the next pixel overwrites 2 of them */
            memcpy(row + stride + 6 * i, block + 8, 8);
        }
    }
    for (int32_t i = 0; i < y->outputs; i++, out += out_stride) {
        const uint8_t *first = rows + (size_t)(y->first[i] - top) / 2 * stride;
        const int32_t *weights = y->weights + (size_t)i * 2 * y->pairs;
        for (int32_t byte = 0; byte < bytes; byte += BLOCK) {
            uint8_t block[BLOCK];
            weigh(first + 2 * byte, stride, weights, y->pairs, block);
            memcpy(out + byte, block, (size_t)(bytes - byte < BLOCK ? bytes - byte : BLOCK));
        }
    }
    free(taps);
    free(rows);
    return 0;
}

#if defined(__x86_64__)

AVX2 static int resize_avx2(const uint8_t *pixels, ptrdiff_t row_stride, ptrdiff_t column_stride,
                            const Axis *x, const Axis *y, uint8_t *out, ptrdiff_t out_stride) {
    return resize(weigh_avx2, pixels, row_stride, column_stride, x, y, out, out_stride);
}

#define weigh_others weigh_sse2

#else

#define weigh_others weigh_plain

#endif

/* Resize a picture. Raise the number in the name if the arguments change.
 *
 * pixels: the upper left pixel, 3 bytes.
 * row_stride: bytes from a pixel to the one below.
 * column_stride: bytes from a pixel to the one on the right; 3 or more, or -3 or less.
 * out: [y->outputs, x->outputs, 3], with `out_stride` bytes from one row to the next.
 *
 * Returns 0, or -1 if there is no memory.
 */
int rayclip_resize_1(const uint8_t *pixels, ptrdiff_t row_stride, ptrdiff_t column_stride,
                     const Axis *x, const Axis *y, uint8_t *out, ptrdiff_t out_stride) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        return resize_avx2(pixels, row_stride, column_stride, x, y, out, out_stride);
    }
#endif
    return resize(weigh_others, pixels, row_stride, column_stride, x, y, out, out_stride);
}
