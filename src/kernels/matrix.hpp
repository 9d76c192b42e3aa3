// Matrices packed for the register tile, and the tile itself. Included per variant, after simd.hpp.
//
// A weight W [out, in] is cut into tiles of 48 or 64 outputs; a tile is [in / 2][outputs][2] in bf16: the pairs of
// consecutive inputs that one instruction multiplies lie together, sixteen outputs (a panel) in a vector. A tile
// is read front to back exactly once for every few rows, so batches of one run at the speed of memory.

constexpr int kPanel = 2 * kLanes;  // elements of one pair of k over sixteen columns

// The register tile: as many rows by panels as leave registers for the panels of one step and one row's pair.
#if defined(PARROT_HAS_BF16)
constexpr int kPageGroup = 4;  // panels side by side where any number would do
constexpr int rows_of_group(int panels) { return panels == 4 ? 6 : panels == 3 ? 8 : 12; }
#elif defined(__AVX512F__)
constexpr int kPageGroup = 2;
constexpr int rows_of_group(int panels) { return panels == 3 ? 8 : 12; }
#else
#define PARROT_NARROW 1
constexpr int kPageGroup = 1;
#if defined(__AVX2__)
constexpr int rows_of_group(int) { return 4; }
#elif defined(__aarch64__)
constexpr int rows_of_group(int) { return 4; }
#else
constexpr int rows_of_group(int) { return 2; }
#endif
#endif
constexpr int group_of(int panels) {
  return kPageGroup > 1 && panels % 3 == 0 ? 3 : panels % kPageGroup == 0 ? kPageGroup : 1;
}
constexpr int kMostRows = 12;

// Zeroed memory on cache-line boundaries; pages of it that nobody touches are never taken from the system. Pieces
// are cut from chunks of huge pages: a step reads all weights, and would miss the TLB on every 4 KiB of them. Under
// AddressSanitizer each piece is alone, so that reading past its end shows.
class Chunk {
 public:
  static std::shared_ptr<void> piece(std::size_t bytes) {
    static std::mutex mutex;
    static std::weak_ptr<Chunk> current;
    const std::lock_guard<std::mutex> lock(mutex);
    bytes = (bytes + 63) / 64 * 64;
    std::shared_ptr<Chunk> chunk = current.lock();
    if (!chunk || chunk->size_ - chunk->used_ < bytes) {
      const bool common = !kAlone && bytes < kChunk / 4;  // else it gets a chunk of its own
      chunk = std::make_shared<Chunk>(common ? kChunk : bytes);
      if (common) current = chunk;
    }
    void* start = chunk->start_ + chunk->used_;
    chunk->used_ += bytes;
    return {chunk, start};
  }

