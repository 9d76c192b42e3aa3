// Attention of one layer over paged KV. Included per variant, after matrix.hpp.
//
// A page holds sixteen tokens. Keys lie as one panel a head, [head_dim / 2][16 keys][2]; values as eight pairs of
// keys, [8][head_dim][2]: both are read by the register tile as they stand, so a shared page is never copied.
//
// The work is cut into units: (span, KV head, some query rows, some key blocks). A unit leaves softmax partials
// (peak, total, weighted values); `merge` combines them per row in the order of the absolute key blocks.
// (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Juravsky et al., "Hydragen", 2024.)

constexpr int kBlock = Decoder::kBlockTokens;
constexpr int kPage = Decoder::kPageTokens;
constexpr int kBlockPages = kBlock / kPage;
constexpr int kTileQueries = 24;
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
};

// The pages of one layer.
struct LayerKv {
  std::uint16_t* keys;
  std::uint16_t* values;
};

static inline void write_key(const Geometry& g, const LayerKv& kv, int slot, int head, const float* key) {
  std::uint16_t* page = kv.keys + (static_cast<std::size_t>(slot / kPage) * g.kv_heads + head) * g.key_page();
  for (int d = 0; d < g.head_dim; ++d) page[(d / 2) * kPanel + (slot % kPage) * 2 + d % 2] = to_bf16(key[d]);
}

static inline void write_value(const Geometry& g, const LayerKv& kv, int slot, int head, const float* value) {
  std::uint16_t* page = kv.values + (static_cast<std::size_t>(slot / kPage) * g.kv_heads + head) * g.value_page();
  std::uint16_t* pair = page + static_cast<std::size_t>(slot % kPage / 2) * g.head_columns * 2 + slot % 2;
  for (int d = 0; d < g.head_dim; ++d) pair[2 * d] = to_bf16(value[d]);
}

// Softmax partials of one query row: `total` is relative to `peak`; total 0 means nothing was seen.
struct Partial {
  float peak, total;
  float* values;  // [head_columns]
};

static inline void absorb(Partial& into, const Partial& from, int columns) {
  if (from.total == 0.0f) return;
  if (into.total == 0.0f) {
    into.peak = from.peak, into.total = from.total;
    std::memcpy(into.values, from.values, columns * sizeof(float));
    return;
  }
  const float peak = std::max(into.peak, from.peak);
  float scales[kLanes] = {into.peak - peak, from.peak - peak};
  store(scales, exp2_nonpositive(load(scales)));
  into.peak = peak;
  into.total = into.total * scales[0] + from.total * scales[1];
  for (int c = 0; c < columns; c += kLanes)
    store(into.values + c, load(into.values + c) * scales[0] + load(from.values + c) * scales[1]);
}

class Attention {
 public:
  explicit Attention(const Geometry& geometry) : g_(geometry) {}

  // Plans the units of a step; the same for every layer.
  void plan(const Batch& batch, int threads) {
    batch_ = batch;
    units_.clear();
    slots_.assign(batch.rows + 1, 0);
    for (int row = 0; row < batch.rows; ++row) slots_[row + 1] = slots_[row] + batch.positions[row] / kBlock + 1;
    const std::size_t partials = static_cast<std::size_t>(slots_[batch.rows]) * g_.heads;
    stats_.reserve(2 * partials);
    values_.reserve(partials * g_.head_columns);
    for (int span = 0; span < batch.spans; ++span) plan_span(span, threads);
  }

  int units() const { return static_cast<int>(units_.size()); }

  // Marks every partial as empty; thread `t` of `n` does its share.
  void clear(int t, int n) {
    const std::size_t count = static_cast<std::size_t>(slots_[batch_.rows]) * g_.heads;
    for (std::size_t i = count * t / n; i < count * (t + 1) / n; ++i) stats_[2 * i + 1] = 0.0f;
  }

  // `queries` are [rows][heads][head_dim], scaled so that scores are logarithms to base 2.
  void run(int index, const Activation* queries, const LayerKv& kv) {
    const Unit& unit = units_[index];
    const int queries_a_tile = kTileQueries / g_.group() < 1 ? 1 : kTileQueries / g_.group();
    for (int row = unit.first_row; row < unit.last_row; row += queries_a_tile)
      run_tile(unit, row, std::min(row + queries_a_tile, unit.last_row), queries, kv);
  }

