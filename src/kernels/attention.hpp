// Attention of one layer over paged KV. Included per variant, after matrix.hpp.
//
// A page holds sixteen tokens. Keys of a head lie as one panel, [head_dim / 2][16 keys][2], and behind them the values
// as eight pairs, [8][head_columns][2]: both are read by the register tile as they stand, so no page is ever copied.
//
// The work is cut into units: (span, KV head, some query rows, some key blocks). A unit leaves softmax partials
// (peak, total, weighted values); `merge` combines them per row in the order of the absolute key blocks.
// (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Juravsky et al., "Hydragen", 2024.)

constexpr int kBlock = Decoder::kBlockTokens;
constexpr int kPage = Decoder::kPageTokens;
constexpr int kBlockPages = kBlock / kPage;
constexpr int kMostGroup = 24;  // query heads for one head of keys and values
#if defined(PARROT_HAS_AMX)
constexpr int kTileQueries = 2 * kTileRows;
#else
constexpr int kTileQueries = kMostGroup;
#endif
constexpr float kLog2E = 1.4426950408889634f;

struct Unit {
  int span, kv_head;
  int first_row, last_row;
  int first_block, last_block;  // absolute
};

struct Geometry {
  int heads, kv_heads, head_dim, head_columns;  // columns: head_dim rounded up to whole groups of panels
  int group() const { return heads / kv_heads; }
  int key_pairs() const { return (head_dim + 1) / 2; }
  std::size_t key_page() const { return static_cast<std::size_t>(key_pairs()) * kPanel; }
  std::size_t value_page() const { return static_cast<std::size_t>(kPage) * head_columns; }
  // Of a layer's KV: the keys of one head in one page, with the values behind them.
  std::size_t page_of(int page, int head) const {
    return (static_cast<std::size_t>(page) * kv_heads + head) * (key_page() + value_page());
  }
};

// Writes one token's key of one head, in bf16. Slot `later`, which will be written soon, is prefetched: a key lies in as
// many cache lines as it has pairs.
static inline void write_key(const Geometry& g, std::uint16_t* kv, int slot, int later, int head,
                             const std::uint16_t* key) {
  std::uint16_t* page = kv + g.page_of(slot / kPage, head) + slot % kPage * 2;
  const std::uint16_t* page_later = kv + g.page_of(later / kPage, head);
  for (int pair = 0; pair < g.key_pairs(); ++pair) {
    prefetch_to_write(page_later + pair * kPanel);
    std::memcpy(page + pair * kPanel, key + 2 * pair, 2 * sizeof *key);
  }
}

// Writes one token's value of one head: half of a pair, while another thread may write the other half. `alone`: nobody
// writes that in this step. It is read with this one, at weight 0, and whatever an earlier sequence left there must not
// count, not even if it is no number.
static inline void write_value(const Geometry& g, std::uint16_t* kv, int slot, int later, int head,
                               const std::uint16_t* value, bool alone) {
  const auto pair_of = [&](int at) {
    const std::size_t pair = at % kPage / 2;
    return kv + g.page_of(at / kPage, head) + g.key_page() + pair * g.head_columns * 2;
  };
  std::uint16_t *pair = pair_of(slot) + slot % 2, *pair_later = pair_of(later);
  for (int d = 0; d < g.head_columns; d += kLanes) prefetch_to_write(pair_later + 2 * d);
  for (int d = 0; d < g.head_dim; ++d) pair[2 * d] = value[d];
  if (alone && slot % 2 == 0)
    for (int d = 0; d < g.head_dim; ++d) pair[2 * d + 1] = 0;
}

// Softmax state of sixteen query rows: the largest score seen, and the total of weights relative to it.
struct Softmax {
  F32x16 peak, total;
};
constexpr float kNoPeak = -1e30f;  // of a row that has seen nothing; its total is 0

