// Sixteen lanes of float, and what a variant may do better than plain vector code.
//
// Included once per variant, inside that variant's namespace (PARROT_VARIANT), so that each is compiled with its
// own instruction set and none of its inline functions can be merged with another's. Vector types are the
// extension of GCC and Clang: the compiler lowers 64-byte vectors to whatever the target has.

constexpr int kLanes = 16;

typedef float F32x16 __attribute__((vector_size(64)));
typedef std::int32_t I32x16 __attribute__((vector_size(64)));
typedef std::uint32_t U32x16 __attribute__((vector_size(64)));
typedef std::uint16_t U16x16 __attribute__((vector_size(32)));

static inline F32x16 splat(float value) { return F32x16{} + value; }

static inline F32x16 load(const float* from) {
  F32x16 v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

static inline void store(float* to, F32x16 v) { __builtin_memcpy(to, &v, sizeof v); }

// A fixed tree, so that sums do not depend on what surrounds them.
static inline float sum_lanes(F32x16 v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

static inline float max_lanes(F32x16 v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

static inline F32x16 max(F32x16 a, F32x16 b) { return a > b ? a : b; }

// 2^x for x <= 0, relative error below 2e-7; 0 below -126. Minimax polynomial of degree 6 on [-0.5, 0.5].
static inline F32x16 exp2_nonpositive(F32x16 x) {
  const F32x16 clamped = max(x, splat(-126.0f));
  const F32x16 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const F32x16 shifted = clamped + magic;
  const F32x16 f = clamped - (shifted - magic);
  F32x16 p = splat(1.540353039338161e-4f);
  p = p * f + splat(1.333355814642844e-3f);
  p = p * f + splat(9.618129107628477e-3f);
  p = p * f + splat(5.550410866482158e-2f);
  p = p * f + splat(2.402265069591007e-1f);
  p = p * f + splat(6.931471805599453e-1f);
  p = p * f + splat(1.0f);
  const I32x16 bits = (I32x16)p + (((I32x16)shifted - (I32x16)magic) << 23);
  return x < splat(-126.0f) ? splat(0.0f) : (F32x16)bits;
}

// Round to nearest even; the inputs are finite.
static inline std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline void store_bf16(std::uint16_t* to, F32x16 v) {
  const U32x16 bits = (U32x16)v;
  const U32x16 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U16x16 narrow = __builtin_convertvector(rounded, U16x16);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}

static inline float from_bf16(std::uint16_t value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
  float out;
  __builtin_memcpy(&out, &bits, sizeof out);
  return out;
}

// What a variant keeps its activations in, and products of pairs of them with pairs of bf16 weights: a panel vector
// holds kTileLanes columns x 2 consecutive k, a pair a row's two values of the same k.
// acc[lane] += a[0] * b[lane][0] + a[1] * b[lane][1]
// Here the vectors are the target's own, for the compiler lowers wider ones through memory.
#if defined(PARROT_HAS_BF16)

typedef std::uint16_t Activation;
constexpr int kTileLanes = 16;
typedef F32x16 TileVector;
typedef __m512bh PanelVector;
typedef __m512bh PairVector;

static inline Activation to_activation(float value) { return to_bf16(value); }
static inline void store_activations(Activation* to, F32x16 v) { store_bf16(to, v); }

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
#if defined(__AVX512F__)
constexpr int kTileLanes = 16;
#elif defined(__AVX2__)
constexpr int kTileLanes = 8;
#else
constexpr int kTileLanes = 4;
#endif
typedef float TileVector __attribute__((vector_size(4 * kTileLanes)));
typedef std::uint32_t TileBits __attribute__((vector_size(4 * kTileLanes)));
struct PanelVector {
  TileVector first, second;
};
struct PairVector {
  float first, second;
};

static inline Activation to_activation(float value) { return value; }
static inline void store_activations(Activation* to, F32x16 v) { store(to, v); }

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