  // The attention output of one row, [heads * head_dim].
  void merge(int row, Activation* out) {
    alignas(64) float sum[kMostColumns];
    for (int head = 0; head < g_.heads; ++head) {
      Partial state{0, 0, sum};
      for (int slot = slots_[row]; slot < slots_[row + 1]; ++slot) absorb(state, partial(slot, head), g_.head_columns);
      const float scale = 1.0f / state.total;
      for (int d = 0; d < g_.head_dim; ++d) out[head * g_.head_dim + d] = to_activation(sum[d] * scale);
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

  Partial partial(int slot, int head) {
    const std::size_t i = static_cast<std::size_t>(slot) * g_.heads + head;
    return {stats_[2 * i], stats_[2 * i + 1], values_.get() + i * g_.head_columns};
  }
  void keep(int slot, int head, const Partial& p) {
    const std::size_t i = static_cast<std::size_t>(slot) * g_.heads + head;
    stats_[2 * i] = p.peak, stats_[2 * i + 1] = p.total;
    std::memcpy(values_.get() + i * g_.head_columns, p.values, g_.head_columns * sizeof(float));
  }

  // A unit that begins at key block 0 carries the state of each row along and leaves it in the row's first slot;
  // any other leaves the partials of each block. `merge` then does the same sums in the same order either way.
  void run_tile(const Unit& unit, int first, int last, const Activation* queries, const LayerKv& kv) {
    alignas(64) Activation q[kTileQueries * kMostColumns];
    alignas(64) float scores[kTileQueries * kBlock];
    alignas(64) Activation weights[kTileQueries * kBlock];
    alignas(64) float sums[kTileQueries * kMostColumns];
    alignas(64) float carried[kTileQueries * kMostColumns];
    const int group = g_.group(), count = (last - first) * group, q_stride = g_.key_pairs() * 2;
    Partial state[kTileQueries];
    for (int i = 0; i < count; ++i) {
      const std::size_t from = static_cast<std::size_t>(first + i / group) * g_.heads + unit.kv_head * group + i % group;
      q[i * q_stride + q_stride - 1] = 0;
      std::memcpy(q + i * q_stride, queries + from * g_.head_dim, g_.head_dim * sizeof *q);
      state[i] = {0, 0, carried + i * g_.head_columns};
    }
    const int start = batch_.span_keys[2 * unit.span], end = start + batch_.span_keys[2 * unit.span + 1];
    const std::int32_t* pages = batch_.pages + batch_.page_starts[unit.span];
    const bool carry = unit.first_block == 0;
    for (int block = unit.first_block; block < unit.last_block; ++block) {
      const int key = std::max(block * kBlock, start), keys = std::min((block + 1) * kBlock, end) - key;
      int seen[kTileQueries], most = 0;
      for (int i = 0; i < count; ++i) {
        const int position = batch_.positions[first + i / group];
        seen[i] = batch_.span_causal[unit.span] ? std::min(keys, position + 1 - key) : keys;
        most = std::max(most, seen[i]);
      }
      if (most <= 0) continue;
      const std::int32_t* here = pages + (key - start) / kPage;
      const int block_pages = (most + kPage - 1) / kPage;
      score(q, q_stride, count, here, block_pages, unit.kv_head, kv, scores);
      float peaks[kTileQueries], totals[kTileQueries];
      for (int i = 0; i < count; ++i)
        soften(scores + i * kBlock, seen[i], block_pages * kPage, weights + i * kBlock, peaks[i], totals[i]);
      gather(weights, count, here, block_pages, unit.kv_head, kv, sums);
      for (int i = 0; i < count; ++i) {
        const Partial part{peaks[i], totals[i], sums + i * g_.head_columns};
        const int row = first + i / group, head = unit.kv_head * group + i % group;
        if (carry)
          absorb(state[i], part, g_.head_columns);
        else if (part.total != 0.0f)
          keep(slots_[row] + block, head, part);
      }
    }
    if (!carry) return;
    for (int i = 0; i < count; ++i) keep(slots_[first + i / group], unit.kv_head * group + i % group, state[i]);
  }

  void score(const Activation* q, int q_stride, int count, const std::int32_t* pages, int block_pages, int kv_head,
             const LayerKv& kv, float* scores) const {
    for (int first = 0; first < block_pages; first += kPageGroup) {
      const std::uint16_t* panels[kPageGroup];
      // A group is computed whole; beyond the last page it repeats one, and nobody looks.
      for (int p = 0; p < kPageGroup; ++p) {
        const int page = pages[std::min(first + p, block_pages - 1)];
        panels[p] = kv.keys + (static_cast<std::size_t>(page) * g_.kv_heads + kv_head) * g_.key_page();
      }
      constexpr int kRows = rows_of_group(kPageGroup);
      for (int i = 0; i < count; i += kRows)
        micro_group<kPageGroup>(std::min(kRows, count - i), q + i * q_stride, q_stride, g_.key_pairs(),
                               [&](int p, int k) { return panels[p] + k * kPanel; },
                               scores + i * kBlock + first * kPage, kBlock);
    }
  }

  // Scores of the first `seen` keys to weights, padded with zeros to `padded`.
  static void soften(float* scores, int seen, int padded, Activation* weights, float& peak, float& total) {
    peak = 0, total = 0;
    if (seen <= 0) {
      std::memset(weights, 0, padded * sizeof *weights);
      return;
    }
    for (int k = seen; k < padded; ++k) scores[k] = -INFINITY;
    F32x16 best = load(scores);
    for (int k = kLanes; k < padded; k += kLanes) best = max(best, load(scores + k));
    peak = max_lanes(best);
    F32x16 sum{};
    for (int k = 0; k < padded; k += kLanes) {
      const F32x16 weight = exp2_nonpositive(load(scores + k) - peak);
      sum += weight;
      store_activations(weights + k, weight);
    }
    total = sum_lanes(sum);
  }

  void gather(const Activation* weights, int count, const std::int32_t* pages, int block_pages, int kv_head,
              const LayerKv& kv, float* sums) const {
    const std::uint16_t* bases[kBlockPages];
    for (int page = 0; page < block_pages; ++page)
      bases[page] = kv.values + (static_cast<std::size_t>(pages[page]) * g_.kv_heads + kv_head) * g_.value_page();
    const int pairs = block_pages * kPage / 2, columns = g_.head_columns;
    for (int first = 0; first < columns / kLanes; first += kPageGroup) {
      constexpr int kRows = rows_of_group(kPageGroup);
      for (int i = 0; i < count; i += kRows)
        micro_group<kPageGroup>(std::min(kRows, count - i), weights + i * kBlock, kBlock, pairs,
                               [&](int p, int k) { return bases[k / 8] + (k % 8) * columns * 2 + (first + p) * kPanel; },
                               sums + i * columns + first * kLanes, columns);
    }
  }

  const Geometry g_;
  Batch batch_;
  std::vector<Unit> units_;
  std::vector<int> slots_;  // [rows + 1]: a row's partials, one an absolute key block up to its own
  Aligned<float> stats_;    // [partials][2]: peak, total
  Aligned<float> values_;   // [partials][head_columns]
};