// Folds `part` into `state`; what was summed by weight before is to be scaled by `before`, what comes by `now`.
// Not inlined, like `blend`, so that every caller rounds alike.
__attribute__((noinline)) static void fold(Softmax& state, const Softmax& part, float* before, float* now) {
  const F32x16 peak = max(state.peak, part.peak);
  const F32x16 old_scale = exp2(state.peak - peak), new_scale = exp2(part.peak - peak);
  state.peak = peak;
  state.total = state.total * old_scale + part.total * new_scale;
  store(before, old_scale), store(now, new_scale);
}

__attribute__((noinline)) static void blend(float* sums, const float* part, int columns, float before, float now) {
  for (int c = 0; c < columns; c += kLanes) store(sums + c, load(sums + c) * before + load(part + c) * now);
}

class Attention {
 public:
  explicit Attention(const Geometry& geometry) : g_(geometry) {}

  // Plans the units of a step. They are the same for every layer but the last, of which only `wanted` rows are needed.
  void plan(const Batch& batch, int threads, const std::vector<char>& wanted) {
    batch_ = batch;
    units_.clear();
    wanted_units_.clear();
    slots_.assign(batch.rows + 1, 0);
    for (int row = 0; row < batch.rows; ++row) slots_[row + 1] = slots_[row] + batch.positions[row] / kBlock + 1;
    const std::size_t partials = static_cast<std::size_t>(slots_[batch.rows]) * g_.heads;
    peaks_.reserve(partials + kLanes);
    totals_.reserve(partials + kLanes);
    values_.reserve(partials * g_.head_columns);
    for (int span = 0; span < batch.spans; ++span) plan_span(span, threads);
    for (const Unit& unit : units_)
      if (std::count(&wanted[unit.first_row], &wanted[0] + unit.last_row, true)) wanted_units_.push_back(unit);
  }

  int units(bool wanted) const { return static_cast<int>((wanted ? wanted_units_ : units_).size()); }

  // Marks every partial as empty; thread `t` of `n` does its share.
  void clear(int t, int n) {
    const std::size_t count = static_cast<std::size_t>(slots_[batch_.rows]) * g_.heads;
    std::fill(totals_.get() + count * t / n, totals_.get() + count * (t + 1) / n, 0.0f);
  }

  // Computes one unit. `queries` are [rows][heads][head_dim], scaled so that scores are logarithms to base 2. `next` is the
  // unit that this thread computes after it, or -1.
  void run(int index, int next, bool wanted, const Activation* queries, const std::uint16_t* kv) {
    const std::vector<Unit>& units = wanted ? wanted_units_ : units_;
    const Unit& unit = units[index];
    const int queries_a_tile = kTileQueries / g_.group() < 1 ? 1 : kTileQueries / g_.group();
    for (int row = unit.first_row; row < unit.last_row; row += queries_a_tile) {
      const int last = std::min(row + queries_a_tile, unit.last_row);
      run_tile(unit, row, last, next >= 0 && last == unit.last_row ? units[next] : unit, queries, kv);
    }
  }

  // The attention output of one row, [heads * head_dim].
  void merge(int row, Activation* out) {
    alignas(64) float sums[kLanes * kMostColumns];
    const int columns = g_.head_columns;
    for (int first = 0; first < g_.heads; first += kLanes) {
      const int count = std::min(kLanes, g_.heads - first);
      Softmax state{splat(kNoPeak), splat(0.0f)};
      std::fill(sums, sums + count * columns, 0.0f);
      for (int slot = slots_[row]; slot < slots_[row + 1]; ++slot) {
        const std::size_t from = static_cast<std::size_t>(slot) * g_.heads + first;
        float seen[kLanes] = {}, peaks[kLanes] = {}, before[kLanes], now[kLanes];
        for (int i = 0; i < count; ++i)
          seen[i] = totals_[from + i], peaks[i] = seen[i] == 0.0f ? kNoPeak : peaks_[from + i];
        fold(state, {load(peaks), load(seen)}, before, now);
        for (int i = 0; i < count; ++i)
          if (seen[i] != 0.0f)
            blend(sums + i * columns, values_.get() + (from + i) * columns, columns, before[i], now[i]);
      }
      float totals[kLanes];
      store(totals, state.total);
      for (int i = 0; i < count; ++i) {
        alignas(64) Activation done[kMostColumns];
        const float scale = 1.0f / totals[i];
        for (int c = 0; c < columns; c += kLanes) store_activations(done + c, load(sums + i * columns + c) * scale);
        copy_few(out + (first + i) * g_.head_dim, done, g_.head_dim);
      }
    }
  }

