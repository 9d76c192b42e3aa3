// Products of up to 32 rows with pairs of panels by AMX, whose tile registers hold 16 rows of 64 bytes. Included per
// variant, after register_tile.hpp; empty in those without AMX.
//
// One instruction multiplies 16 rows by a panel over up to 16 pairs of k: it sums the products of the pairs' first
// elements, and those of the second ones, in order, and adds both sums to the accumulator. So a result depends on where
// the runs of pairs begin, which is fixed, and not on how many rows there are.
// (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; TDPBF16PS in volume 2.)

#if defined(PARROT_HAS_AMX)

constexpr int kPageGroup = 2;
constexpr int kTileRows = 16;
constexpr int kMostRows = 2 * kTileRows;
constexpr bool kFetchesEvenly = true;
constexpr int rows_of_group(int) { return kMostRows; }
constexpr int group_of(int panels) { return panels % 2 == 0 ? 2 : 1; }
constexpr int together(int panels) { return group_of(panels); }  // so that their lines fill the first-level cache evenly
constexpr int tile_outputs_for(int) { return 64; }

template <class Work>
static inline void by_groups_of(int panels, const Work& work) {
  group_of(panels) == 2 ? work(std::integral_constant<int, 2>{}) : work(std::integral_constant<int, 1>{});
}

// What LDTILECFG reads: each register's rows, and its bytes per row. Registers 0 to 3 hold sums (two panels for the
// first sixteen rows, two for the others), 4 and 5 rows, 6 and 7 panels. Sums of a row are as long as a run of it.
struct alignas(64) TileShape {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {};
  std::uint8_t rows[16] = {};

  void set(int tile, int count, int width) {
    rows[tile] = static_cast<std::uint8_t>(count);
    bytes[tile] = static_cast<std::uint16_t>(count ? width : 0);
  }
};

static thread_local int shape_in_use = -1;

// Sets the registers up for `rows` and `others` rows and for panels of `lines` lines (pairs of bf16, or fours of int8),
// unless they already are.
static inline void shape_tiles(int rows, int others, int lines) {
  const int wanted = (rows * (kTileRows + 1) + others) * (kRun + 1) + lines;
  if (wanted == shape_in_use) return;
  shape_in_use = wanted;
  TileShape shape;
  for (int half = 0; half < 2; ++half) {
    const int count = half ? others : rows;
    for (const int sums : {2 * half, 2 * half + 1}) shape.set(sums, count, 4 * kLanes);
    shape.set(4 + half, count, 4 * lines);
    shape.set(6 + half, lines, 4 * kLanes);
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(shape));
}

static inline void shape_tiles(int rows) {
  const int first = std::min(rows, kTileRows);
  shape_tiles(first, rows - first, kRun);
}

// A thread's use of the tile registers: at first their shape is unknown, for others may have used them, and once they
// are released the system need not save them.
struct TileUse {
  TileUse() { shape_in_use = -1; }
  ~TileUse() { __asm__ volatile("tilerelease" ::: "memory"); }
};

