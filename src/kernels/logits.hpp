// The logits of a step's outputs: kept where they were computed, and asked for what sampling needs.
// Included per variant, after matrix.hpp.

class LogitRows {
 public:
  // `logits` is [outputs, vocabulary], to be filled tile by tile.
  void begin(float* logits, int outputs, int vocabulary, int tile_outputs) {
    logits_ = logits;
    vocabulary_ = vocabulary;
    tile_outputs_ = tile_outputs;
    tiles_ = (vocabulary + tile_outputs - 1) / tile_outputs;
    highest_.reserve(static_cast<std::size_t>(outputs) * tiles_);
  }

  // One tile of one output, fresh from the multiplication; `out` is padded to the tile's width.
  void keep(int output, int tile, const float* out) {
    const int first = tile * tile_outputs_, count = std::min(tile_outputs_, vocabulary_ - first);
    stream(logits_ + static_cast<std::size_t>(output) * vocabulary_ + first, out, count);
    highest_[static_cast<std::size_t>(output) * tiles_ + tile] = highest_of(out, count);
  }

  // The lowest id among the highest logits; `highest` is NaN if any logit is. All tiles have been kept.
  void likeliest(int output, std::int32_t& id, float& highest) const {
    const float* tiles = highest_.get() + static_cast<std::size_t>(output) * tiles_;
    int best = 0;
    for (int tile = 0; tile < tiles_; ++tile) {
      if (tiles[tile] != tiles[tile]) best = tile;
      if (tiles[best] != tiles[best]) break;
      if (tiles[tile] > tiles[best]) best = tile;
    }
    highest = tiles[best];
    const float* row = this->row(output);
    id = best * tile_outputs_;
    while (highest == highest && row[id] != highest) ++id;
  }

  // Into `ids` and `values` the `count` highest logits, highest first and lower ids first among equals; returns the
  // sum of exp((logit - highest) * scale).
  double candidates(int output, double scale, int count, std::int32_t* ids, float* values) const {
    const float *row = this->row(output), *tiles = highest_.get() + static_cast<std::size_t>(output) * tiles_;
    const float least = count_highest(std::vector<float>(tiles, tiles + tiles_), count);
    std::vector<std::uint64_t> found;
    found.reserve(8 * count);
    for (int tile = 0; tile < tiles_; ++tile) {
      if (tiles[tile] < least) continue;
      const int first = tile * tile_outputs_, last = std::min(first + tile_outputs_, vocabulary_);
      for (int id = first; id < last; ++id)
        if (row[id] >= least) found.push_back(falling(row[id]) << 32 | static_cast<std::uint32_t>(id));
    }
    std::nth_element(found.begin(), found.begin() + (count - 1), found.end());
    std::sort(found.begin(), found.begin() + count);
    for (int i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(found[i]), values[i] = row[ids[i]];
    return mass(row, values[0], static_cast<float>(scale * static_cast<double>(kLog2E)));
  }

  const float* row(int output) const { return logits_ + static_cast<std::size_t>(output) * vocabulary_; }

 private:
  // Unsigned integers in the opposite order of floats.
  static std::uint64_t falling(float value) {
    const float number = value + 0.0f;  // of two zeros none is the higher one
    std::uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7fffffffu;
  }

  // NaN if any of them is NaN or infinite.
  static float highest_of(const float* values, int count) {
    F32x16 best = splat(-INFINITY), nothing = splat(0.0f);
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const F32x16 v = load(values + i);
      best = max(best, v);
      nothing += v * 0.0f;
    }
    float highest = max_lanes(best), rest = sum_lanes(nothing);
    for (; i < count; ++i) {
      highest = std::max(highest, values[i]);
      rest += values[i] * 0.0f;
    }
    return rest == 0.0f ? highest : NAN;
  }

  // A number that at least `count` logits reach, for so many blocks do; all reach it where there are fewer blocks.
  static float count_highest(std::vector<float> blocks, int count) {
    if (static_cast<int>(blocks.size()) < count) return -INFINITY;
    std::nth_element(blocks.begin(), blocks.begin() + (count - 1), blocks.end(), std::greater<float>());
    return blocks[count - 1];
  }

  // Sums of a few thousand floats each, added up in double precision: the error stays below 1e-5 of the mass.
  double mass(const float* row, float highest, float scale) const {
    constexpr int kChunk = 1024;
    double total = 0;
    int i = 0;
    for (int chunk = 0; chunk < vocabulary_; chunk += kChunk) {
      F32x16 sum{};
      const int last = std::min(chunk + kChunk, vocabulary_);
      for (; i + kLanes <= last; i += kLanes) sum += exp2((load(row + i) - highest) * scale);
      total += static_cast<double>(sum_lanes(sum));
    }
    for (; i < vocabulary_; ++i) total += std::exp2(static_cast<double>((row[i] - highest) * scale));
    return total;
  }

  float* logits_ = nullptr;
  int vocabulary_ = 0, tile_outputs_ = 0, tiles_ = 0;
  Aligned<float> highest_;  // [outputs][tiles]
};
