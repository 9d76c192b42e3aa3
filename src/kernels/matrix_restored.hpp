// A bf16 matrix that its file has in 4-bit blocks, kept as those blocks, from which the bf16 weights are restored
// during multiplication (docs/adr/019). Included per variant, after matrix_quantised.hpp.
//
// With few rows a step spends most of its time reading weights, and blocks are a third of the bytes. Restored weights
// are bit-identical to those in PackedMatrix: d * q has few enough bits to be exact, so there is one rounding when the
// least weight is added, as when the blocks were converted to floats, and one to bf16. The products are summed in the
// same order, so a row's result does not depend on which of the two forms it was multiplied with.
//
// A tile holds, for each panel and each block, the sixteen outputs' scales and least weights, then two pairs of lines
// for sixteen inputs each: one line for the panel's first eight outputs, one for the others. A lane has every other
// input of one output, lowest bits first, and the next lane the inputs between them, so restored weights form the pairs
// that products need.

#if defined(PARROT_HAS_BF16)

class RestoredMatrix {
 public:
  // With more rows, the arithmetic of restoring takes longer than reading fewer bytes saves.
#if defined(PARROT_HAS_AMX)
  static constexpr int kMostRows = 64;
#else
  static constexpr int kMostRows = 7;
#endif

  bool present() const { return blocks_ > 0; }

  void reset(int outputs, int inputs, int tile_outputs) {
    blocks_ = inputs / Int4::kInputs;
    panels_ = tile_outputs / kLanes;
    data_.reset(static_cast<std::size_t>((outputs + tile_outputs - 1) / tile_outputs) * tile_size());
  }

  // Packs `rows` rows of blocks, as the outputs from `first` on.
  void pack(const std::uint8_t* from, int rows, int first) {
    for (int output = first; output < first + rows; ++output)
      for (int b = 0; b < blocks_; ++b, from += Int4::kBlockBytes) pack_block(from, output, b);
  }

  const std::uint8_t* tile(int index) const { return data_.get() + static_cast<std::size_t>(index) * tile_size(); }

  // As PackedMatrix::rows, for the first `rows` rows, which are at most `kMostRows`.
  template <class Done>
  void rows(int index, const Activation* a, int rows, const Ahead& ahead, const Done& done) const {
    alignas(64) float out[kMostRows * PackedMatrix::kMostTileOutputs];
    multiply_all(rows, index, a, static_cast<const std::uint8_t*>(ahead.whole()), out);
    for (int r = 0; r < rows; ++r) done(r, out + r * panels_ * kLanes);
  }

 private:
  static constexpr int kLine = 64, kLines = 5;  // per block of a panel: one line of factors, then four of weights
  static constexpr int kSpread = 8;             // outputs per line of weights
  static constexpr int kPairs = 8;              // pairs of inputs per two lines

  std::size_t panel_size() const { return static_cast<std::size_t>(blocks_) * kLines * kLine; }
  std::size_t tile_size() const { return panels_ * panel_size(); }

  void pack_block(const std::uint8_t* from, int output, int b) {
    const int lane = output % kLanes;
    std::uint8_t* to = data_.get() + static_cast<std::size_t>(output / kLanes) * panel_size() + b * kLines * kLine;
    for (int half = 0; half < 2; ++half) std::memcpy(to + (half * kLanes + lane) * 2, from + 2 * half, 2);
    for (int k = 0; k < Int4::kInputs; ++k) {
      const int byte = from[4 + k % 16], weight = k < 16 ? byte & 15 : byte >> 4;
      const int pair = k / 2, place = pair % kPairs;
      std::uint8_t* line = to + (1 + pair / kPairs * 2 + lane / kSpread) * kLine;
      line[4 * (lane % kSpread * 2 + k % 2) + place / 2] |= static_cast<std::uint8_t>(weight << (place % 2 * 4));
    }
  }

  // The factors of eight of a block's outputs, each in two neighbouring lanes.
  struct Factors {
    __m512 scale, least;
  };