  explicit Chunk(std::size_t bytes) : size_(bytes), memory_(std::calloc(bytes + kBoundary, 1)) {
    if (!memory_) throw std::bad_alloc();
    void* start = memory_.get();
    std::size_t room = bytes + kBoundary;
    start_ = static_cast<char*>(std::align(kBoundary, bytes, start, room));
#if defined(MADV_HUGEPAGE)
    if (!kAlone) madvise(start_, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr bool kAlone = true;
#else
  static constexpr bool kAlone = false;
#endif
  static constexpr std::size_t kHugePage = std::size_t{2} << 20, kChunk = 16 * kHugePage;
  static constexpr std::size_t kBoundary = kAlone ? 64 : kHugePage;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::size_t size_, used_ = 0;
  std::unique_ptr<void, Free> memory_;
  char* start_;
};

template <class T>
class Aligned {
 public:
  // Contents are lost, and zero.
  void reset(std::size_t count) {
    memory_ = Chunk::piece(count * sizeof(T));
    data_ = static_cast<T*>(memory_.get());
    size_ = count;
  }
  // At least this many; contents are lost when it grows.
  void reserve(std::size_t count) {
    if (count > size_) reset(count + count / 2);
  }
  void fill(T value) { std::fill(data_, data_ + size_, value); }
  T* get() const { return data_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  std::shared_ptr<void> memory_;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// out[r][p * 16 ...] = sum over k of a[r][k] * b(p, k): R rows by P panels held in registers, k in order.
// `fetch(k)` is called with every k, to fetch what is wanted next. Every loop over the tile is unrolled from the start,
// and no address of an accumulator is taken, or GCC keeps a copy of them all in memory.
template <int R, int P, class B, class Fetch>
static inline void micro(const Activation* a, std::size_t a_stride, int pairs, const B& b, float* out,
                         std::size_t out_stride, const Fetch& fetch) {
  constexpr int kVectors = kLanes / kTileLanes;  // of a panel
  TileVector acc[R][P * kVectors];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < P * kVectors; ++v) acc[r][v] = TileVector{};
  for (int k = 0; k < pairs; ++k) {
    PanelVector panel[P * kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < P * kVectors; ++v) panel[v] = load_panel(b(v / kVectors, k) + v % kVectors * 2 * kTileLanes);
    fetch(k);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const PairVector pair = splat_pair(a + r * a_stride + 2 * k);
#pragma GCC unroll 16
      for (int v = 0; v < P * kVectors; ++v) accumulate(acc[r][v], pair, panel[v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < P * kVectors; ++v) store_tile(out + r * out_stride + v * kTileLanes, acc[r][v]);
}

template <int P, class B, class Fetch, int... Rs>
static inline void micro_rows(std::integer_sequence<int, Rs...>, int rows, const Activation* a,
                              std::size_t a_stride, int pairs, const B& b, float* out, std::size_t out_stride,
                              const Fetch& fetch) {
  (void)((rows == Rs + 1 && (micro<Rs + 1, P>(a, a_stride, pairs, b, out, out_stride, fetch), true)) || ...);
}

// Up to rows_of_group(P) rows.
template <int P, class B, class Fetch>
static inline void micro_group(int rows, const Activation* a, std::size_t a_stride, int pairs, const B& b,
                               float* out, std::size_t out_stride, const Fetch& fetch) {
  micro_rows<P>(std::make_integer_sequence<int, rows_of_group(P)>{}, rows, a, a_stride, pairs, b, out, out_stride,
                fetch);
}

// Calls work(P), where P is how many panels are multiplied side by side in a tile of `panels`, as a compile-time constant.
template <class Work>
static inline void by_groups_of(int panels, const Work& work) {
  switch (group_of(panels)) {
    case kPageGroup: return work(std::integral_constant<int, kPageGroup>{});
#if !defined(PARROT_NARROW)
    case 3: return work(std::integral_constant<int, 3>{});
    default: return work(std::integral_constant<int, 1>{});
#endif
  }
}

// Prefetching that keeps memory evenly busy: each of several passes over a tile fetches its share of the next tile's cache
// lines, spread over the turns of its loop.
class Share {
 public:
  // Share number `index` of `count` of the `bytes` at `start`, over so many turns; nothing where `start` is null.
  Share(const void* start, std::size_t bytes, int index, int count, int turns) {
    if (!start) return;
    const std::size_t lines = (bytes + kLine - 1) / kLine, first = lines * index / count;
    start_ = static_cast<const char*>(start) + first * kLine;
    a_turn_ = static_cast<std::uint32_t>(((lines * (index + 1) / count - first) << kFraction) / turns + 1);
  }

  // Always inlined, because GCC drops calls of what only prefetches.
  __attribute__((always_inline)) void fetch(int turn) const {
    if (!a_turn_) return;
    for (std::uint32_t line = turn * a_turn_ >> kFraction; line < (turn + 1) * a_turn_ >> kFraction; ++line)
      prefetch_l2(start_ + line * kLine);
  }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr int kFraction = 16;  // bits of it in `a_turn_`
  const char* start_ = nullptr;
  std::uint32_t a_turn_ = 0;
};

class PackedMatrix {
 public:
  // Cuts `outputs` rows into tiles of `tile_outputs` (a multiple of 16), the last one padded with zeros.
  void reset(int outputs, int inputs, int tile_outputs) {
    outputs_ = outputs;
    pairs_ = (inputs + 1) / 2;
    tile_outputs_ = tile_outputs;
    tiles_ = (outputs + tile_outputs - 1) / tile_outputs;
    data_.reset(static_cast<std::size_t>(tiles_) * tile_size());
  }

  // Packs `rows` rows of W, [rows, inputs], as the outputs from `first` on.
  void pack(const float* w, int rows, int inputs, int first) {
    for (int row = 0; row < rows;) {
      const int column = (first + row) % tile_outputs_, count = std::min(tile_outputs_ - column, rows - row);
      std::uint16_t* tile = data_.get() + static_cast<std::size_t>((first + row) / tile_outputs_) * tile_size();
      for (int k = 0; k < inputs; ++k)
        for (int i = 0; i < count; ++i)
          tile[(static_cast<std::size_t>(k / 2) * tile_outputs_ + column + i) * 2 + k % 2] =
              to_bf16(w[static_cast<std::size_t>(row + i) * inputs + k]);
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
    const std::uint16_t* from = tile(output / tile_outputs_) + 2 * (output % tile_outputs_);
    for (int k = 0; k < inputs; ++k)
      to[k] = from_bf16(from[static_cast<std::size_t>(k / 2) * tile_outputs_ * 2 + k % 2]);
  }

  // out[r][0 .. tile_outputs) for up to rows_of_group(P) rows of `a`. fetching(first) makes the function that is called
  // with every k while the panels from `first` on are multiplied.
  template <int P, class Fetching>
  void multiply(int index, const Activation* a, int rows, float* out, const Fetching& fetching) const {
    const std::uint16_t* base = tile(index);
    const std::size_t step = static_cast<std::size_t>(tile_outputs_) * 2;
    for (int first = 0; first < tile_outputs_ / kLanes; first += P) {
      const std::uint16_t* panels = base + first * kPanel;
      micro_group<P>(rows, a, static_cast<std::size_t>(pairs_) * 2, pairs_,
                     [=](int p, int k) { return panels + k * step + p * kPanel; }, out + first * kLanes,
                     tile_outputs_, fetching(first));
    }
  }

  // The sixteen outputs of one panel, for one row: to the bit what they are when the whole tile is multiplied.
  void panel(int index, int panel, const Activation* row, float* out) const {
    const std::uint16_t* from = tile(index) + static_cast<std::size_t>(panel) * kPanel;
    const std::size_t step = static_cast<std::size_t>(tile_outputs_) * 2;
    micro<1, 1>(row, 0, pairs_, [=](int, int k) { return from + k * step; }, out, kLanes, [](int) {});
  }

  // Calls done(row, out) for every row of [first, last) with the tile's outputs, row by row; `ahead` is the tile to be
  // read next, or null.
  template <class Done>
  void rows(int index, const Activation* a, int first, int last, const std::uint16_t* ahead, const Done& done) const {
    by_groups_of(tile_outputs_ / kLanes,
                 [&](auto panels) { rows_by<decltype(panels)::value>(index, a, first, last, ahead, done); });
  }

 private:
  template <int P, class Done>
  void rows_by(int index, const Activation* a, int first, int last, const std::uint16_t* ahead,
               const Done& done) const {
    alignas(64) float out[kMostRows * kMostTileOutputs];
    // Rows are dealt evenly to passes, and so are the lines to prefetch. With few passes these are spread over all turns;
    // else a pair is fetched in each turn until the share is done. One loop for both would want too many registers.
    const int rows = last - first, passes = (rows + rows_of_group(P) - 1) / rows_of_group(P);
    const int share = ahead ? (pairs_ + passes - 1) / passes : 0, groups = tile_outputs_ / kLanes / P;
    for (int pass = 0; pass < passes; ++pass) {
      const int row = first + rows * pass / passes, count = first + rows * (pass + 1) / passes - row;
      const Activation* from = a + static_cast<std::size_t>(row) * pairs_ * 2;
      if (passes > 1 && passes <= kMostEvenPasses) {
        multiply<P>(index, from, count, out, [&](int panel) {
          const Share lines(ahead, tile_size() * sizeof *ahead, pass * groups + panel / P, passes * groups, pairs_);
          return [=](int k) { lines.fetch(k); };
        });
      } else {
        const int fetched = std::min(share * pass, pairs_), ahead_pairs = std::min(share, pairs_ - fetched);
        multiply<P>(index, from, count, out, [&](int panel) {
          const std::uint16_t* lines = ahead + static_cast<std::size_t>(fetched) * tile_outputs_ * 2 +
                                       static_cast<std::size_t>(panel) * ahead_pairs * kPanel;
          return [=](int k) {
            if (k >= ahead_pairs) return;
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) prefetch_l2(lines + (k * P + p) * kPanel);
          };
        });
      }
      for (int r = 0; r < count; ++r) done(row + r, out + r * tile_outputs_);
    }
  }

 public:
  static constexpr int kMostTileOutputs = 256;

 private:
  static constexpr int kMostEvenPasses = 11;  // with more, so little is fetched that it costs more to spread it

  std::size_t tile_size() const { return static_cast<std::size_t>(pairs_) * tile_outputs_ * 2; }

  Aligned<std::uint16_t> data_;
  int outputs_ = 0, pairs_ = 0, tile_outputs_ = 0, tiles_ = 0;
};
