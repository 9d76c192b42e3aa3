// Products of a few rows with panels of sixteen columns, held in vector registers. Included per variant, after simd.hpp.

constexpr int kPanel = 2 * kLanes;  // elements of one pair of k over sixteen columns

// The size of the tile, rows by panels: as large as leaves registers for the panels of one step and one row's pair.
#if defined(PARROT_HAS_BF16)
constexpr int kRegisterGroup = 4;  // panels side by side where their number can be chosen
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

// Calls work(P) with a compile-time constant: how many panels of a tile of `panels` are held in registers side by side.
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

// Pairs in a run, which is what instructions that take many pairs at once (AMX) multiply.
constexpr int kRun = 16;

// Layout of the columns in memory: those of panel p and pair k are at at(p, k). The pairs of a run are `stride`
// elements apart.
template <class At>
struct Panels {
  At at;
  std::size_t stride;
};

template <class At>
static inline Panels<At> panels_at(std::size_t stride, const At& at) {
  return {at, stride};
}

// Layout of the rows in memory: row r's pair k is at at + r * stride + 2 * k. (With AMX, each run of pairs begins `run`
// elements after the one before.)
struct RowsIn {
  const Activation* at;
  std::size_t stride, run = 2 * kRun;
};

// Layout of the results in memory: the sixteen sums of row r and panel p go to at + r * stride + p * panel.
struct RowsOut {
  float* at;
  std::size_t stride, panel = kLanes;
};

// Prefetching during a product: each(k) is called while pair k is multiplied; if `any` is false, it need not be called.
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

constexpr int kPageGroup = kRegisterGroup;  // panels that are multiplied side by side where their number can be chosen
constexpr int kMostRows = kMostRegisterRows;
constexpr bool kFetchesEvenly = false;
constexpr int rows_of_group(int panels) { return register_rows(panels); }
constexpr int group_of(int panels) { return register_group_of(panels); }
// How many panels of a tile of weights lie side by side in memory.
constexpr int together(int panels) { return panels; }
constexpr int tile_outputs_for(int outputs) { return outputs % 48 == 0 ? 48 : 64; }

template <class Work>
static inline void by_groups_of(int panels, const Work& work) {
  by_register_groups(panels, work);
}

// What a thread has to acquire and release around products: nothing without AMX.
struct TileUse {
  TileUse() {}
  ~TileUse() {}
};

// out(r, p) = sum over k of a(r, k) * b(p, k): R rows by P panels held in registers, k in order. `fetch` prefetches
// what is needed next. Every loop over the tile is unrolled by a pragma, and no accumulator's address is taken;
// otherwise GCC keeps a copy of all of them in memory.
template <int R, int P, class B, class Fetch>
static inline void micro(const RowsIn& a, int pairs, const B& b, const RowsOut& out, const Fetch& fetch) {
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
      const PairVector pair = splat_pair(a.at + r * a.stride + 2 * k);
#pragma GCC unroll 16
      for (int v = 0; v < P * kVectors; ++v) accumulate(acc[r][v], pair, panel[v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < P * kVectors; ++v)
      store_tile(out.at + r * out.stride + v / kVectors * out.panel + v % kVectors * kTileLanes, acc[r][v]);
}

template <int P, class B, class Fetch, int... Rs>
static inline void micro_rows(std::integer_sequence<int, Rs...>, int rows, const RowsIn& a, int pairs, const B& b,
                              const RowsOut& out, const Fetch& fetch) {
  (void)((rows == Rs + 1 && (micro<Rs + 1, P>(a, pairs, b, out, fetch), true)) || ...);
}

// The same for up to rows_of_group(P) rows.
template <int P, class B, class Fetch>
static inline void micro_group(int rows, const RowsIn& a, int pairs, const B& b, const RowsOut& out, const Fetch& fetch) {
  micro_rows<P>(std::make_integer_sequence<int, rows_of_group(P)>{}, rows, a, pairs, b, out, fetch);
}

#endif
