// Matrices of quantised weights: `Int8` has a scale per 64 inputs of an output, `FineInt8` one per 32, `Int4` a scale
// and a least weight per 32. Included per variant, after quantised_rows.hpp.
//
// Tiles are cut as in matrix.hpp. A tile is a sequence of blocks of inputs: each has [lines][outputs] fours of
// consecutive inputs, followed by the outputs' factors. A row's inputs are quantised in groups, too. Products within a
// block are sums of small integers, exact in every variant; the blocks' sums are scaled and added in order.
// (Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022.)

// Rows of the register tile: half of register_tile.hpp's, because it holds the totals of earlier groups beside the sums
// of the current one. With few registers, the totals wait in memory.
#if defined(PARROT_NARROW)
constexpr int quantised_rows_of_group(int panels) { return register_rows(panels); }
#else
constexpr int quantised_rows_of_group(int panels) { return register_rows(panels) / 2; }
#endif

// Whole numbers from -127 to 127 times a scale.
template <int kSize>
struct WholeNumbers {
  static constexpr int kInputs = kSize, kGroup = kSize, kFoursALine = 1, kFactors = 1;

  static TileInts fours(TileInts line, int) { return line; }
  static TileInts signed_fours(TileInts line, int) { return line ^ TileInts(TileBits{} + 0x80808080u); }
  static SumVector start(const RowGroup& group) { return start_sum(group.start); }
  template <class Factors>
  static TileVector scaled(TileVector acc, TileVector sum, const Factors& f, const RowGroup& group, int) {
    return acc + sum * (f.scale * group.scale);
  }
};

// Scales are bf16. They are rounded up before weights are quantised with them, so rounding them loses nothing.
struct Int8 : WholeNumbers<64> {
  static constexpr int kFewestTileRows = 16;
  struct Factors {
    TileVector scale;
    Factors(const std::uint16_t* from, int) : scale(widen_bf16(from)) {}
  };
  static std::uint16_t scale_for(float most) {
    const std::uint16_t scale = to_bf16(most / 127.0f);
    return from_bf16(scale) * 127.0f < most ? scale + 1 : scale;
  }
  static float scale_of(std::uint16_t factor) { return from_bf16(factor); }
};

// Scales are fp16, as in GGUF's Q8_0, so that weights from files in that format are quantised almost without error.
struct FineInt8 : WholeNumbers<32> {
  static constexpr int kFewestTileRows = std::numeric_limits<int>::max();  // the screen never has as many
  struct Factors {
    TileVector scale;
    Factors(const std::uint16_t* from, int) : scale(widen_f16(from)) {}
  };
  static std::uint16_t scale_for(float most) { return to_f16(most / 127.0f); }
  static float scale_of(std::uint16_t factor) { return from_f16(factor); }
};

// Whole numbers from 0 to 15 times a scale, plus a least weight, both in fp16: the blocks of GGUF's Q4_1, not rounded
// again. The low halves of a line's bytes hold one four of inputs, the high halves the four that is sixteen inputs on.
struct Int4 {
  static constexpr int kInputs = 32, kGroup = 64, kFoursALine = 2, kFactors = 2;
  static constexpr int kFewestTileRows = 32;
  static constexpr int kBlockBytes = 20;  // in the file: scale, least, sixteen bytes of two weights

  static TileInts fours(TileInts line, int half) { return (half ? line >> 4 : line) & 0x0f0f0f0f; }
  static TileInts signed_fours(TileInts line, int half) { return fours(line, half); }
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
  static constexpr int kGroup = Format::kGroup;  // inputs per scale of a row

