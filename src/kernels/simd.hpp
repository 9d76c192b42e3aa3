// Vectors of sixteen floats, and operations that a variant may implement better than plain vector code does.
//
// Included once per variant, inside that variant's namespace (PARROT_VARIANT), so that each is compiled with its
// own instruction set and none of its inline functions can be merged with another's. Vector types are the
// extension of GCC and Clang.

constexpr int kLanes = 16;

// Lanes of the target's own vectors; wider ones would go through memory.
#if defined(__AVX512F__)
constexpr int kTileLanes = 16;
#elif defined(__AVX2__)
constexpr int kTileLanes = 8;
#else
constexpr int kTileLanes = 4;
#endif
typedef float TileVector __attribute__((vector_size(4 * kTileLanes)));
typedef std::int32_t TileInts __attribute__((vector_size(4 * kTileLanes)));
typedef std::uint32_t TileBits __attribute__((vector_size(4 * kTileLanes)));

#if defined(__AVX512F__)

typedef TileVector F32x16;
static inline F32x16 splat(float value) { return F32x16{} + value; }

#else

struct F32x16 {
  static constexpr int kParts = kLanes / kTileLanes;
  TileVector part[kParts];
};

// Applies f to each part of the operands.
template <class F, class... Vectors>
static inline F32x16 each_part(const F& f, const Vectors&... vectors) {
  F32x16 out;
#pragma GCC unroll 4
  for (int i = 0; i < F32x16::kParts; ++i) out.part[i] = f(vectors.part[i]...);
  return out;
}
static inline F32x16 splat(float value) {
  return each_part([=](TileVector zero) { return zero + value; }, F32x16{});
}
#define PARROT_OPERATOR(op)                                                            \
  static inline F32x16 operator op(const F32x16& a, const F32x16& b) {                 \
    return each_part([](TileVector x, TileVector y) { return x op y; }, a, b);         \
  }                                                                                    \
  static inline F32x16 operator op(const F32x16& a, float b) { return a op splat(b); }
PARROT_OPERATOR(+)
PARROT_OPERATOR(-)
PARROT_OPERATOR(*)
PARROT_OPERATOR(/)
#undef PARROT_OPERATOR
static inline F32x16& operator+=(F32x16& a, const F32x16& b) { return a = a + b; }

#endif

