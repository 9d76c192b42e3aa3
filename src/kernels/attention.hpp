// Attention of one layer over paged KV. Included per variant, after softmax.hpp.
//
// The work is cut into units: (span, KV head, some query rows, some key blocks). A unit leaves softmax partials
// (peak, total, weighted values); `merge` combines them per row in the order of the absolute key blocks. A unit that
// covers all keys of its rows writes their results itself, bit-identical to merged ones.
// (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Juravsky et al., "Hydragen", 2024.)

struct Unit {
  int span, kv_head;
  int first_row, last_row;
  int first_block, last_block;  // absolute
  bool whole;                   // these blocks have all keys of its rows
  bool alone;                   // no other row reads these keys
  int thread = 0;               // which takes it, unless another one has nothing left to do
};

class Attention {
 public:
  explicit Attention(const Geometry& geometry) : g_(geometry) {}

  // Plans the units of a step. They are the same for every layer but the last, of which only `wanted` rows are needed.
  void plan(const Batch& batch, int threads, const std::vector<char>& wanted) {
    batch_ = batch;
    units_.clear();
    wanted_units_.clear();
    merged_.assign(batch.rows, true);
    slots_.assign(batch.rows + 1, 0);
    for (int row = 0; row < batch.rows; ++row) slots_[row + 1] = slots_[row] + batch.positions[row] / kBlock + 1;
    const std::size_t partials = static_cast<std::size_t>(slots_[batch.rows]) * g_.heads;
    peaks_.reserve(partials + kLanes);
    totals_.reserve(partials + kLanes);
    values_.reserve(partials * g_.head_columns);
    for (int span = 0; span < batch.spans; ++span) plan_span(span, threads);
    for (const Unit& unit : units_)
      if (unit.whole) std::fill(&merged_[unit.first_row], &merged_[0] + unit.last_row, false);
    for (const Unit& unit : units_)
      if (std::count(&wanted[unit.first_row], &wanted[0] + unit.last_row, true)) wanted_units_.push_back(unit);
    share_out(units_, starts_, threads);
    share_out(wanted_units_, wanted_starts_, threads);
  }

  // Where each thread's own units begin, and the last one's end.
  const std::vector<int>& starts(bool wanted) const { return wanted ? wanted_starts_ : starts_; }

  // Marks every partial as empty; thread `t` of `n` does its share.
  void clear(int t, int n) {
    const std::size_t count = static_cast<std::size_t>(slots_[batch_.rows]) * g_.heads;
    std::fill(totals_.get() + count * t / n, totals_.get() + count * (t + 1) / n, 0.0f);
  }

  // Computes one unit. `queries` are [rows][heads][head_dim], scaled so that scores are logarithms to base 2.
  // `previous` and `next` are the units that this thread computes before and after it, or -1. The results of a row that
  // is not to be merged go to out(row), [heads * head_dim], or nowhere if that is null.
  template <class Out>
  void run(int index, int previous, int next, bool wanted, const Activation* queries, const std::uint16_t* kv,
           const Out& out) {
    const std::vector<Unit>& units = wanted ? wanted_units_ : units_;
    const Unit& unit = units[index];
    const int queries_a_tile = kTileQueries / g_.group() < 1 ? 1 : kTileQueries / g_.group();
    bool fetches = !kFetchesEvenly || previous < 0 || !same_keys(units[previous], unit);
    for (int row = unit.first_row; row < unit.last_row; row += queries_a_tile) {
      const int last = std::min(row + queries_a_tile, unit.last_row);
      run_tile(unit, row, last, fetches, next >= 0 && last == unit.last_row ? units[next] : unit, queries, kv, out);
      fetches = !kFetchesEvenly;
    }
  }

