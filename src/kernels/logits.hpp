// The logits of a step's outputs: stored as they are computed, and searched for what sampling needs.
// Included per variant, after matrix.hpp.

// The tokens of an output whose logits are at least `least`. Each thread keeps one, to reuse its memory.
struct TokenPool {
  int count = 0;
  const std::int32_t* ids = nullptr;  // ascending; null where the pool is the whole vocabulary
  const float* values = nullptr;
  float least = 0;

  int id(int place) const { return ids ? ids[place] : place; }

  std::vector<std::int32_t> id_room, tiles;
  std::vector<float> value_room;
};

class LogitRows {
 public:
  // Begins a step. `logits` is [outputs, vocabulary], filled tile by tile. `scales` is [outputs], or null: one over the
  // temperature at which a token is going to be drawn, 0 where none is.
  void begin(float* logits, int outputs, int vocabulary, int tile_outputs, const double* scales) {
    logits_ = logits;
    vocabulary_ = vocabulary;
    tile_outputs_ = tile_outputs;
    tiles_ = (vocabulary + tile_outputs - 1) / tile_outputs;
    stride_ = (tiles_ + kLanes - 1) / kLanes * kLanes;
    tops_.resize(outputs);
    scales_.assign(outputs, 0.0);
    if (scales) std::copy_n(scales, outputs, scales_.begin());
    highest_.reserve(static_cast<std::size_t>(outputs) * stride_);
    masses_.reserve(static_cast<std::size_t>(outputs) * stride_);
    for (int output = 0; output < outputs; ++output) {
      std::fill(highest(output) + tiles_, highest(output) + stride_, -INFINITY);
      std::fill(masses(output) + tiles_, masses(output) + stride_, 0.0f);
    }
  }

  // Stores one tile of one output after its multiplication; `out` is padded to the tile's width.
  void keep(int output, int tile, const float* out) {
    const int first = tile * tile_outputs_, count = std::min(tile_outputs_, vocabulary_ - first);
    stream(logits_ + static_cast<std::size_t>(output) * vocabulary_ + first, out, count);
    const float most = highest(output)[tile] = highest_of(out, count);
    if (scales_[output] > 0.0) masses(output)[tile] = mass_of(out, count, most, exponent(scales_[output]));
  }

  // Finds the highest logit and its token, the lowest id among equals; `highest` is NaN if any logit is NaN or
  // infinite. All tiles must have been kept.
  void likeliest(int output, std::int32_t& id, float& highest) {
    const float* tiles = this->highest(output);
    int best = 0;
    for (int tile = 0; tile < tiles_; ++tile) {
      if (tiles[tile] != tiles[tile]) best = tile;
      if (tiles[best] != tiles[best]) break;
      if (tiles[tile] > tiles[best]) best = tile;
    }
    highest = tops_[output] = tiles[best];
    const float* row = this->row(output);
    id = best * tile_outputs_;
    while (highest == highest && row[id] != highest) ++id;
  }

  // Returns the sum of exp((logit - highest) * scale), within 2e-5, and writes each tile's part of it to `weights`,
  // [tiles].
  double mass(int output, double scale, std::vector<float>& weights) {
    weigh(output, scale);
    weights.resize(stride_);
    const float *highest = this->highest(output), *masses = this->masses(output);
    const float top = tops_[output], by = exponent(scale);
    F32x16 sum{};
    for (int tile = 0; tile < stride_; tile += kLanes) {
      const F32x16 weight = exp2(max((load(highest + tile) - top) * by, splat(kLeast))) * load(masses + tile);
      store(&weights[tile], weight);
      sum += weight;
    }
    return sum_lanes(sum);
  }

  // Chooses `pool.least` so that at least `tiles` tiles have a logit that reaches it, and lists these tiles.
  void choose(int output, int tiles, TokenPool& pool) const {
    const float *row = this->row(output), *highest = this->highest(output);
    pool.least = reached_by(output, tiles);
    pool.tiles.clear();
    for (int tile = 0; tile < tiles_; ++tile) {
      if (highest[tile] < pool.least) continue;
      pool.tiles.push_back(tile);
      for (int i = 0; i < tile_outputs_; i += kLanes) prefetch_l2(row + tile * tile_outputs_ + i);
    }
  }

