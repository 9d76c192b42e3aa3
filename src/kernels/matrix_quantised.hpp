// Matrices of quantised weights: `Int8` with a scale for sixty-four inputs of an output, `Int4` with a scale and a least
// weight for thirty-two. Included per variant, after matrix.hpp.
//
// Tiles are cut as in matrix.hpp; a tile is, for one block of inputs after the other, [lines][outputs] fours of
// consecutive inputs, and then the outputs' factors. A row's inputs are quantised by groups of sixty-four. Products within
// a block are sums of small integers, exact on every variant; the blocks' sums are scaled and added in order.
// (Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022.)

constexpr int kGroup = 64;  // inputs a scale of a row

// The register tile: half the rows of matrix.hpp's, for beside a group's sums it holds those of all groups before. With
// few registers these wait in memory.
#if defined(PARROT_NARROW)
constexpr int quantised_rows_of_group(int panels) { return rows_of_group(panels); }
#else
constexpr int quantised_rows_of_group(int panels) { return rows_of_group(panels) / 2; }
#endif

// Of a group of a row's inputs: the scale, what sums of products with int8 weights start from, and each half's sum, scaled.
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
constexpr int kTurns = 1;        // of a vector of fours: all four at once
constexpr int kZeroPoint = 128;  // the instruction takes the weights unsigned; `RowGroup::start` makes up for it

static inline SumVector start_sum(std::int32_t start) { return SumVector{} + start; }
static inline FactorVector factor(TileInts fours, int) { return fours; }
static inline SpreadVector spread(const Quantised* a, int) {
  std::int32_t four;
  __builtin_memcpy(&four, a, sizeof four);
  return SpreadVector{} + four;
}
// The instruction itself, because GCC 12 copies the accumulators of its intrinsic through memory; of a copy of the sum,
// because it does so, too, with an array whose elements are operands.
static inline void multiply_add(SumVector& sum, SpreadVector a, FactorVector w) {
  SumVector next = sum;
  __asm__("vpdpbusd %2, %1, %0" : "+v"(next) : "v"(w), "v"(a));
  sum = next;
}
static inline TileVector sum_floats(SumVector sum) { return __builtin_convertvector(sum, TileVector); }
static inline void store_quantised(Quantised* to, TileInts v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)v));
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

#endif

