/*
 * Strings in steps of 64 bytes, for x86: ASCII with escapes of two bytes in between, which is what prompts and tools
 * are made of. A step does not branch on what its bytes are: an agent's turn has a thousand escapes, at places that no
 * processor foresees, and a wrong guess at each would cost more than all the rest. So escapes are found by arithmetic
 * on masks, a bit a byte. The same steps are compiled twice: for any x86-64, and for AVX2, which the processor is asked
 * for once.
 */
#include "scan.h"

#ifdef __SSE2__
#include <immintrin.h>

enum { STEP = 64 };

/* What 64 bytes are, a bit a byte. */
struct marks {
    uint64_t slash; /* a backslash */
    uint64_t quote;
    uint64_t letter; /* n, t or r */
    uint64_t other;  /* a control, or not ASCII */
};

static inline __m128i is_byte(__m128i bytes, char byte)
{
    return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte));
}

static inline uint64_t mask_of(__m128i bytes, unsigned part)
{
    return (uint64_t)(unsigned)_mm_movemask_epi8(bytes) << (16 * part);
}

static inline struct marks marks_sse2(const char *at)
{
    struct marks marks = { 0 };

    for (unsigned i = 0; i < 4; i++) {
        __m128i bytes = _mm_loadu_si128((const __m128i_u *)at + i);
        __m128i letter = _mm_or_si128(is_byte(bytes, 'n'), _mm_or_si128(is_byte(bytes, 't'), is_byte(bytes, 'r')));
        marks.slash |= mask_of(is_byte(bytes, '\\'), i);
        marks.quote |= mask_of(is_byte(bytes, '"'), i);
        marks.letter |= mask_of(letter, i);
        /* As signed numbers, bytes from 0x80 on are below the space too. */
        marks.other |= mask_of(_mm_cmplt_epi8(bytes, _mm_set1_epi8(' ')), i);
    }
    return marks;
}

#define WITH_AVX2 __attribute__((target("avx2,bmi,popcnt")))

WITH_AVX2 static inline __m256i is_byte_avx2(__m256i bytes, char byte)
{
    return _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte));
}

WITH_AVX2 static inline uint64_t mask_of_avx2(__m256i low, __m256i high)
{
    return (unsigned)_mm256_movemask_epi8(low) | (uint64_t)(unsigned)_mm256_movemask_epi8(high) << 32;
}

WITH_AVX2 static inline __m256i is_letter_avx2(__m256i bytes)
{
    return _mm256_or_si256(is_byte_avx2(bytes, 'n'),
                           _mm256_or_si256(is_byte_avx2(bytes, 't'), is_byte_avx2(bytes, 'r')));
}

WITH_AVX2 static inline struct marks marks_avx2(const char *at)
{
    __m256i low = _mm256_loadu_si256((const __m256i_u *)at), high = _mm256_loadu_si256((const __m256i_u *)at + 1);
    __m256i space = _mm256_set1_epi8(' ');

    return (struct marks){
        .slash = mask_of_avx2(is_byte_avx2(low, '\\'), is_byte_avx2(high, '\\')),
        .quote = mask_of_avx2(is_byte_avx2(low, '"'), is_byte_avx2(high, '"')),
        .letter = mask_of_avx2(is_letter_avx2(low), is_letter_avx2(high)),
        .other = mask_of_avx2(_mm256_cmpgt_epi8(space, low), _mm256_cmpgt_epi8(space, high)),
    };
}

/*
 * Which bytes a backslash escapes. In a run of backslashes every second one is escaped, and what follows the run if the
 * run is odd: subtracting a run's bits from those one place higher carries through it, and leaves every second bit
 * changed. *carried: the last step's last byte escapes this one's first.
 */
static inline uint64_t escaped_of(uint64_t slash, uint64_t *carried)
{
    const uint64_t odd = 0xaaaaaaaaaaaaaaaau;
    uint64_t free = slash & ~*carried;                /* these may escape something */
    uint64_t both = ((free << 1 | odd) - free) ^ odd; /* those that do, and what ends a run */
    uint64_t escaped = both ^ (slash | *carried);

    *carried = (both & slash) >> 63;
    return escaped;
}

/* No popcnt in the x86-64 baseline, and the compiler's stand-in is a call. */
static inline unsigned bits_in(uint64_t mask)
{
    mask = mask - ((mask >> 1) & 0x5555555555555555u);
    mask = (mask & 0x3333333333333333u) + ((mask >> 2) & 0x3333333333333333u);
    mask = (mask + (mask >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (unsigned)(mask * 0x0101010101010101u >> 56);
}

__attribute__((always_inline)) static inline const char *steps(const char *at, const char *end, size_t *ret_escapes,
                                                               bool is_wide)
{
    uint64_t carried = 0;
    size_t escapes = 0;

    for (; end - at >= STEP; at += STEP) {
        struct marks marks = is_wide ? marks_avx2(at) : marks_sse2(at);
        uint64_t escaped = escaped_of(marks.slash, &carried);
        uint64_t unknown = escaped & ~(marks.quote | marks.slash | marks.letter);
        uint64_t stops = ((marks.quote | marks.other) & ~escaped) | unknown;
        uint64_t passed = escaped & (stops - 1) & ~stops; /* all, if there is no stop */
        escapes += is_wide ? (unsigned)__builtin_popcountll(passed) : bits_in(passed);
        if (stops) {
            carried = unknown >> __builtin_ctzll(stops) & 1; /* back to the backslash */
            at += __builtin_ctzll(stops);
            break;
        }
    }
    *ret_escapes += escapes;
    return at - carried;
}

const char *scan_string_sse2(const char *at, const char *end, size_t *ret_escapes)
{
    return steps(at, end, ret_escapes, false);
}

WITH_AVX2 const char *scan_string_avx2(const char *at, const char *end, size_t *ret_escapes)
{
    return steps(at, end, ret_escapes, true);
}

static bool has_avx2;

__attribute__((constructor)) static void ask_processor(void)
{
    __builtin_cpu_init();
    has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt");
}

bool scan_has_avx2(void)
{
    return has_avx2;
}

const char *scan_string(const char *at, const char *end, size_t *ret_escapes)
{
    return has_avx2 ? scan_string_avx2(at, end, ret_escapes) : scan_string_sse2(at, end, ret_escapes);
}
#endif
