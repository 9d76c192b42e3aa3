// Matrices in bf16, packed for the tile that multiplies them. Included per variant, after memory.hpp and the tile.
//
// A weight W [out, in] is cut into tiles of 48 to 256 outputs. A tile is [in / 2][outputs][2] in bf16: the pairs of
// consecutive inputs that one instruction multiplies are adjacent, and sixteen outputs (a panel) fill a vector. (With
// AMX, every two panels are laid out so, one couple after the other.) Each pass over a few rows reads a tile exactly
// once, front to back, a few panels side by side, so batches of one row run at the speed of memory.

// Prefetching that keeps memory evenly busy: each of several passes over a tile fetches its share of the next tile's
// cache lines, spread over the iterations ("turns") of its loop.
class Share {
 public:
  // Share number `index` of `count` of the `bytes` at `start`, spread over `turns` turns; nothing where `start` is
  // null.
  Share(const void* start, std::size_t bytes, int index, int count, int turns) {
    if (!start) return;
    const std::size_t lines = (bytes + kLine - 1) / kLine, first = lines * index / count;
    start_ = static_cast<const char*>(start) + first * kLine;
    a_turn_ = static_cast<std::uint32_t>(((lines * (index + 1) / count - first) << kFraction) / turns + 1);
  }

  // Always inlined, because GCC drops calls of functions that only prefetch.
  __attribute__((always_inline)) void fetch(int turn) const {
    if (!a_turn_) return;
    for (std::uint32_t line = turn * a_turn_ >> kFraction; line < (turn + 1) * a_turn_ >> kFraction; ++line)
      prefetch_l2(start_ + line * kLine);
  }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr int kFraction = 16;  // fractional bits of `a_turn_`, the lines per turn
  const char* start_ = nullptr;
  std::uint32_t a_turn_ = 0;
};

// What is read next and is to be prefetched meanwhile: a tile of this matrix or of another, or nothing. Where several
// units share the prefetching, this one fetches part number `part` of `parts`.
struct Ahead {
  const void* tile = nullptr;
  int part = 0, parts = 1;

  // For callers that do not split the prefetching: the last unit fetches the whole tile, the others nothing.
  const void* whole() const { return part + 1 == parts ? tile : nullptr; }
};

class PackedMatrix {
  std::size_t place_of_panel(int panel) const {
    const int side = together(tile_outputs_ / kLanes);
    return panel / side * pairs_ * stride_ + panel % side * kPanel;
  }
  std::size_t place_of_column(int column) const { return place_of_panel(column / kLanes) + column % kLanes * 2; }
  auto panels(int index, int first) const {
    const std::uint16_t* from = tile(index) + place_of_panel(first);
    return panels_at(stride_, [from, stride = stride_](int p, int k) { return from + k * stride + p * kPanel; });
  }

 public:
  // Cuts `outputs` rows into tiles of `tile_outputs` (a multiple of 16), the last one padded with zeros.
  void reset(int outputs, int inputs, int tile_outputs) {
    outputs_ = outputs;
    pairs_ = (inputs + 1) / 2;
    tile_outputs_ = tile_outputs;
    tiles_ = (outputs + tile_outputs - 1) / tile_outputs;
    stride_ = static_cast<std::size_t>(together(tile_outputs / kLanes)) * kPanel;
    data_.reset(static_cast<std::size_t>(tiles_) * tile_size());
  }

  // Packs `rows` rows of W, [rows, inputs], as the outputs from `first` on.
  void pack(const float* w, int rows, int inputs, int first) {
    for (int row = 0; row < rows;) {
      const int column = (first + row) % tile_outputs_, count = std::min(tile_outputs_ - column, rows - row);
      std::uint16_t* tile = data_.get() + static_cast<std::size_t>((first + row) / tile_outputs_) * tile_size();
      for (int i = 0; i < count; ++i) {
        const float* from = w + static_cast<std::size_t>(row + i) * inputs;
        std::uint16_t* to = tile + place_of_column(column + i);
        for (int k = 0; k < inputs; ++k) to[k / 2 * stride_ + k % 2] = to_bf16(from[k]);
      }
      row += count;
    }
  }

  int tiles() const { return tiles_; }
  int tile_outputs() const { return tile_outputs_; }
  int outputs() const { return outputs_; }
  int pairs() const { return pairs_; }
  const std::uint16_t* tile(int index) const { return data_.get() + static_cast<std::size_t>(index) * tile_size(); }