  static Factors spread(const std::uint8_t* block, int side) {
    const __m512i lanes = _mm512_add_epi32(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                           _mm512_set1_epi32(side * kSpread));
    const auto* factors = reinterpret_cast<const std::uint16_t*>(block);
    return {_mm512_permutexvar_ps(lanes, (__m512)widen_f16(factors)),
            _mm512_permutexvar_ps(lanes, (__m512)widen_f16(factors + kLanes))};
  }

  // Restores sixteen weights: the lowest four bits of each lane, all that the permutation looks at, choose from
  // `whole`.
  static __m512 restore(__m512i line, int k, __m512 whole, const Factors& factors) {
    const __m512 number = _mm512_permutexvar_ps(k ? _mm512_srli_epi32(line, 4 * k) : line, whole);
    return _mm512_fmadd_ps(number, factors.scale, factors.least);
  }

  static void fetch_block(const std::uint8_t* block) {
#pragma GCC unroll 7
    for (int line = 0; line < kLines; ++line) prefetch_l2(block + line * kLine);
  }

#if defined(PARROT_HAS_AMX)

  static constexpr int kRestored = Int4::kInputs / 2 * kPanel;  // elements of one restored block of a panel

  // More rows than the tile registers take are multiplied in passes; the first keeps the restored weights for the
  // others.
  void multiply_all(int rows, int index, const Activation* a, const std::uint8_t* ahead, float* out) const {
    static thread_local Aligned<std::uint16_t> kept;
    const int passes = (rows + rows_of_group(2) - 1) / rows_of_group(2), places = passes > 1 ? ~0 : 1;
    kept.reserve(static_cast<std::size_t>(passes > 1 ? blocks_ : 2) * 2 * kRestored);
    for (int panel = 0; panel < panels_; panel += 2)
      for (int pass = 0; pass < passes; ++pass) {
        const int first = rows * pass / passes, count = rows * (pass + 1) / passes - first;
        const std::uint8_t* from = pass ? nullptr : tile(index) + panel * panel_size();
        const std::uint8_t* next = pass || !ahead ? nullptr : ahead + panel * panel_size();
        const Activation* inputs = a + static_cast<std::size_t>(first) * blocks_ * Int4::kInputs;
        float* to = out + (first * panels_ + panel) * kLanes;
        shape_tiles(count);
        count > kTileRows ? multiply<true>(from, inputs, next, kept.get(), places, to)
                          : multiply<false>(from, inputs, next, kept.get(), places, to);
      }
  }

  // Multiplies rows with two panels. Their weights are restored block by block into `kept`, where tile registers load
  // them; if `from` is null, they are there already.
  template <bool kBoth>
  __attribute__((noinline)) void multiply(const std::uint8_t* from, const Activation* a, const std::uint8_t* ahead,
                                          std::uint16_t* kept, int places, float* out) const {
    const std::size_t stride = static_cast<std::size_t>(blocks_) * Int4::kInputs * sizeof *a;
    TileSums<2, kBoth>::clear();
    for (int b = 0; b < blocks_; ++b) {
      std::uint16_t* panels = kept + static_cast<std::size_t>(b & places) * 2 * kRestored;
      for (int p = 0; p < 2 && from; ++p) {
        restore_panel(from + p * panel_size() + b * kLines * kLine, panels + p * kRestored);
        if (ahead) fetch_block(ahead + p * panel_size() + b * kLines * kLine);
      }
      TileSums<2, kBoth>::add(a + b * Int4::kInputs, stride, panels, panels + kRestored, 2 * kPanel);
    }
    TileSums<2, kBoth>::store(out, panels_ * kLanes);
  }

  static void restore_panel(const std::uint8_t* block, std::uint16_t* to) {
    const __m512 whole = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const Factors low = spread(block, 0), high = spread(block, 1);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const std::uint8_t* lines = block + (1 + 2 * half) * kLine;
      const __m512i lows = _mm512_load_si512(lines), highs = _mm512_load_si512(lines + kLine);
#pragma GCC unroll 8
      for (int k = 0; k < kPairs; ++k)
        _mm512_store_si512(to + (half * kPairs + k) * kPanel, (__m512i)_mm512_cvtne2ps_pbh(
                               restore(highs, k, whole, high), restore(lows, k, whole, low)));
    }
  }