  // Whether the results of a row are to be merged.
  bool merged(int row) const { return merged_[row]; }

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
            blend(sums + i * columns, values_.get() + (from + i) * columns, 1, columns, before + i, now + i);
      }
      float totals[kLanes];
      store(totals, state.total);
      for (int i = 0; i < count; ++i) divide(sums + i * columns, totals[i], out + (first + i) * g_.head_dim);
    }
  }

 private:
  static constexpr int kMostColumns = 256;

  // The output of one head of a row.
  void divide(const float* sums, float total, Activation* out) const {
    alignas(64) Activation done[kMostColumns];
    const float scale = 1.0f / total;
    for (int c = 0; c < g_.head_columns; c += kLanes) store_activations(done + c, load(sums + c) * scale);
    copy_few(out, done, g_.head_dim);
  }

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
      for (int row = first_row; row < last_row; row += rows_a_unit) {
        const int rows_end = std::min(row + rows_a_unit, last_row), most = most_blocks(row, rows_end);
        for (int block = first_block; block < std::min(last_block, most); block += blocks_a_unit) {
          const int end = std::min(block + blocks_a_unit, last_block);
          const bool whole = block == 0 && most <= end, alone = last_row - first_row == 1;
          units_.push_back({span, kv_head, row, rows_end, block, end, whole, alone});
        }
      }
  }

  // Orders units by the threads that are to take them; `starts` tells where each thread's begin, and where the last
  // one's end. Threads get equal shares of the units whose keys are read by several rows, so that few threads read the
  // same keys, and then equal shares of the others, so that it is small units that threads take from one another.
  void share_out(std::vector<Unit>& units, std::vector<int>& starts, int threads) const {
    const auto cost = [&](const Unit& unit) {
      const int vectors = ((unit.last_row - unit.first_row) * g_.group() + kLanes - 1) / kLanes;
      return static_cast<long long>(unit.last_block - unit.first_block) * vectors;
    };
    for (const bool alone : {false, true}) {
      long long total = 0, before = 0;
      for (const Unit& unit : units) total += unit.alone == alone ? cost(unit) : 0;
      for (Unit& unit : units) {
        if (unit.alone != alone) continue;
        unit.thread = static_cast<int>((2 * before + cost(unit)) * threads / (2 * total));
        before += cost(unit);
      }
    }
    const auto order = [](const Unit& unit) { return std::make_pair(unit.thread, unit.alone); };
    std::stable_sort(units.begin(), units.end(), [&](const Unit& a, const Unit& b) { return order(a) < order(b); });
    starts.clear();
    for (int thread = 0; thread <= threads; ++thread)
      starts.push_back(static_cast<int>(std::count_if(
          units.begin(), units.end(), [&](const Unit& unit) { return unit.thread < thread; })));
  }

  // The largest number of key blocks that any of these rows has.
  int most_blocks(int first, int last) const {
    int most = 0;
    for (int row = first; row < last; ++row) most = std::max(most, slots_[row + 1] - slots_[row]);
    return most;
  }

  // The keys of one span in one absolute block.
  struct Keys {
    int first, count;  // position of the first key; number of keys
    const std::int32_t* pages;
  };
  Keys keys_of(int span, int block) const {
    const int start = batch_.span_keys[2 * span], end = start + batch_.span_keys[2 * span + 1];
    const int first = std::max(block * kBlock, start);
    return {first, std::min((block + 1) * kBlock, end) - first,
            batch_.pages + batch_.page_starts[span] + (first - start) / kPage};
  }

  // Whether a thread that has read the keys and values of `one` finds those of `other` in its cache. With AMX,
  // prefetching them even so takes longer than it saves.
  static bool same_keys(const Unit& one, const Unit& other) {
    return one.span == other.span && one.kv_head == other.kv_head && one.first_block == other.first_block;
  }

  // A unit that begins at key block 0 folds its blocks into one state per row, and writes the result or, where other
  // units have more of the row's keys, keeps that state in the row's first slot. Any other unit keeps the partials of
  // each block. Either way, the same sums are done in the same order.
  template <class Out>
  void run_tile(const Unit& unit, int first, int last, bool fetches, const Unit& next, const Activation* queries,
                const std::uint16_t* kv, const Out& out) {
    alignas(64) Activation q[kTileQueries * kMostColumns];
    alignas(64) float scores[kTileQueries * kBlock];
    alignas(64) Activation apart[kWeightsInPlace ? 1 : kTileQueries * kBlock];
    Activation* weights = kWeightsInPlace ? reinterpret_cast<Activation*>(scores) : apart;
    alignas(64) float sums[kTileQueries * kMostColumns];
    alignas(64) float carried[kTileQueries * kMostColumns];
    const int group = g_.group(), count = (last - first) * group, columns = g_.head_columns;
    take_queries(queries, first, last, unit.kv_head, q);
    fetch_first_page(next, kv);
    const bool carry = unit.first_block == 0;
    Softmax states[kTileVectors], parts[kTileVectors];
    for (Softmax& state : states) state = {splat(kNoPeak), splat(0.0f)};
    if (carry) std::fill(carried, carried + count * columns, 0.0f);
    for (int block = unit.first_block; block < unit.last_block; ++block) {
      const Keys keys = keys_of(unit.span, block);
      int seen[kTileVectors * kLanes];
      const int most = see(unit, first, last, keys, seen);
      if (most <= 0) break;
      const int panels = (most + kLanes - 1) / kLanes;
      score(unit, q, count, keys.pages, panels, fetches, kv, scores);
      for (int v = 0; v < kTileVectors; ++v)
        parts[v] = weigh(scores + v * kLanes * kLanes, seen + v * kLanes, std::min(kLanes, count - v * kLanes), panels,
                         weights + v * kLanes * kWeightQuery);
      gather(unit, weights, count, keys.pages, most, fetches, kv, sums,
             block + 1 < unit.last_block ? keys_of(unit.span, block + 1) : Keys{});
      if (!carry) {
        keep(unit, first, count, block, parts, sums);
        continue;
      }
      alignas(64) float before[kTileVectors * kLanes], now[kTileVectors * kLanes];
      for (int v = 0; v < kTileVectors; ++v) fold(states[v], parts[v], before + v * kLanes, now + v * kLanes);
      blend(carried, sums, count, columns, before, now);
    }
    if (!carry) return;
    if (!unit.whole) return keep(unit, first, count, 0, states, carried);
    alignas(64) float totals[kTileVectors * kLanes];
    for (int v = 0; v < kTileVectors; ++v) store(totals + v * kLanes, states[v].total);
    for (int i = 0; i < count; ++i)
      if (Activation* to = out(first + i / group))
        divide(carried + i * columns, totals[i], to + (unit.kv_head * group + i % group) * g_.head_dim);
  }

  // Copies the queries of some rows for one KV head to `q`, [rows * group][key_pairs * 2].
  void take_queries(const Activation* queries, int first, int last, int kv_head, Activation* q) const {
    const int group = g_.group(), q_stride = g_.key_pairs() * 2;
    for (int row = first; row < last; ++row)
      for (int head = kv_head * group; head < (kv_head + 1) * group; ++head, q += q_stride) {
        q[q_stride - 1] = 0;
        copy_few(q, queries + (static_cast<std::size_t>(row) * g_.heads + head) * g_.head_dim, g_.head_dim);
      }
  }

  // Writes to `seen` how many of a block's keys each query sees; returns the most.
  int see(const Unit& unit, int first, int last, const Keys& keys, int* seen) const {
    int most = 0;
    for (int row = first; row < last; ++row) {
      const int before = batch_.positions[row] + 1 - keys.first;
      const int count = batch_.span_causal[unit.span] ? std::min(keys.count, before) : keys.count;
      for (int i = 0; i < g_.group(); ++i) *seen++ = count;
      most = std::max(most, count);
    }
    return most;
  }

  // Keeps the partials of a tile's queries for one block.
  void keep(const Unit& unit, int first, int count, int block, const Softmax* parts, const float* values) {
    alignas(64) float peaks[kTileVectors * kLanes], totals[kTileVectors * kLanes];
    for (int v = 0; v < kTileVectors; ++v)
      store(peaks + v * kLanes, parts[v].peak), store(totals + v * kLanes, parts[v].total);
    const int group = g_.group(), columns = g_.head_columns;
    for (int i = 0; i < count; ++i) {
      if (totals[i] == 0.0f) continue;
      const std::size_t slot = static_cast<std::size_t>(slots_[first + i / group]) + block;
      const std::size_t at = slot * g_.heads + unit.kv_head * group + i % group;
      peaks_[at] = peaks[i], totals_[at] = totals[i];
      copy_few(values_.get() + at * columns, values + i * columns, columns);
    }
  }

  // Prefetches a unit's first page before the unit starts: a short span would end before its own prefetches arrive.
  void fetch_first_page(const Unit& unit, const std::uint16_t* kv) const {
    const std::uint16_t* page = kv + g_.page_of(keys_of(unit.span, unit.first_block).pages[0], unit.kv_head);
    for (std::size_t i = 0; i < g_.key_page() + g_.value_page(); i += kPanel) prefetch_l2(page + i);
  }

  // Computes the scores of `panels` panels of keys, reading them once, and meanwhile prefetches as much of the values,
  // which lie behind them, if it `fetches`.
  void score(const Unit& unit, const Activation* q, int count, const std::int32_t* pages, int panels,
             bool fetches, const std::uint16_t* kv, float* scores) const {
#if defined(PARROT_HAS_AMX)
    if (!fetches && g_.key_pairs() == 2 * kRun) {
      const auto panel = [&](int p) {
        return kv + g_.page_of(pages[p / kPagePanels], unit.kv_head) + p % kPagePanels * g_.key_panel();
      };
      micro_in_turn(count, q, g_.key_pairs() * 2, panels, panel, [&](int p) { return scores + p * kScorePanel; });
      return;
    }
#endif
    int first = 0;
    for (; first + 1 < panels; first += kPageGroup)
      score_panels<kPageGroup>(unit, q, count, pages, first, std::min(kPageGroup, panels - first), fetches, kv, scores);
    if (first < panels) score_panels<1>(unit, q, count, pages, first, 1, fetches, kv, scores);
  }

  // Scores P panels side by side. Where there are only `there`, the last one is repeated, and those scores are not
  // read.
  template <int P>
  void score_panels(const Unit& unit, const Activation* q, int count, const std::int32_t* pages, int first, int there,
                    bool fetches, const std::uint16_t* kv, float* scores) const {
    const std::uint16_t* panels[P];
    for (int p = 0; p < P; ++p) {
      const int panel = first + std::min(p, there - 1);
      panels[p] = kv + g_.page_of(pages[panel / kPagePanels], unit.kv_head) + panel % kPagePanels * g_.key_panel();
    }
    const std::size_t key_page = g_.key_page();
    const auto panel = panels_at(kPanel, [&](int p, int k) { return panels[p] + k * kPanel; });
    constexpr int kRows = rows_of_group(P);
    const std::size_t q_stride = g_.key_pairs() * 2;
    for (int i = 0; i < count; i += kRows)
      micro_group<P>(std::min(kRows, count - i), {q + i * q_stride, q_stride}, g_.key_pairs(), panel,
                     {scores + first * kScorePanel + i * kLanes, kLanes, kScorePanel},
                     fetcher(fetches && i == 0, [&](int k) {
#pragma GCC unroll 4
                       for (int p = 0; p < P; ++p) prefetch_l2(panel.at(p, k) + key_page);
                     }));
  }

  // Sums the values of the first `keys` keys by their weights, reading them once, and meanwhile prefetches the keys
  // that are needed next. Reads whole pairs and no more, since a page may hold anything beyond them.
  void gather(const Unit& unit, const Activation* weights, int count, const std::int32_t* pages, int keys,
              bool fetches, const std::uint16_t* kv, float* sums, const Keys& next) const {
    const std::uint16_t *bases[kBlockPages], *ahead[kBlockPages];
    const int block_pages = (keys + kPage - 1) / kPage;
    const int next_pages = std::min((next.count + kPage - 1) / kPage, block_pages);
    for (int page = 0; page < block_pages; ++page) {
      bases[page] = kv + g_.page_of(pages[page], unit.kv_head) + g_.key_page();
      ahead[page] = page < next_pages ? kv + g_.page_of(next.pages[page], unit.kv_head) : nullptr;
    }
    const int pairs = (keys + 1) / 2, columns = g_.head_columns, lines = g_.key_pairs() / 8;
    for (int first = 0; first < columns / kLanes; first += kPageGroup) {
      constexpr int kRows = rows_of_group(kPageGroup);
      for (int i = 0; i < count; i += kRows)
        micro_group<kPageGroup>(
            std::min(kRows, count - i), {weights + i * kWeightQuery, kWeightQuery, kWeightPage}, pairs,
            panels_at(columns * 2,
                      [&](int p, int k) { return bases[k / kRun] + (k % kRun) * columns * 2 + (first + p) * kPanel; }),
            {sums + i * columns + first * kLanes, static_cast<std::size_t>(columns)},
            fetcher(fetches && i == 0 && first == 0, [&](int k) {
              const std::uint16_t* key = ahead[k / kRun];
              for (int line = 0; key && line < lines; ++line) prefetch_l2(key + (k % kRun * lines + line) * kPanel);
            }));
    }
  }

  const Geometry g_;
  Batch batch_;
  std::vector<Unit> units_, wanted_units_;
  std::vector<int> starts_, wanted_starts_;
  std::vector<char> merged_;  // by row
  std::vector<int> slots_;    // [rows + 1]: where a row's partials begin, one per absolute key block up to its own
  Aligned<float> peaks_;    // [partials]
  Aligned<float> totals_;   // [partials]; 0 where nothing was seen
  Aligned<float> values_;   // [partials][head_columns]
};