 private:
  static constexpr int kMostColumns = 256;

  void plan_span(int span, int threads) {
    const int first_row = batch_.span_rows[2 * span], last_row = batch_.span_rows[2 * span + 1];
    const int start = batch_.span_keys[2 * span], count = batch_.span_keys[2 * span + 1];
    const int first_block = start / kBlock, last_block = (start + count + kBlock - 1) / kBlock;
    const int rows_a_unit = std::max(1, kTileQueries / g_.group()) * (last_row - first_row > 64 ? 2 : 1);
    const int row_units = (last_row - first_row + rows_a_unit - 1) / rows_a_unit;
    // Few rows over many keys: cut the keys, so that every thread has several units to take.
    const int wanted = 4 * threads;
    const int pieces = std::max(1, std::min(last_block - first_block, wanted / std::max(1, row_units * g_.kv_heads)));
    const int blocks_a_unit = (last_block - first_block + pieces - 1) / pieces;
    for (int kv_head = 0; kv_head < g_.kv_heads; ++kv_head)
      for (int row = first_row; row < last_row; row += rows_a_unit)
        for (int block = first_block; block < last_block; block += blocks_a_unit)
          units_.push_back({span, kv_head, row, std::min(row + rows_a_unit, last_row), block,
                            std::min(block + blocks_a_unit, last_block)});
  }

  // The keys of one span in one absolute block.
  struct Keys {
    int first, count;  // position; number
    const std::int32_t* pages;
  };
  Keys keys_of(int span, int block) const {
    const int start = batch_.span_keys[2 * span], end = start + batch_.span_keys[2 * span + 1];
    const int first = std::max(block * kBlock, start);
    return {first, std::min((block + 1) * kBlock, end) - first,
            batch_.pages + batch_.page_starts[span] + (first - start) / kPage};
  }

  void keep(int row, int block, int head, float peak, float total, const float* values) {
    const std::size_t i = (static_cast<std::size_t>(slots_[row]) + block) * g_.heads + head;
    peaks_[i] = peak, totals_[i] = total;
    copy_few(values_.get() + i * g_.head_columns, values, g_.head_columns);
  }

