// The quantised rows that quantised weights are multiplied with, and products of fours of both. Included per variant,
// after matrix.hpp.

// For a group of a row's inputs: the scale, the number at which sums of products with int8 weights start, and the
// scaled sum of each half.
struct RowGroup {
  float scale;
  std::int32_t start;
  float halves[2];
};

#if defined(PARROT_HAS_VNNI)

typedef std::int8_t Quantised;
typedef TileInts SumVector;
typedef TileInts FactorVector;
typedef TileInts SpreadVector;
constexpr int kTurns = 1;        // per vector of fours: all four are multiplied at once
constexpr int kZeroPoint = 128;  // the instruction takes the weights unsigned; `RowGroup::start` makes up for it

static inline SumVector start_sum(std::int32_t start) { return SumVector{} + start; }
static inline FactorVector factor(TileInts fours, int) { return fours; }
static inline SpreadVector spread(const Quantised* a, int) {
  std::int32_t four;
  __builtin_memcpy(&four, a, sizeof four);
  return SpreadVector{} + four;
}
// Inline assembly, because GCC 12 copies the accumulators of its intrinsic through memory; on a copy of the sum,
// because it does the same with an array whose elements are operands.
static inline void multiply_add(SumVector& sum, SpreadVector a, FactorVector w) {
  SumVector next = sum;
  __asm__("vpdpbusd %2, %1, %0" : "+v"(next) : "v"(w), "v"(a));
  sum = next;
}
static inline TileVector sum_floats(SumVector sum) { return __builtin_convertvector(sum, TileVector); }
static inline void store_quantised(Quantised* to, TileInts v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)v));
}
static inline TileVector load_quantised(const Quantised* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (TileVector)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

#else

// Integers as floats: a group's sum stays below 2^24, so it is exact here, too.
typedef float Quantised;
typedef TileVector SumVector;
typedef TileVector FactorVector;
typedef float SpreadVector;
constexpr int kTurns = 4;
constexpr int kZeroPoint = 0;

static inline SumVector start_sum(std::int32_t) { return SumVector{}; }
static inline FactorVector factor(TileInts fours, int turn) {
  return __builtin_convertvector((fours << (24 - 8 * turn)) >> 24, FactorVector);
}
static inline SpreadVector spread(const Quantised* a, int turn) { return a[turn]; }
static inline void multiply_add(SumVector& sum, SpreadVector a, FactorVector w) { sum += w * a; }
static inline TileVector sum_floats(SumVector sum) { return sum; }
static inline void store_quantised(Quantised* to, TileInts v) {
  store_tile(to, __builtin_convertvector(v, TileVector));
}
static inline TileVector load_quantised(const Quantised* from) {
  TileVector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

#endif

// Rows are multiplied in multiples of this number, so up to one less behind the last row are read; their results are
// ignored.
#if defined(PARROT_HAS_AMX)
constexpr int kRowStep = 4;
#else
constexpr int kRowStep = 1;
#endif

// The rows of a matrix's input: int8 values, with a scale for each `kGroup` of them.
template <int kGroup>
class QuantisedRows {
 public:
  void reserve(int rows, int inputs) {
    inputs_ = inputs;
    groups_ = (inputs + kGroup - 1) / kGroup;
    const std::size_t groups = static_cast<std::size_t>(rows + kRowStep - 1) * groups_;
    values_.reserve(groups * kGroup);
    scales_.reserve(groups);
  }

  void quantise(int row, const Activation* from) {
    Quantised* values = values_.get() + static_cast<std::size_t>(row) * groups_ * kGroup;
    RowGroup* scales = scales_.get() + static_cast<std::size_t>(row) * groups_;
    const int whole = inputs_ / kGroup;
    for (int g = 0; g < whole; ++g) scales[g] = quantise_group(from + g * kGroup, values + g * kGroup);
    if (whole == groups_) return;
    alignas(64) Activation rest[kGroup] = {};
    std::copy(from + whole * kGroup, from + inputs_, rest);
    scales[whole] = quantise_group(rest, values + whole * kGroup);
  }

  const Quantised* values(int row) const { return values_.get() + static_cast<std::size_t>(row) * groups_ * kGroup; }
  const RowGroup* scales(int row) const { return scales_.get() + static_cast<std::size_t>(row) * groups_; }
  int groups() const { return groups_; }

 private:
  // A NaN or infinity makes its whole group NaN.
  static RowGroup quantise_group(const Activation* from, Quantised* to) {
    constexpr int kVectors = kGroup / kTileLanes;
    constexpr std::int32_t kInfinity = 0x7f800000;
    TileVector values[kVectors];
    TileInts largest{}, totals[2]{};
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      values[i] = load_activations(from + i * kTileLanes);
      const TileInts size = (TileInts)values[i] & 0x7fffffff;  // floats without sign are ordered as their bits are
      largest = size > largest ? size : largest;
    }
    const std::int32_t bits = max_lanes(largest);
    if (bits >= kInfinity) {
      std::fill(to, to + kGroup, Quantised{});
      return {NAN, 0, {NAN, NAN}};
    }
    float most;
    __builtin_memcpy(&most, &bits, sizeof most);
    const float inverse = most > 0 ? 127.0f / most : 0.0f;
    const TileVector magic = TileVector{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      const TileInts whole = (TileInts)(values[i] * inverse + magic) - (TileInts)magic;
      totals[2 * i / kVectors] += whole;
      store_quantised(to + i * kTileLanes, whole);
    }
    const float scale = most / 127.0f;
    const std::int32_t sums[2] = {sum_lanes(totals[0]), sum_lanes(totals[1])};
    return {scale, -kZeroPoint * (sums[0] + sums[1]), {scale * sums[0], scale * sums[1]}};
  }

  Aligned<Quantised> values_;
  Aligned<RowGroup> scales_;
  int inputs_ = 0, groups_ = 0;
};