// Inline assembly, because GCC 12's intrinsics do not tell the compiler that they read memory.
#define PARROT_TILE_LOAD(tile, from, stride) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"(std::size_t{stride}) : "memory")
// For data that is not read again soon: it takes no room in the first-level cache from rows, which are read again.
#define PARROT_TILE_STREAM(tile, from, stride) \
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #tile ::"r"(from), "r"(std::size_t{stride}) : "memory")
#define PARROT_TILE_STORE(tile, to, stride) \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"(std::size_t{stride}) : "memory")
#define PARROT_TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::)
#define PARROT_TILE_MULTIPLY(sum, rows, panel) \
  __asm__ volatile("tdpbf16ps %%tmm" #panel ", %%tmm" #rows ", %%tmm" #sum ::)
#define PARROT_TILE_MULTIPLY_BYTES(sum, rows, panel) \
  __asm__ volatile("tdpbssd %%tmm" #panel ", %%tmm" #rows ", %%tmm" #sum ::)

// Sums of up to 32 rows by P panels, in tile registers.
template <int P, bool kBoth>
struct TileSums {
  static void clear() {
    PARROT_TILE_ZERO(0);
    if (P == 2) PARROT_TILE_ZERO(1);
    if (kBoth) PARROT_TILE_ZERO(2);
    if (P == 2 && kBoth) PARROT_TILE_ZERO(3);
  }

  // Adds one run's products. Strides are in bytes.
  static void add(const Activation* a, std::size_t a_stride, const std::uint16_t* first, const std::uint16_t* second,
                  std::size_t stride) {
    PARROT_TILE_STREAM(6, first, stride);
    PARROT_TILE_LOAD(4, a, a_stride);
    PARROT_TILE_MULTIPLY(0, 4, 6);
    if (P == 2) {
      PARROT_TILE_STREAM(7, second, stride);
      PARROT_TILE_MULTIPLY(1, 4, 7);
    }
    if (kBoth) {
      PARROT_TILE_LOAD(5, reinterpret_cast<const char*>(a) + kTileRows * a_stride, a_stride);
      PARROT_TILE_MULTIPLY(2, 5, 6);
      if (P == 2) PARROT_TILE_MULTIPLY(3, 5, 7);
    }
  }

  static void store(float* out, std::size_t stride, std::size_t panel = kLanes) {
    const std::size_t bytes = stride * sizeof *out;
    PARROT_TILE_STORE(0, out, bytes);
    if (kBoth) PARROT_TILE_STORE(2, out + kTileRows * stride, bytes);
    if (P == 2) PARROT_TILE_STORE(1, out + panel, bytes);
    if (P == 2 && kBoth) PARROT_TILE_STORE(3, out + panel + kTileRows * stride, bytes);
  }
};

// Adds the last run, from pair `first` on, where it is not whole: memory beyond it may hold anything, so it is copied
// into zeroed buffers. `a` is where it begins.
template <int P, bool kBoth, class B>
__attribute__((noinline)) static void add_rest(int rows, const Activation* a, std::size_t a_stride, int first, int pairs,
                                               const B& b) {
  alignas(64) Activation inputs[kMostRows * 2 * kRun] = {};
  alignas(64) std::uint16_t factors[2][kRun * kPanel] = {};
  for (int r = 0; r < rows; ++r) std::memcpy(inputs + r * 2 * kRun, a + r * a_stride, 2 * (pairs - first) * sizeof *a);
  for (int p = 0; p < P; ++p)
    for (int k = first; k < pairs; ++k) std::memcpy(&factors[p][(k - first) * kPanel], b.at(p, k), 2 * kPanel);
  TileSums<P, kBoth>::add(inputs, 4 * kRun, factors[0], factors[1], 2 * kPanel);
}

template <int P, bool kBoth, class B, class Fetch>
static inline void micro(int rows, const RowsIn& a, int pairs, const B& b, const RowsOut& out, const Fetch& fetch) {
  using Sums = TileSums<P, kBoth>;
  Sums::clear();
  const Activation* run = a.at;
  int k = 0;
  for (; k + kRun <= pairs; k += kRun, run += a.run) {
    Sums::add(run, a.stride * sizeof *run, b.at(0, k), b.at(P - 1, k), b.stride * sizeof(std::uint16_t));
    if (fetch.any)
      for (int i = 0; i < kRun; ++i) fetch.each(k + i);
  }
  if (k < pairs) {
    add_rest<P, kBoth>(rows, run, a.stride, k, pairs, b);
    for (; fetch.any && k < pairs; ++k) fetch.each(k);
  }
  Sums::store(out.at, out.stride, out.panel);
}

// out(r, p) = sum over k of a(r, k) * b(p, k), for up to rows_of_group(P) rows. `fetch` prefetches what is needed next.
template <int P, class B, class Fetch>
static inline void micro_group(int rows, const RowsIn& a, int pairs, const B& b, const RowsOut& out, const Fetch& fetch) {
  shape_tiles(rows);
  rows > kTileRows ? micro<P, true>(rows, a, pairs, b, out, fetch) : micro<P, false>(rows, a, pairs, b, out, fetch);
}

// The same for two runs of pairs and many panels, one after the other: out(p) gets the sums of the panel at panel(p).
// Rows stay in registers (0 and 1; those beyond sixteen in 2 and 3), and sums are in 4 and 5.
template <bool kBoth, class Panel, class Out>
static inline void micro_in_turn(const Activation* a, std::size_t stride, int panels, const Panel& panel,
                                 const Out& out) {
  const std::size_t bytes = stride * sizeof *a;
  PARROT_TILE_LOAD(0, a, bytes);
  PARROT_TILE_LOAD(1, a + 2 * kRun, bytes);
  if (kBoth) PARROT_TILE_LOAD(2, a + kTileRows * stride, bytes);
  if (kBoth) PARROT_TILE_LOAD(3, a + kTileRows * stride + 2 * kRun, bytes);
  for (int p = 0; p < panels; ++p) {
    const std::uint16_t* b = panel(p);
    float* sums = out(p);
    PARROT_TILE_STREAM(6, b, 2 * kPanel);
    PARROT_TILE_ZERO(4);
    PARROT_TILE_MULTIPLY(4, 0, 6);
    if (kBoth) PARROT_TILE_ZERO(5);
    if (kBoth) PARROT_TILE_MULTIPLY(5, 2, 6);
    PARROT_TILE_STREAM(7, b + kRun * kPanel, 2 * kPanel);
    PARROT_TILE_MULTIPLY(4, 1, 7);
    if (kBoth) PARROT_TILE_MULTIPLY(5, 3, 7);
    PARROT_TILE_STORE(4, sums, 4 * kLanes);
    if (kBoth) PARROT_TILE_STORE(5, sums + kTileRows * kLanes, 4 * kLanes);
  }
}

template <class Panel, class Out>
static inline void micro_in_turn(int rows, const Activation* a, std::size_t stride, int panels, const Panel& panel,
                                 const Out& out) {
  shape_tiles(rows);
  rows > kTileRows ? micro_in_turn<true>(a, stride, panels, panel, out)
                   : micro_in_turn<false>(a, stride, panels, panel, out);
}

#endif