// The rows of a matrix's input: int8 values, a scale a group.
class QuantisedRows {
 public:
  void reserve(int rows, int inputs) {
    inputs_ = inputs;
    groups_ = (inputs + kGroup - 1) / kGroup;
    const std::size_t groups = static_cast<std::size_t>(rows) * groups_;
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
  // What is no number makes its group none.
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

// Whole numbers from -127 to 127 times a scale in bf16.
struct Int8 {
  static constexpr int kInputs = 64, kFoursALine = 1, kFactors = 1;

  static TileInts fours(TileInts line, int) { return line; }
  static SumVector start(const RowGroup& group) { return start_sum(group.start); }
  struct Factors {
    TileVector scale;
    Factors(const std::uint16_t* from, int) : scale(widen_bf16(from)) {}
  };
  static TileVector scaled(TileVector acc, TileVector sum, const Factors& f, const RowGroup& group, int) {
    return acc + sum * (f.scale * group.scale);
  }
};

// Whole numbers from 0 to 15 times a scale, plus a least weight, both in fp16: the blocks of GGUF's Q4_1, nothing rounded
// again. A line has a four in its low halves of bytes, and in the high ones that which lies sixteen inputs on.
struct Int4 {
  static constexpr int kInputs = 32, kFoursALine = 2, kFactors = 2;
  static constexpr int kBlockBytes = 20;  // in the file: scale, least, sixteen bytes of two weights

  static TileInts fours(TileInts line, int half) { return (half ? line >> 4 : line) & 0x0f0f0f0f; }
  static SumVector start(const RowGroup&) { return start_sum(0); }
  struct Factors {
    TileVector scale, least;
    Factors(const std::uint16_t* from, int outputs) : scale(widen_f16(from)), least(widen_f16(from + outputs)) {}
  };
  static TileVector scaled(TileVector acc, TileVector sum, const Factors& f, const RowGroup& group, int half) {
    acc += sum * (f.scale * group.scale);
    return acc + f.least * group.halves[half];
  }
};

template <class Format>
class QuantisedMatrix {
 public:
  void reset(int outputs, int inputs, int tile_outputs) {
    outputs_ = outputs;
    inputs_ = inputs;
    blocks_ = (inputs + Format::kInputs - 1) / Format::kInputs;
    tile_outputs_ = tile_outputs;
    tiles_ = (outputs + tile_outputs - 1) / tile_outputs;
    data_.reset(static_cast<std::size_t>(tiles_) * tile_size());
  }

  // Packs `rows` rows of W, [rows, inputs], as the outputs from `first` on.
  void pack(const float* w, int rows, int inputs, int first) {
    static_assert(std::is_same<Format, Int8>::value, "of floats, only int8 is made");
    for (int row = 0; row < rows; ++row)
      for (int b = 0; b < blocks_; ++b)
        pack_block(w + static_cast<std::size_t>(row) * inputs + b * kGroup, std::min(kGroup, inputs - b * kGroup),
                   first + row, b);
  }

  // The same of rows of blocks as a file has them.
  void pack(const std::uint8_t* from, int rows, int, int first) {
    static_assert(std::is_same<Format, Int4>::value, "a file's blocks are int4");
    for (int output = first; output < first + rows; ++output)
      for (int b = 0; b < blocks_; ++b, from += Int4::kBlockBytes) {
        std::uint8_t* to = block(output, b);
        const int column = output % tile_outputs_;
        for (int half = 0; half < 2; ++half)
          std::memcpy(factors(to) + half * tile_outputs_ + column, from + 2 * half, sizeof(std::uint16_t));
        for (int k = 0; k < Int4::kInputs / 2; ++k) to[place(k, column)] = from[2 * sizeof(std::uint16_t) + k];
      }
  }

  int tiles() const { return tiles_; }
  int tile_outputs() const { return tile_outputs_; }
  const std::uint8_t* tile(int index) const { return data_.get() + static_cast<std::size_t>(index) * tile_size(); }

  // Row `output` of W, as floats.
  void unpack(int output, float* to, int inputs) const {
    static_assert(std::is_same<Format, Int8>::value, "embeddings are never int4");
    const int column = output % tile_outputs_;
    for (int k = 0; k < inputs; ++k) {
      const std::uint8_t* group = tile(output / tile_outputs_) + k / kGroup * block_size();
      const int weight = static_cast<std::int8_t>(group[place(k % kGroup, column)] - kZeroPoint);
      to[k] = static_cast<float>(weight) * from_bf16(factors(group)[column]);
    }
  }

  // Calls done(row, out) for every row of [first, last) with the tile's outputs, row by row; `ahead` is the tile to
  // be read next, or null.
  template <class Done>
  void rows(int index, const QuantisedRows& a, int first, int last, const std::uint8_t* ahead,
            const Done& done) const {
    by_groups_of(tile_outputs_ / kLanes,
                 [&](auto panels) { rows_by<decltype(panels)::value>(index, a, first, last, ahead, done); });
  }

 private:
  static constexpr int kLines = Format::kInputs / 4 / Format::kFoursALine;

  // The tile that is fetched while another is multiplied, or null, and what one of several passes fetches of it.
  struct Ahead {
    const std::uint8_t* tile;
    Share share;
  };

  std::size_t lines_size() const { return static_cast<std::size_t>(tile_outputs_) * 4 * kLines; }
  std::size_t block_size() const {
    return lines_size() + (tile_outputs_ * Format::kFactors * sizeof(std::uint16_t) + 63) / 64 * 64;
  }
  std::size_t tile_size() const { return blocks_ * block_size(); }
  std::uint8_t* block(int output, int b) {
    return data_.get() + static_cast<std::size_t>(output / tile_outputs_) * tile_size() + b * block_size();
  }
  const std::uint16_t* factors(const std::uint8_t* block) const {
    return reinterpret_cast<const std::uint16_t*>(block + lines_size());
  }
  std::uint16_t* factors(std::uint8_t* block) const {
    return reinterpret_cast<std::uint16_t*>(block + lines_size());
  }
  std::size_t place(int input, int column) const {
    return (static_cast<std::size_t>(input / 4) * tile_outputs_ + column) * 4 + input % 4;
  }

  void pack_block(const float* w, int count, int output, int b) {
    float most = 0;
    for (int k = 0; k < count; ++k) most = std::max(most, std::fabs(w[k]));
    // Rounded up, and known before the weights are: a scale in bf16 costs nothing.
    std::uint16_t scale = to_bf16(most / 127.0f);
    if (from_bf16(scale) * 127.0f < most) ++scale;
    const float inverse = most > 0 ? 1.0f / from_bf16(scale) : 0.0f;
    const int column = output % tile_outputs_;
    std::uint8_t* to = block(output, b);
    factors(to)[column] = scale;
    for (int k = 0; k < count; ++k)
      to[place(k, column)] = static_cast<std::uint8_t>(static_cast<int>(std::nearbyint(w[k] * inverse)) + kZeroPoint);
  }

  template <int P, class Done>
  void rows_by(int index, const QuantisedRows& a, int first, int last, const std::uint8_t* ahead,
               const Done& done) const {
    alignas(64) float out[kMostRows * PackedMatrix::kMostTileOutputs];
    // Rows are dealt evenly to the passes, and so is what is fetched ahead.
    constexpr int kRows = quantised_rows_of_group(P);
    const int passes = (last - first + kRows - 1) / kRows, groups = tile_outputs_ / kLanes / P;
    for (int pass = 0, row = first; pass < passes; ++pass) {
      const int count = (last - row) / (passes - pass);
      for (int group = 0; group < groups; ++group) {
        const Ahead fetched{ahead, {ahead, tile_size(), pass * groups + group, passes * groups, blocks_}};
        constexpr std::make_integer_sequence<int, kRows> counts;
        passes == 1 ? multiply_any<P, true>(counts, count, index, a, row, group * P * kLanes, out, fetched)
                    : multiply_any<P, false>(counts, count, index, a, row, group * P * kLanes, out, fetched);
      }
      for (int r = 0; r < count; ++r) done(row + r, out + r * tile_outputs_);
      row += count;
    }
  }

  template <int P, bool kOnly, int... Rs>
  void multiply_any(std::integer_sequence<int, Rs...>, int rows, int index, const QuantisedRows& a, int row, int column,
                    float* out, const Ahead& ahead) const {
    (void)((rows == Rs + 1 && (multiply<Rs + 1, P, kOnly>(tile(index), a, row, column, out, ahead), true)) || ...);
  }

  // out[r][column ...] = R rows by P panels, from `column` on. Not inlined: what surrounds it must not take its registers.
  // The only pass fetches a line in each turn; one of several its share before each block, which leaves the loop alone.
  template <int R, int P, bool kOnly>
  __attribute__((noinline)) void multiply(const std::uint8_t* tile, const QuantisedRows& a, int row, int column, float* out,
                const Ahead& ahead) const {
    constexpr int kVectors = P * kLanes / kTileLanes;
    const std::size_t a_stride = static_cast<std::size_t>(a.groups()) * kGroup;
    const std::size_t step = static_cast<std::size_t>(tile_outputs_) * 4;
    const Quantised* values = a.values(row);
    const RowGroup* row_groups = a.scales(row);
    TileVector acc[R][kVectors];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] = TileVector{};
    for (int b = 0; b < blocks_; ++b) {
      const std::uint8_t* block = tile + b * block_size();
      const std::uint8_t* panels = block + column * 4;
      const std::uint8_t* lines = kOnly && ahead.tile ? ahead.tile + b * block_size() + column * 4 : nullptr;
      const RowGroup* groups = row_groups + b * Format::kInputs / kGroup;
      const Quantised* inputs = values + b * Format::kInputs;
      if constexpr (!kOnly) ahead.share.fetch(b);
      SumVector sums[R][kVectors];
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[r][v] = Format::start(groups[r * a.groups()]);
#pragma GCC unroll 1
      for (int line = 0; line < kLines; ++line, panels += step) {
        if (lines) {
#pragma GCC unroll 4
          for (int p = 0; p < P; ++p) prefetch_l2(lines + line * step + p * 4 * kLanes);
        }
#pragma GCC unroll 2
        for (int part = 0; part < Format::kFoursALine; ++part) {
          TileInts fours[kVectors];
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            __builtin_memcpy(&fours[v], panels + v * 4 * kTileLanes, sizeof fours[v]);
            fours[v] = Format::fours(fours[v], part);
          }
#pragma GCC unroll 4
          for (int turn = 0; turn < kTurns; ++turn) {
            FactorVector factors[kVectors];
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) factors[v] = factor(fours[v], turn);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
              const SpreadVector spreads = spread(inputs + r * a_stride + 4 * (line + part * kLines), turn);
#pragma GCC unroll 4
              for (int v = 0; v < kVectors; ++v) multiply_add(sums[r][v], spreads, factors[v]);
            }
          }
        }
      }
      const std::uint16_t* block_factors = factors(block) + column;
      if (lines) {
        const std::uint8_t* following = ahead.tile + b * block_size();
#pragma GCC unroll 2
        for (int f = 0; f < Format::kFactors; ++f)
#pragma GCC unroll 4
          for (int p = 0; p < P; ++p) prefetch_l2(factors(following) + f * tile_outputs_ + column + p * kLanes);
      }
      const int half = b % (kGroup / Format::kInputs);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const typename Format::Factors scales(block_factors + v * kTileLanes, tile_outputs_);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
          acc[r][v] = Format::scaled(acc[r][v], sum_floats(sums[r][v]), scales, groups[r * a.groups()], half);
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        store_tile(out + static_cast<std::size_t>(r) * tile_outputs_ + column + v * kTileLanes, acc[r][v]);
  }

  Aligned<std::uint8_t> data_;
  int outputs_ = 0, inputs_ = 0, blocks_ = 0, tile_outputs_ = 0, tiles_ = 0;
};