  // Row `output` of W, as floats.
  void unpack(int output, float* to, int inputs) const {
    const std::uint16_t* from = tile(output / tile_outputs_) + place_of_column(output % tile_outputs_);
    for (int k = 0; k < inputs; ++k) to[k] = from_bf16(from[k / 2 * stride_ + k % 2]);
  }

  // Computes out[r][0 .. tile_outputs) for up to rows_of_group(P) rows of `a`. fetching(first) makes the fetcher that
  // is used while the panels from `first` on are multiplied.
  template <int P, class Fetching>
  void multiply(int index, const Activation* a, int rows, float* out, const Fetching& fetching) const {
    for (int first = 0; first < tile_outputs_ / kLanes; first += P)
      micro_group<P>(rows, {a, static_cast<std::size_t>(pairs_) * 2}, pairs_, panels(index, first),
                     {out + first * kLanes, static_cast<std::size_t>(tile_outputs_)}, fetching(first));
  }

  // Computes the sixteen outputs of one panel for one row, bit-identical to those of multiplying the whole tile.
  void panel(int index, int panel, const Activation* row, float* out) const {
    micro_group<1>(1, {row, 0}, pairs_, panels(index, panel), {out, kLanes}, fetcher(false, [](int) {}));
  }

  // Calls done(row, out) for every row of [first, last) with the tile's outputs, row by row.
  template <class Done>
  void rows(int index, const Activation* a, int first, int last, const Ahead& ahead, const Done& done) const {
    by_groups_of(tile_outputs_ / kLanes,
                 [&](auto panels) { rows_by<decltype(panels)::value>(index, a, first, last, ahead, done); });
  }

 private:
  template <int P, class Done>
  void rows_by(int index, const Activation* a, int first, int last, const Ahead& ahead,
               const Done& done) const {
    alignas(64) float out[kMostRows * kMostTileOutputs];
    // Rows are divided evenly among passes, and so are the lines to prefetch. With few passes these are spread over all
    // turns; else each turn fetches one pair until the share is done. One loop for both would need too many registers.
    const int rows = last - first, passes = (rows + rows_of_group(P) - 1) / rows_of_group(P);
    const auto* next = static_cast<const std::uint16_t*>(ahead.tile);
    const int share = next ? (pairs_ + passes - 1) / passes : 0, groups = tile_outputs_ / kLanes / P;
    for (int pass = 0; pass < passes; ++pass) {
      const int row = first + rows * pass / passes, count = first + rows * (pass + 1) / passes - row;
      const Activation* from = a + static_cast<std::size_t>(row) * pairs_ * 2;
      if (ahead.parts > 1 || (passes > 1 && passes <= kMostEvenPasses)) {
        multiply<P>(index, from, count, out, [&](int panel) {
          const Share lines(next, tile_size() * sizeof *next, (ahead.part * passes + pass) * groups + panel / P,
                            ahead.parts * passes * groups, pairs_);
          return fetcher(next, [=](int k) { lines.fetch(k); });
        });
      } else {
        const int fetched = std::min(share * pass, pairs_), ahead_pairs = std::min(share, pairs_ - fetched);
        multiply<P>(index, from, count, out, [&](int panel) {
          const std::uint16_t* lines = next + static_cast<std::size_t>(fetched) * tile_outputs_ * 2 +
                                       static_cast<std::size_t>(panel) * ahead_pairs * kPanel;
          return fetcher(ahead_pairs > 0, [=](int k) {
            if (k >= ahead_pairs) return;
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) prefetch_l2(lines + (k * P + p) * kPanel);
          });
        });
      }
      for (int r = 0; r < count; ++r) done(row + r, out + r * tile_outputs_);
    }
  }

 public:
  static constexpr int kMostTileOutputs = 256;

 private:
  static constexpr int kMostEvenPasses = 11;  // with more, each fetches so little that spreading it costs more

  std::size_t tile_size() const { return static_cast<std::size_t>(pairs_) * tile_outputs_ * 2; }

  Aligned<std::uint16_t> data_;
  int outputs_ = 0, pairs_ = 0, tile_outputs_ = 0, tiles_ = 0;
  std::size_t stride_ = 0;  // elements from one pair of a panel to the next
};