#else

  void multiply_all(int rows, int index, const Activation* a, const std::uint8_t* ahead, float* out) const {
    multiply_any(std::make_integer_sequence<int, kMostRows>{}, rows, index, a, ahead, out);
  }

  template <int... Rs>
  void multiply_any(std::integer_sequence<int, Rs...>, int rows, int index, const Activation* a,
                    const std::uint8_t* ahead, float* out) const {
    (void)((rows == Rs + 1 && (multiply_panels<Rs + 1>(index, a, ahead, out), true)) || ...);
  }

  // Takes as many panels side by side as are needed to hide the latency of an accumulation.
  template <int R>
  void multiply_panels(int index, const Activation* a, const std::uint8_t* ahead, float* out) const {
    constexpr int kSide = R == 1 ? 3 : R == 2 ? 2 : 1;
    int panel = 0;
    for (; panel + kSide <= panels_; panel += kSide) multiply<R, kSide>(index, panel, a, ahead, out);
    for (; panel < panels_; ++panel) multiply<R, 1>(index, panel, a, ahead, out);
  }

  // out[r][panel ...] = R rows by P panels. Not inlined, so that surrounding code does not take its registers.
  template <int R, int P>
  __attribute__((noinline)) void multiply(int index, int panel, const Activation* a, const std::uint8_t* ahead,
                                          float* out) const {
    const std::size_t stride = static_cast<std::size_t>(blocks_) * Int4::kInputs;
    const __m512 whole = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const std::uint8_t* from = tile(index) + panel * panel_size();
    if (ahead) ahead += panel * panel_size();
    TileVector acc[R][P];
#pragma GCC unroll 7
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) acc[r][p] = TileVector{};
    for (int b = 0; b < blocks_; ++b, from += kLines * kLine) {
      Factors low[P], high[P];
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        low[p] = spread(from + p * panel_size(), 0), high[p] = spread(from + p * panel_size(), 1);
        if (ahead) fetch_block(ahead + p * panel_size() + b * kLines * kLine);
      }
#pragma GCC unroll 1
      for (int half = 0; half < 2; ++half, a += 2 * kPairs) {
        __m512i lows[P], highs[P];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
          const std::uint8_t* lines = from + p * panel_size() + (1 + 2 * half) * kLine;
          lows[p] = _mm512_load_si512(lines), highs[p] = _mm512_load_si512(lines + kLine);
        }
#pragma GCC unroll 7
        for (int k = 0; k < kPairs; ++k) {
          PanelVector weights[P];
#pragma GCC unroll 4
          for (int p = 0; p < P; ++p)
            weights[p] = _mm512_cvtne2ps_pbh(restore(highs[p], k, whole, high[p]), restore(lows[p], k, whole, low[p]));
#pragma GCC unroll 7
          for (int r = 0; r < R; ++r) {
            const PairVector pair = splat_pair(a + r * stride + 2 * k);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) accumulate(acc[r][p], pair, weights[p]);
          }
        }
      }
    }
#pragma GCC unroll 7
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) store_tile(out + (r * panels_ + panel + p) * kLanes, acc[r][p]);
  }

#endif

  Aligned<std::uint8_t> data_;
  int blocks_ = 0, panels_ = 0;
};

#else

// Without bf16 instructions, restoring takes longer than reading.
class RestoredMatrix {
 public:
  static constexpr int kMostRows = 0;

  bool present() const { return false; }
  void reset(int, int, int) {}
  void pack(const std::uint8_t*, int, int) {}
  const std::uint8_t* tile(int) const { return nullptr; }
  template <class Done>
  void rows(int, const Activation*, int, const Ahead&, const Done&) const {}
};

#endif