static inline F32x16 load(const float* from) {
  F32x16 v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

static inline void store(float* to, const F32x16& v) { __builtin_memcpy(to, &v, sizeof v); }

static inline void store_tile(float* to, TileVector v) { __builtin_memcpy(to, &v, sizeof v); }

// Copies a few elements, often a multiple of a vector's. Where the count is not a constant, memcpy would be a function
// call.
template <class T>
static inline void copy_few(T* to, const T* from, int count) {
  constexpr int kStep = 64 / sizeof(T);
  int i = 0;
#pragma GCC unroll 2
  for (; i + kStep <= count; i += kStep) {
    F32x16 v;
    __builtin_memcpy(&v, from + i, sizeof v), __builtin_memcpy(to + i, &v, sizeof v);
  }
  if (i < count) std::memcpy(to + i, from + i, (count - i) * sizeof(T));
}

// Copies data that is not read again soon. Where it fills whole cache lines it bypasses the caches, which would
// otherwise fetch the lines first. Other threads see it once this one has passed a barrier, whose locked addition waits
// for such stores.
static inline void stream(float* to, const float* from, int count) {
#if defined(__AVX512F__)
  if (reinterpret_cast<std::uintptr_t>(to) % 64 == 0 && count % kLanes == 0) {
    for (int i = 0; i < count; i += kLanes) _mm512_stream_ps(to + i, (__m512)load(from + i));
    return;
  }
#endif
  std::memcpy(to, from, count * sizeof *to);
}

constexpr float kLog2E = 1.4426950408889634f;

// 2^f on [-0.5, 0.5], exact at 0; minimax polynomials of relative error 3e-6 where results are rounded to bf16, else
// 1e-7.
static inline TileVector exp2_fraction(TileVector f) {
  const TileVector one = TileVector{} + 1.0f;
#if defined(PARROT_HAS_BF16)
  TileVector p = f * 0x1.3a02ccp-7f + 0x1.c9fc46p-5f;
  p = p * f + 0x1.ec0378p-3f;
  p = p * f + 0x1.62e12cp-1f;
#else
  TileVector p = f * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
  p = p * f + 0x1.c6b752p-5f;
  p = p * f + 0x1.ebf9bcp-3f;
  p = p * f + 0x1.62e42ap-1f;
#endif
  return p * f + one;
}

// `exp2` is 2^x for finite x; where a float cannot hold that, 0 or a huge number. Sums are added in a fixed tree, so
// that they do not depend on the code around them.
#if defined(__AVX512F__)

static inline float sum_lanes(F32x16 v) { return _mm512_reduce_add_ps((__m512)v); }
static inline float max_lanes(F32x16 v) { return _mm512_reduce_max_ps((__m512)v); }
static inline std::int32_t sum_lanes(TileInts v) { return _mm512_reduce_add_epi32((__m512i)v); }
static inline std::int32_t max_lanes(TileInts v) { return _mm512_reduce_max_epi32((__m512i)v); }
static inline F32x16 max(F32x16 a, F32x16 b) { return (F32x16)_mm512_max_ps((__m512)a, (__m512)b); }
static inline F32x16 exp2(F32x16 x) {
  const F32x16 whole = (F32x16)_mm512_roundscale_ps((__m512)x, 0);
  return (F32x16)_mm512_scalef_ps((__m512)exp2_fraction(x - whole), (__m512)whole);
}

// Reduces the lanes of each of sixteen vectors with f, in one tree; lane i of the result is that of rows[i]. Each round
// halves both the number of vectors and the lanes that each row still has in them.
template <class F>
static inline F32x16 fold_rows(const F32x16* rows, const F& f) {
  __m512 eight[8], four[4], two[2];
  // The order of input in which the result of rows[i] comes out in lane i.
  constexpr int kPlace[kLanes] = {0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15};
  const auto row = [&](int i) { return (__m512)rows[kPlace[i]]; };
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    eight[i] = f(_mm512_shuffle_f32x4(row(i), row(i + 8), 0x44), _mm512_shuffle_f32x4(row(i), row(i + 8), 0xee));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    four[i] = f(_mm512_shuffle_f32x4(eight[i], eight[i + 4], 0x88), _mm512_shuffle_f32x4(eight[i], eight[i + 4], 0xdd));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    two[i] = f(_mm512_shuffle_ps(four[i], four[i + 2], 0x44), _mm512_shuffle_ps(four[i], four[i + 2], 0xee));
  return (F32x16)f(_mm512_shuffle_ps(two[0], two[1], 0x88), _mm512_shuffle_ps(two[0], two[1], 0xdd));
}
static inline F32x16 max_of(const F32x16* rows) {
  return fold_rows(rows, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
}
static inline F32x16 sum_of(const F32x16* rows) {
  return fold_rows(rows, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
}

#else

template <class F>
static inline float fold_lanes(const F32x16& v, const F& f) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = f(lanes[i], lanes[i + half]);
  return lanes[0];
}
static inline float sum_lanes(const F32x16& v) {
  return fold_lanes(v, [](float a, float b) { return a + b; });
}
static inline float max_lanes(const F32x16& v) {
  return fold_lanes(v, [](float a, float b) { return a > b ? a : b; });
}
static inline std::int32_t sum_lanes(TileInts v) {
  std::int32_t sum = 0;
  for (int lane = 0; lane < kTileLanes; ++lane) sum += v[lane];
  return sum;
}
static inline std::int32_t max_lanes(TileInts v) {
  std::int32_t most = v[0];
  for (int lane = 1; lane < kTileLanes; ++lane) most = v[lane] > most ? v[lane] : most;
  return most;
}
static inline F32x16 max_of(const F32x16* rows) {
  float out[kLanes];
  for (int i = 0; i < kLanes; ++i) out[i] = max_lanes(rows[i]);
  return load(out);
}
static inline F32x16 sum_of(const F32x16* rows) {
  float out[kLanes];
  for (int i = 0; i < kLanes; ++i) out[i] = sum_lanes(rows[i]);
  return load(out);
}
static inline F32x16 max(const F32x16& a, const F32x16& b) {
  return each_part([](TileVector x, TileVector y) { return x > y ? x : y; }, a, b);
}
static inline F32x16 exp2(const F32x16& v) {
  return each_part(
      [](TileVector x) {
        const TileVector low = TileVector{} - 126.0f, high = TileVector{} + 126.0f;
        TileVector clamped = x > low ? x : low;
        clamped = clamped < high ? clamped : high;
        // 1.5 * 2^23: adding it rounds to an integer in the low bits.
        const TileVector magic = TileVector{} + 12582912.0f;
        const TileVector shifted = clamped + magic;
        const TileInts bits =
            (TileInts)exp2_fraction(clamped - (shifted - magic)) + (((TileInts)shifted - (TileInts)magic) << 23);
        return x < low ? TileVector{} : (TileVector)bits;
      },
      v);
}

#endif

// x / (1 + exp(-x)).
static inline F32x16 silu(const F32x16& x) {
#if defined(PARROT_HAS_BF16)
  // A division takes as long as all the rest, so Newton's method refines the reciprocal from its first 14 bits. The
  // exponent is capped, since for an infinite divisor that would give NaN.
  const __m512 d = (__m512)(exp2((F32x16)_mm512_min_ps((__m512)(x * -kLog2E), _mm512_set1_ps(126.0f))) + 1.0f);
  const __m512 near = _mm512_rcp14_ps(d);
  return x * (F32x16)_mm512_mul_ps(near, _mm512_fnmadd_ps(d, near, _mm512_set1_ps(2.0f)));
#else
  return x / (exp2(x * -kLog2E) + 1.0f);
#endif
}

static inline float lowest_of(const float* values, int count) {
  TileVector lowest = TileVector{} + values[0];
  int i = 0;
  for (; i + kTileLanes <= count; i += kTileLanes) {
    TileVector v;
    __builtin_memcpy(&v, values + i, sizeof v);
    lowest = v < lowest ? v : lowest;
  }
  float least = values[0];
  for (; i < count; ++i) least = std::min(least, values[i]);
  for (int lane = 0; lane < kTileLanes; ++lane) least = std::min(least, lowest[lane]);
  return least;
}

// Copies those of `values` that are at least `least`, and their indices plus `first`; returns their number. Up to
// sixteen elements more are written.
static inline int pick(const float* values, int count, float least, int first, float* to, std::int32_t* places) {
  int found = 0, i = 0;
#if defined(__AVX512F__)
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; i + kLanes <= count; i += kLanes) {
    const F32x16 v = load(values + i);
    const __mmask16 mask = _mm512_cmp_ps_mask((__m512)v, (__m512)splat(least), _CMP_GE_OQ);
    if (!mask) continue;
    const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(first + i));
    store(to + found, (F32x16)_mm512_maskz_compress_ps(mask, (__m512)v));
    _mm512_storeu_si512(places + found, _mm512_maskz_compress_epi32(mask, at));
    found += __builtin_popcount(mask);
  }
#endif
  for (; i < count; ++i) {
    to[found] = values[i], places[found] = first + i;
    found += values[i] >= least;
  }
  return found;
}