 public:
  using Rows = QuantisedRows<kGroup>;

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
    static_assert(!std::is_same<Format, Int4>::value, "of floats, only int8 is made");
    for (int row = 0; row < rows; ++row)
      for (int b = 0; b < blocks_; ++b)
        pack_block(w + static_cast<std::size_t>(row) * inputs + b * kGroup, std::min(kGroup, inputs - b * kGroup),
                   first + row, b);
  }

  // The same for rows that are blocks in the file's format.
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
  const std::uint8_t* tile(int index, int = 0) const { return data_.get() + static_cast<std::size_t>(index) * tile_size(); }

  // Row `output` of W, as floats.
  void unpack(int output, float* to, int inputs) const {
    static_assert(!std::is_same<Format, Int4>::value, "embeddings are never int4");
    const int column = output % tile_outputs_;
    for (int k = 0; k < inputs; ++k) {
      const std::uint8_t* group = tile(output / tile_outputs_) + k / kGroup * block_size();
      const int weight = static_cast<std::int8_t>(group[place(k % kGroup, column)] - kZeroPoint);
      to[k] = static_cast<float>(weight) * Format::scale_of(factors(group)[column]);
    }
  }

  // Calls done(row, out) for every row of [first, last) with the tile's outputs, row by row.
  template <class Done>
  void rows(int index, const Rows& a, int first, int last, const Ahead& ahead, const Done& done) const {
#if defined(PARROT_HAS_AMX)  // faster for this many rows, although weights are unpacked for it
    if (last - first >= Format::kFewestTileRows) return rows_by_tiles(index, a, first, last, ahead, done);
#endif
    const auto* bytes = static_cast<const std::uint8_t*>(ahead.whole());
    by_register_groups(tile_outputs_ / kLanes,
                       [&](auto panels) { rows_by<decltype(panels)::value>(index, a, first, last, bytes, done); });
  }

 private:
  static constexpr int kLines = Format::kInputs / 4 / Format::kFoursALine;

  // The tile to prefetch while another is multiplied, or null, and the share of it that one of several passes fetches.
  struct Next {
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
    const std::uint16_t factor = Format::scale_for(most);
    const float scale = Format::scale_of(factor), inverse = scale > 0 ? 1.0f / scale : 0.0f;
    const int column = output % tile_outputs_;
    std::uint8_t* to = block(output, b);
    factors(to)[column] = factor;
    for (int k = 0; k < count; ++k) {
      const float whole = std::min(std::max(std::nearbyint(w[k] * inverse), -127.0f), 127.0f);
      to[place(k, column)] = static_cast<std::uint8_t>(static_cast<int>(whole) + kZeroPoint);
    }
  }

  template <int P, class Done>
  void rows_by(int index, const Rows& a, int first, int last, const std::uint8_t* ahead,
               const Done& done) const {
    alignas(64) float out[kMostRegisterRows * PackedMatrix::kMostTileOutputs];
    // Rows are divided evenly among the passes, and so is the prefetching.
    constexpr int kRows = quantised_rows_of_group(P);
    const int passes = (last - first + kRows - 1) / kRows, groups = tile_outputs_ / kLanes / P;
    for (int pass = 0, row = first; pass < passes; ++pass) {
      const int count = (last - row) / (passes - pass);
      for (int group = 0; group < groups; ++group) {
        const Next fetched{ahead, {ahead, tile_size(), pass * groups + group, passes * groups, blocks_}};
        constexpr std::make_integer_sequence<int, kRows> counts;
        passes == 1 ? multiply_any<P, true>(counts, count, index, a, row, group * P * kLanes, out, fetched)
                    : multiply_any<P, false>(counts, count, index, a, row, group * P * kLanes, out, fetched);
      }
      for (int r = 0; r < count; ++r) done(row + r, out + r * tile_outputs_);
      row += count;
    }
  }

  template <int P, bool kOnly, int... Rs>
  void multiply_any(std::integer_sequence<int, Rs...>, int rows, int index, const Rows& a, int row, int column, float* out,
                    const Next& ahead) const {
    (void)((rows == Rs + 1 && (multiply<Rs + 1, P, kOnly>(tile(index), a, row, column, out, ahead), true)) || ...);
  }

  // out[r][column ...] = R rows by P panels, from `column` on. Not inlined, so that surrounding code does not take its
  // registers. An only pass prefetches a line in each turn; one of several passes prefetches its share before each
  // block, outside the inner loop.
  template <int R, int P, bool kOnly>
  __attribute__((noinline)) void multiply(const std::uint8_t* tile, const Rows& a, int row, int column, float* out,
                const Next& ahead) const {
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

#if defined(PARROT_HAS_AMX)

  // The first pass over a tile unpacks its weights for the later ones. Each pass prefetches its share of the next tile.
  template <class Done>
  void rows_by_tiles(int index, const Rows& a, int first, int last, const Ahead& ahead, const Done& done) const {
    alignas(64) float out[kTileRows * PackedMatrix::kMostTileOutputs];
    static thread_local Aligned<std::uint8_t> unpacked;
    unpacked.reserve(static_cast<std::size_t>(tile_outputs_) * blocks_ * Format::kInputs);
    const int rows = last - first, passes = (rows + kTileRows - 1) / kTileRows, panels = tile_outputs_ / kLanes;
    for (int pass = 0; pass < passes; ++pass) {
      const int row = first + rows * pass / passes, count = first + rows * (pass + 1) / passes - row;
      for (int panel = 0; panel < panels; ++panel) {
        const Share share(ahead.tile, tile_size(), (ahead.part * passes + pass) * panels + panel,
                          ahead.parts * passes * panels, blocks_);
        multiply_tiles(count, {a.values(row), a.scales(row), a.groups()}, tile(index) + panel * 4 * kLanes, panel,
                       pass == 0, unpacked.get(), share, out + panel * kLanes);
      }
      for (int r = 0; r < count; ++r) done(row + r, out + r * tile_outputs_);
    }
  }

  // Multiplies rows with the panel that begins at `from`.
  void multiply_tiles(int rows, const QuantisedRowsIn& a, const std::uint8_t* from, int panel, bool unpacks,
                      std::uint8_t* unpacked, const Share& share, float* out) const {
    const int steps = (rows + kRowStep - 1) / kRowStep;
    shape_tiles(steps * kRowStep, 0, Format::kInputs / 4);
    switch (steps) {
      case 1: return multiply_tile<kRowStep>(a, from, panel, unpacks, unpacked, share, out);
      case 2: return multiply_tile<2 * kRowStep>(a, from, panel, unpacks, unpacked, share, out);
      case 3: return multiply_tile<3 * kRowStep>(a, from, panel, unpacks, unpacked, share, out);
      default: return multiply_tile<4 * kRowStep>(a, from, panel, unpacks, unpacked, share, out);
    }
  }

  template <int R>
  __attribute__((noinline)) void multiply_tile(const QuantisedRowsIn& a, const std::uint8_t* from, int panel, bool unpacks,
                                               std::uint8_t* unpacked, const Share& share, float* out) const {
    unpacked += static_cast<std::size_t>(panel) * blocks_ * kLanes * Format::kInputs;
    const auto prepare = [&](int b) {
      std::uint8_t* to = unpacked + static_cast<std::size_t>(b) * kLanes * Format::kInputs;
      share.fetch(b);
      if (unpacks) unpack_panel<Format>(from + b * block_size(), static_cast<std::size_t>(tile_outputs_) * 4, to);
      return to;
    };
    const auto factors_of = [&](int b) {
      return typename Format::Factors(factors(from - panel * 4 * kLanes + b * block_size()) + panel * kLanes,
                                      tile_outputs_);
    };
    multiply_by_tile<Format, R>(a, blocks_, prepare, factors_of, out, tile_outputs_);
  }

#endif

  Aligned<std::uint8_t> data_;
  int outputs_ = 0, inputs_ = 0, blocks_ = 0, tile_outputs_ = 0, tiles_ = 0;
};
