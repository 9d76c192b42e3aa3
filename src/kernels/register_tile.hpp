// Products of a few rows with panels of sixteen columns, held in vector registers. Included per variant, after simd.hpp.

constexpr int kPanel = 2 * kLanes;  // elements of one pair of k over sixteen columns

// As many rows by panels as leave registers for the panels of one step and one row's pair.
#if defined(PARROT_HAS_BF16)
constexpr int kRegisterGroup = 4;  // panels side by side where any number would do
constexpr int register_rows(int panels) { return panels == 4 ? 6 : panels == 3 ? 8 : 12; }
#elif defined(__AVX512F__)
constexpr int kRegisterGroup = 2;
constexpr int register_rows(int panels) { return panels == 3 ? 8 : 12; }
#else
#define PARROT_NARROW 1
constexpr int kRegisterGroup = 1;
#if defined(__AVX2__)
constexpr int register_rows(int) { return 4; }
#elif defined(__aarch64__)
constexpr int register_rows(int) { return 4; }
#else
constexpr int register_rows(int) { return 2; }
#endif
#endif
constexpr int kMostRegisterRows = 12;

constexpr int register_group_of(int panels) {
  return kRegisterGroup > 1 && panels % 3 == 0 ? 3 : panels % kRegisterGroup == 0 ? kRegisterGroup : 1;
}

// Calls work(P), where P is how many panels of a tile of `panels` registers hold side by side, as a compile-time constant.
template <class Work>
static inline void by_register_groups(int panels, const Work& work) {
  switch (register_group_of(panels)) {
    case kRegisterGroup: return work(std::integral_constant<int, kRegisterGroup>{});
#if !defined(PARROT_NARROW)
    case 3: return work(std::integral_constant<int, 3>{});
    default: return work(std::integral_constant<int, 1>{});
#endif
  }
}

// Where the columns' factors lie: those of panel p and pair k at at(p, k). `kRun` pairs from a multiple of `kRun` on lie
// `stride` elements apart, for instructions that take many at once.
template <int kPairsARun, class At>
struct Panels {
  static constexpr int kRun = kPairsARun;
  At at;
  std::size_t stride;
};

template <int kRun, class At>
static inline Panels<kRun, At> panels_at(std::size_t stride, const At& at) {
  return {at, stride};
}

// Prefetches: each(k) is called with every pair k while it is multiplied, or need not be where there are not `any`.
template <class Each>
struct Fetcher {
  bool any;
  Each each;
};

template <class Each>
static inline Fetcher<Each> fetcher(bool any, const Each& each) {
  return {any, each};
}

#if !defined(PARROT_HAS_AMX)

constexpr int kPageGroup = kRegisterGroup;  // panels that are multiplied side by side where any number would do
constexpr int kMostRows = kMostRegisterRows;
constexpr bool kFetchesEvenly = false;
constexpr int rows_of_group(int panels) { return register_rows(panels); }
constexpr int group_of(int panels) { return register_group_of(panels); }
// Panels of a tile of weights that lie side by side in memory.
constexpr int together(int panels) { return panels; }
constexpr int tile_outputs_for(int outputs) { return outputs % 48 == 0 ? 48 : 64; }

template <class Work>
static inline void by_groups_of(int panels, const Work& work) {
  by_register_groups(panels, work);
}

// What a thread holds while it multiplies: nothing but registers.
struct TileUse {
  TileUse() {}
  ~TileUse() {}
};

// out[p][r][0 .. 16) = sum over k of a[r][k] * b(p, k): R rows by P panels held in registers, k in order. Rows lie
// `out_stride` apart, and panels `out_panel`. `fetch` prefetches what is wanted next. Every loop over the tile is unrolled from the start,
// and no address of an accumulator is taken, or GCC keeps a copy of them all in memory.
template <int R, int P, class B, class Fetch>
static inline void micro(const Activation* a, std::size_t a_stride, int pairs, const B& b, float* out,
                         std::size_t out_stride, std::size_t out_panel, const Fetch& fetch) {
  constexpr int kVectors = kLanes / kTileLanes;  // of a panel
  TileVector acc[R][P * kVectors];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < P * kVectors; ++v) acc[r][v] = TileVector{};
  for (int k = 0; k < pairs; ++k) {
    PanelVector panel[P * kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < P * kVectors; ++v) panel[v] = load_panel(b.at(v / kVectors, k) + v % kVectors * 2 * kTileLanes);
    if (fetch.any) fetch.each(k);
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
    for (int v = 0; v < P * kVectors; ++v)
      store_tile(out + r * out_stride + v / kVectors * out_panel + v % kVectors * kTileLanes, acc[r][v]);
}

template <int P, class B, class Fetch, int... Rs>
static inline void micro_rows(std::integer_sequence<int, Rs...>, int rows, const Activation* a, std::size_t a_stride,
                              int pairs, const B& b, float* out, std::size_t out_stride, std::size_t out_panel,
                              const Fetch& fetch) {
  (void)((rows == Rs + 1 && (micro<Rs + 1, P>(a, a_stride, pairs, b, out, out_stride, out_panel, fetch), true)) || ...);
}

// Up to rows_of_group(P) rows.
template <int P, class B, class Fetch>
static inline void micro_group(int rows, const Activation* a, std::size_t a_stride, int pairs, const B& b, float* out,
                               std::size_t out_stride, std::size_t out_panel, const Fetch& fetch) {
  micro_rows<P>(std::make_integer_sequence<int, rows_of_group(P)>{}, rows, a, a_stride, pairs, b, out, out_stride,
                out_panel, fetch);
}

#endif