// Round to nearest even; the inputs are finite.
static inline std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline void store_bf16(std::uint16_t* to, const F32x16& v) {
#if defined(PARROT_HAS_BF16)
  const __m256bh narrow = _mm512_cvtneps_pbh((__m512)v);
  __builtin_memcpy(to, &narrow, sizeof narrow);
#else
  std::uint32_t bits[kLanes];
  __builtin_memcpy(bits, &v, sizeof bits);
  for (int i = 0; i < kLanes; ++i)
    to[i] = static_cast<std::uint16_t>((bits[i] + 0x7fffu + ((bits[i] >> 16) & 1u)) >> 16);
#endif
}

static inline float from_bf16(std::uint16_t value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
  float out;
  __builtin_memcpy(&out, &bits, sizeof out);
  return out;
}

// For values that are not negative: rounds to nearest, ties to even, and clamps to the largest finite fp16.
static inline std::uint16_t to_f16(float value) {
  const float moved = std::min(value, 65504.0f) * 0x1p-112f;  // fp16's exponent bias is 112 less than a float's
  std::uint32_t bits;
  __builtin_memcpy(&bits, &moved, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0xfffu + ((bits >> 13) & 1u)) >> 13);
}

static inline float from_f16(std::uint16_t value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 13;
  float moved;
  __builtin_memcpy(&moved, &bits, sizeof moved);
  return moved * 0x1p112f;
}