  // A unit that begins at key block 0 carries the state of each row along and leaves it in the row's first slot;
  // any other leaves the partials of each block. `merge` then does the same sums in the same order either way.
  void run_tile(const Unit& unit, int first, int last, const Unit& next, const Activation* queries,
                const std::uint16_t* kv) {
    alignas(64) Activation q[kTileQueries * kMostColumns];
    alignas(64) float scores[kTileQueries * kBlock];
    alignas(64) Activation weights[kTileQueries * kBlock];
    alignas(64) float sums[kTileQueries * kMostColumns];
    alignas(64) float carried[kTileQueries * kMostColumns];
    constexpr int kVectors = (kTileQueries + kLanes - 1) / kLanes;
    alignas(64) float peaks[kVectors * kLanes] = {}, totals[kVectors * kLanes] = {};
    const int group = g_.group(), count = (last - first) * group, q_stride = g_.key_pairs() * 2;
    const int columns = g_.head_columns;
    for (int i = 0; i < count; ++i) {
      const std::size_t row = first + i / group, from = row * g_.heads + unit.kv_head * group + i % group;
      q[i * q_stride + q_stride - 1] = 0;
      copy_few(q + i * q_stride, queries + from * g_.head_dim, g_.head_dim);
    }
    fetch_first_page(next, kv);
    const bool carry = unit.first_block == 0;
    Softmax states[kVectors];
    for (Softmax& state : states) state = {splat(kNoPeak), splat(0.0f)};
    if (carry) std::fill(carried, carried + count * columns, 0.0f);
    for (int block = unit.first_block; block < unit.last_block; ++block) {
      const Keys keys = keys_of(unit.span, block);
      int seen[kTileQueries], most = 0;
      for (int i = 0; i < count; ++i) {
        const int position = batch_.positions[first + i / group];
        seen[i] = batch_.span_causal[unit.span] ? std::min(keys.count, position + 1 - keys.first) : keys.count;
        most = std::max(most, seen[i]);
      }
      if (most <= 0) break;
      const int block_pages = (most + kPage - 1) / kPage;
      score(q, q_stride, count, keys.pages, block_pages, unit.kv_head, kv, scores);
      const int padded = block_pages * kPage;
      for (int i = 0; i < count; ++i) peaks[i] = peak_of(scores + i * kBlock, seen[i], padded);
      for (int i = 0; i < count; ++i)
        totals[i] = soften(scores + i * kBlock, seen[i], padded, peaks[i], weights + i * kBlock);
      gather(weights, count, keys.pages, most, unit.kv_head, kv, sums,
             block + 1 < unit.last_block ? keys_of(unit.span, block + 1) : Keys{});
      if (carry) {
        alignas(64) float before[kVectors * kLanes], now[kVectors * kLanes];
        for (int v = 0; v < kVectors; ++v)
          fold(states[v], {load(peaks + v * kLanes), load(totals + v * kLanes)}, before + v * kLanes, now + v * kLanes);
        for (int i = 0; i < count; ++i) blend(carried + i * columns, sums + i * columns, columns, before[i], now[i]);
        continue;
      }
      for (int i = 0; i < count; ++i)
        if (totals[i] != 0.0f)
          keep(first + i / group, block, unit.kv_head * group + i % group, peaks[i], totals[i], sums + i * columns);
    }
    if (!carry) return;
    for (int v = 0; v < kVectors; ++v)
      store(peaks + v * kLanes, states[v].peak), store(totals + v * kLanes, states[v].total);
    for (int i = 0; i < count; ++i)
      keep(first + i / group, 0, unit.kv_head * group + i % group, peaks[i], totals[i], carried + i * columns);
  }

  // Prefetches a unit's first page, before the unit: a short span would end before its own prefetches arrive.
  void fetch_first_page(const Unit& unit, const std::uint16_t* kv) const {
    const std::uint16_t* page = kv + g_.page_of(keys_of(unit.span, unit.first_block).pages[0], unit.kv_head);
    for (std::size_t i = 0; i < g_.key_page() + g_.value_page(); i += kPanel) prefetch_l2(page + i);
  }

  // Reads the keys once, and fetches as much of the values meanwhile: they lie behind them.
  void score(const Activation* q, int q_stride, int count, const std::int32_t* pages, int block_pages, int kv_head,
             const std::uint16_t* kv, float* scores) const {
    int first = 0;
    for (; first + 1 < block_pages; first += kPageGroup)
      score_pages<kPageGroup>(q, q_stride, count, pages + first, std::min(kPageGroup, block_pages - first), kv_head, kv,
                              scores + first * kPage);
    if (first < block_pages)
      score_pages<1>(q, q_stride, count, pages + first, 1, kv_head, kv, scores + first * kPage);
  }