  // Fills the pool with the tokens of the chosen tiles.
  void gather(int output, TokenPool& pool) const {
    const std::size_t room = pool.tiles.size() * tile_outputs_ + kLanes;
    if (pool.value_room.size() < room) pool.value_room.resize(room), pool.id_room.resize(room);
    pool.count = 0;
    for (const int tile : pool.tiles) {
      const int first = tile * tile_outputs_, count = std::min(tile_outputs_, vocabulary_ - first);
      pool.count += pick(row(output) + first, count, pool.least, first, &pool.value_room[pool.count],
                         &pool.id_room[pool.count]);
    }
    pool.ids = pool.id_room.data(), pool.values = pool.value_room.data();
  }

  void take_all(int output, TokenPool& pool) const {
    pool.count = vocabulary_, pool.ids = nullptr, pool.values = row(output), pool.least = -INFINITY;
  }

  // Writes the `count` highest logits to `ids` and `values`, highest first and lower ids first among equals.
  void candidates(int output, int count, std::int32_t* ids, float* values, TokenPool& pool) const {
    if (count <= tiles_) {
      choose(output, count, pool);
      gather(output, pool);
    } else {
      take_all(output, pool);
    }
    std::vector<std::uint64_t> found(pool.count);
    for (int i = 0; i < pool.count; ++i) found[i] = falling(pool.values[i]) << 32 | static_cast<std::uint32_t>(pool.id(i));
    std::nth_element(found.begin(), found.begin() + (count - 1), found.end());
    std::sort(found.begin(), found.begin() + count);
    const float* row = this->row(output);
    for (int i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(found[i]), values[i] = row[ids[i]];
  }

  const float* row(int output) const { return logits_ + static_cast<std::size_t>(output) * vocabulary_; }
  float top(int output) const { return tops_[output]; }
  int tiles() const { return tiles_; }

 private:
  static constexpr float kLeast = -126.0f;  // exponents are at least this; what is less weighs nothing

  const float* highest(int output) const { return highest_.get() + static_cast<std::size_t>(output) * stride_; }
  float* highest(int output) { return highest_.get() + static_cast<std::size_t>(output) * stride_; }
  float* masses(int output) { return masses_.get() + static_cast<std::size_t>(output) * stride_; }

  // Maps a float to an unsigned integer: larger floats become smaller integers.
  static std::uint64_t falling(float value) {
    const float number = value + 0.0f;  // 0 and -0 are equal
    std::uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7fffffffu;
  }

  // The highest value; NaN if any value is NaN or infinite.
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

  // exp(x * scale) is 2^(x * exponent(scale)).
  static float exponent(double scale) { return static_cast<float>(std::min(scale, 1e30) * static_cast<double>(kLog2E)); }

  static float mass_of(const float* values, int count, float highest, float exponent) {
    F32x16 sum{};
    int i = 0;
    for (; i + kLanes <= count; i += kLanes)
      sum += exp2(max((load(values + i) - highest) * exponent, splat(kLeast)));
    float mass = sum_lanes(sum);
    for (; i < count; ++i) mass += std::exp2(std::max((values[i] - highest) * exponent, kLeast));
    return mass;
  }

  // Makes sure that the tiles' masses, each relative to the tile's own highest logit, are those at this scale.
  void weigh(int output, double scale) {
    if (scales_[output] == scale) return;
    for (int tile = 0; tile < tiles_; ++tile) {
      const int first = tile * tile_outputs_, count = std::min(tile_outputs_, vocabulary_ - first);
      masses(output)[tile] = mass_of(row(output) + first, count, highest(output)[tile], exponent(scale));
    }
    scales_[output] = scale;
  }

  // A number that the highest logits of at least `count` tiles reach, and of few more tiles if such a number is found
  // soon.
  float reached_by(int output, int count) const {
    const float* tiles = highest(output);
    float low = lowest_of(tiles, tiles_), high = tops_[output];
    for (int step = 0; step < 16; ++step) {
      const float middle = low + (high - low) / 2;
      const int reaching = how_many_reach(tiles, middle);
      (reaching < count ? high : low) = middle;
      if (reaching >= count && reaching <= count + count / 4) break;
    }
    return low;
  }

  int how_many_reach(const float* tiles, float least) const {
    TileInts reaching{};
    for (int tile = 0; tile < stride_; tile += kTileLanes) {
      TileVector v;
      std::memcpy(&v, tiles + tile, sizeof v);
      reaching -= v >= least;
    }
    return sum_lanes(reaching);
  }

  float* logits_ = nullptr;
  int vocabulary_ = 0, tile_outputs_ = 0, tiles_ = 0;
  int stride_ = 0;  // tiles, rounded up to vectors
  std::vector<float> tops_;           // [outputs]: the highest logits
  std::vector<double> scales_;        // [outputs]: the scales of the masses; 0 where there are none
  Aligned<float> highest_, masses_;   // [outputs][stride]
};