typedef std::uint16_t TileHalves __attribute__((vector_size(2 * kTileLanes)));

static inline TileVector widen_bf16(const std::uint16_t* from) {
#if defined(__AVX512F__)
  // GCC 12 would convert such vectors in two halves.
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return (TileVector)_mm512_slli_epi32(bits, 16);
#else
  TileHalves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  return (TileVector)(__builtin_convertvector(halves, TileBits) << 16);
#endif
}

// For finite fp16 values.
static inline TileVector widen_f16(const std::uint16_t* from) {
#if defined(__AVX512F__)
  return (TileVector)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
  TileHalves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  const TileBits bits = __builtin_convertvector(halves, TileBits);
  // The exponent bias is 112 less than a float's; the product is right for subnormal numbers, too.
  const TileVector size = (TileVector)((bits & 0x7fffu) << 13) * 0x1p112f;
  return (TileVector)((TileBits)size | (bits & 0x8000u) << 16);
#endif
}

// The type in which a variant keeps activations, and products of pairs of them with pairs of bf16 weights: a panel
// vector holds kTileLanes columns x 2 consecutive k, a pair holds a row's values for the same two k.
// acc[lane] += a[0] * b[lane][0] + a[1] * b[lane][1]
#if defined(PARROT_HAS_BF16)

typedef std::uint16_t Activation;
typedef __m512bh PanelVector;
typedef __m512bh PairVector;

static inline void store_activations(Activation* to, const F32x16& v) { store_bf16(to, v); }
static inline void store_activations(Activation* to, const F32x16& first, const F32x16& second) {
  const __m512bh narrow = _mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}
static inline TileVector load_activations(const Activation* from) { return widen_bf16(from); }

static inline PanelVector load_panel(const std::uint16_t* from) {
  return (__m512bh)_mm512_loadu_si512(from);
}
static inline PairVector splat_pair(const Activation* from) {
  std::uint32_t pair;
  __builtin_memcpy(&pair, from, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(static_cast<int>(pair));
}
static inline void accumulate(TileVector& acc, PairVector a, PanelVector b) {
  acc = (F32x16)_mm512_dpbf16_ps((__m512)acc, a, b);
}

#else

typedef float Activation;
struct PanelVector {
  TileVector first, second;
};
struct PairVector {
  float first, second;
};

static inline void store_activations(Activation* to, const F32x16& v) { store(to, v); }
static inline void store_activations(Activation* to, const F32x16& first, const F32x16& second) {
  store(to, first), store(to + kLanes, second);
}
static inline TileVector load_activations(const Activation* from) {
  TileVector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

static inline PanelVector load_panel(const std::uint16_t* from) {
  TileBits bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return {(TileVector)(bits << 16), (TileVector)(bits & 0xffff0000u)};
}
static inline PairVector splat_pair(const Activation* from) { return {from[0], from[1]}; }
static inline void accumulate(TileVector& acc, const PairVector& a, const PanelVector& b) {
  acc += b.first * a.first;
  acc += b.second * a.second;
}

#endif

static inline void prefetch_l2(const void* address) { __builtin_prefetch(address, 0, 2); }
static inline void prefetch_to_write(const void* address) { __builtin_prefetch(address, 1, 2); }