  // Scores P pages side by side. Where there are only `there`, the last one is repeated, and its scores are not read.
  template <int P>
  void score_pages(const Activation* q, int q_stride, int count, const std::int32_t* pages, int there, int kv_head,
                   const std::uint16_t* kv, float* scores) const {
    const std::uint16_t* panels[P];
    for (int p = 0; p < P; ++p) panels[p] = kv + g_.page_of(pages[std::min(p, there - 1)], kv_head);
    const std::size_t key_page = g_.key_page();
    const auto panel = panels_at<16>(kPanel, [&](int p, int k) { return panels[p] + k * kPanel; });
    constexpr int kRows = rows_of_group(P);
    for (int i = 0; i < count; i += kRows)
      micro_group<P>(std::min(kRows, count - i), q + i * q_stride, q_stride, g_.key_pairs(), panel, scores + i * kBlock,
                     kBlock, fetcher(i == 0, [&](int k) {
#pragma GCC unroll 4
                       for (int p = 0; p < P; ++p) prefetch_l2(panel.at(p, k) + key_page);
                     }));
  }

  // The largest of the first `seen` scores; those behind, up to `padded`, are made to weigh nothing.
  static float peak_of(float* scores, int seen, int padded) {
    for (int k = std::max(seen, 0); k < padded; ++k) scores[k] = kNoPeak;
    F32x16 best = load(scores);
    for (int k = kLanes; k < padded; k += kLanes) best = max(best, load(scores + k));
    return max_lanes(best);
  }

  // Scores to weights relative to `peak`; returns their total.
  static float soften(const float* scores, int seen, int padded, float peak, Activation* weights) {
    if (seen <= 0) {
      std::memset(weights, 0, padded * sizeof *weights);
      return 0;
    }
    F32x16 sum{};
    for (int k = 0; k < padded; k += kLanes) {
      const F32x16 weight = exp2(load(scores + k) - peak);
      sum += weight;
      store_activations(weights + k, weight);
    }
    return sum_lanes(sum);
  }

  // Reads the values of the first `keys` keys once, and fetches the keys that are wanted next meanwhile. Whole pairs are
  // read and no more: what a page holds beyond them may be anything.
  void gather(const Activation* weights, int count, const std::int32_t* pages, int keys, int kv_head,
              const std::uint16_t* kv, float* sums, const Keys& next) const {
    const std::uint16_t *bases[kBlockPages], *ahead[kBlockPages];
    const int block_pages = (keys + kPage - 1) / kPage;
    const int next_pages = std::min((next.count + kPage - 1) / kPage, block_pages);
    for (int page = 0; page < block_pages; ++page) {
      bases[page] = kv + g_.page_of(pages[page], kv_head) + g_.key_page();
      ahead[page] = page < next_pages ? kv + g_.page_of(next.pages[page], kv_head) : nullptr;
    }
    const int pairs = (keys + 1) / 2, columns = g_.head_columns, lines = g_.key_pairs() / 8;
    for (int first = 0; first < columns / kLanes; first += kPageGroup) {
      constexpr int kRows = rows_of_group(kPageGroup);
      for (int i = 0; i < count; i += kRows)
        micro_group<kPageGroup>(
            std::min(kRows, count - i), weights + i * kBlock, kBlock, pairs,
            panels_at<8>(columns * 2,
                         [&](int p, int k) { return bases[k / 8] + (k % 8) * columns * 2 + (first + p) * kPanel; }),
            sums + i * columns + first * kLanes, columns, fetcher(i == 0 && first == 0, [&](int k) {
              if (!ahead[k / 8]) return;
              for (int line = 0; line < lines; ++line) prefetch_l2(ahead[k / 8] + (k % 8 * lines + line) * kPanel);
            }));
    }
  }

  const Geometry g_;
  Batch batch_;
  std::vector<Unit> units_, wanted_units_;
  std::vector<int> slots_;  // [rows + 1]: where a row's partials begin; one for each absolute key block up to its own
  Aligned<float> peaks_;    // [partials]
  Aligned<float> totals_;   // [partials]; 0 where nothing was seen
  Aligned<float> values_;   // [partials][head_columns]
};
