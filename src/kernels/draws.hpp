// Draws a token from an output's highest logits; where those do not decide, from more of them, and in the end from all.
// Included per variant, after logits.hpp.
//
// The answer is that of `parrotserve.engines.native.sampler.draw_from_row`, or kUnsure. Weights and sums are doubles,
// but added in another order than there, and masses are known only within bounds; so the sum of what the filters keep
// is known only within bounds, too (`Range`). A token is the answer if it is the same for all values within these
// bounds.

typedef double TileDoubles __attribute__((vector_size(4 * kTileLanes)));
typedef std::int64_t TileLongs __attribute__((vector_size(4 * kTileLanes)));
typedef float HalfTile __attribute__((vector_size(2 * kTileLanes)));
constexpr int kDoubleLanes = kTileLanes / 2;

// 2^x for -1000 <= x <= 0, by a Taylor series with a remainder below 1e-17.
static inline TileDoubles exp2_exact(TileDoubles x) {
  constexpr double kTerms[] = {
      0x1.62e42fefa39efp-1,  0x1.ebfbdff82c58fp-3,  0x1.c6b08d704a0c0p-5,  0x1.3b2ab6fba4e77p-7,  0x1.5d87fe78a6731p-10,
      0x1.430912f86c787p-13, 0x1.ffcbfc588b0c7p-17, 0x1.62c0223a5c824p-20, 0x1.b5253d395e7c4p-24, 0x1.e4cf5158b8ecap-28,
      0x1.e8cac7351bb25p-32, 0x1.c3bd650fc2986p-36, 0x1.816193166d0f9p-40,
  };
  const TileDoubles magic = TileDoubles{} + 0x1.8p52;  // adding it rounds to an integer in the low bits
  const TileDoubles shifted = x + magic, f = x - (shifted - magic);
  TileDoubles p = TileDoubles{} + kTerms[12];
  for (int i = 11; i >= 0; --i) p = p * f + kTerms[i];
  p = p * f + 1.0;
  return (TileDoubles)((TileLongs)p + (((TileLongs)shifted - (TileLongs)magic) << 52));
}

// In [0, 1); see parrotserve/engines/native/uniform.py.
static inline double uniform(std::uint64_t start, std::int32_t position) {
  std::uint64_t word = start + (static_cast<std::uint64_t>(position) + 1) * 0x9E3779B97F4A7C15u;
  word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9u;
  word = (word ^ (word >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((word ^ (word >> 31)) >> 11) * 0x1p-53;
}

// Draws for one output at a time. Each thread keeps one, to reuse its memory.
class RowDraw {
 public:
  static constexpr int kUnsure = -1;

  struct Question {
    double scale;         // what logits are multiplied with: one over the temperature
    int top_k;            // 0: no filter; so are top_p of 1 and min_p of 0
    double top_p, min_p;
    double number;        // in [0, 1)
  };

  int token(LogitRows& rows, int output, const Question& question) {
    const float highest = rows.top(output);
    if (!(question.scale <= kMostScale) || highest != highest) return kUnsure;
    const Range mass = about(this->mass(rows, output, question.scale), kMassError);
    for (const int tiles : {32, 128, 512}) {
      if (2 * tiles > rows.tiles()) break;
      rows.choose(output, tiles, pool);
      if (!promising(mass.low, question)) continue;
      rows.gather(output, pool);
      weigh(question.scale, highest);
      const int token = decide(mass, question);
      if (token != kUnsure) return token;
    }
    rows.take_all(output, pool);
    weigh(question.scale, highest);
    return decide(about(total_, kDoubt), question);
  }

  // The sum of all weights, within 2e-5.
  double mass(LogitRows& rows, int output, double scale) { return rows.mass(output, scale, tile_weights_); }

  TokenPool pool;

 private:
  static constexpr int kMostBins = 4096, kStretch = 32;
  static constexpr double kDoubt = 1e-11, kMassError = 2e-5, kMostScale = 1e30;
  static constexpr float kNats = 45.0f;  // tokens less likely than the likeliest one by more than this share one bin

  // Bounds of a sum of weights.
  struct Range {
    double low, high;
  };
  static Range about(double sum, double error) { return {sum * (1 - error), sum * (1 + error)}; }

  struct Place {
    int token;
    double through;  // the sum of weights up to and including it
  };

  // Whether the pool's tiles hold enough mass to answer the question, as far as their masses tell.
  bool promising(double mass, const Question& question) const {
    if (question.top_k || question.min_p > 0.0) return true;
    double held = 0.0;
    for (const int tile : pool.tiles) held += static_cast<double>(tile_weights_[tile]);
    return held > question.number * question.top_p * mass;
  }

  // Decides from the pool alone, given the sum of all weights. Filters keep the likeliest tokens up to some rank, so
  // what they keep is represented by its sum.
  int decide(Range kept, const Question& question) {
    const bool complete = pool.ids == nullptr;
    if (question.top_k && question.top_k < (complete ? pool.count : INT32_MAX)) {
      if (question.top_k > pool.count) return kUnsure;
      kept = about(sum_of_first(question.top_k), kDoubt);
    }
    if (question.top_p < 1.0) {
      const Range target{question.top_p * kept.low, question.top_p * kept.high};
      const Place low = first([&](double sum) { return sum >= target.low; });
      const Place high = first([&](double sum) { return sum >= target.high; });
      // If the last token that is kept is not in the pool, it is less likely than all that are.
      kept.low = low.token == kUnsure ? target.low : about(low.through, kDoubt).low;
      kept.high = std::min(kept.high, about(high.token == kUnsure ? target.high + beyond_ : high.through, kDoubt).high);
    }
    if (question.min_p > 0.0) {
      const Range likely{sum_of_at_least(question.min_p * (1 + kDoubt)), sum_of_at_least(question.min_p * (1 - kDoubt))};
      kept.low = std::min(kept.low, about(std::max(likely.low, 1.0), kDoubt).low);
      if (complete || beyond_ < question.min_p * (1 - kDoubt))
        kept.high = std::min(kept.high, about(std::max(likely.high, 1.0), kDoubt).high);
    }
    // The token is among those that are kept, because `number` is below 1.
    const Place found = first([&](double sum) { return sum > question.number * kept.low; });
    return found.through > question.number * kept.high ? found.token : kUnsure;
  }

  // Computes the pool's weights, and their sums in bins of falling logits.
  void weigh(double scale, float highest) {
    const int count = pool.count;
    padded_ = (count + kStretch - 1) / kStretch * kStretch;
    weights_.assign(padded_, 0.0), bin_of_.assign(padded_, kMostBins);
    const double exponent = scale * 1.4426950408889634;
    int i = 0;
    for (; i + kDoubleLanes <= count; i += kDoubleLanes) {
      HalfTile logits;
      __builtin_memcpy(&logits, pool.values + i, sizeof logits);
      TileDoubles x = (__builtin_convertvector(logits, TileDoubles) - static_cast<double>(highest)) * exponent;
      x = x > -1000.0 ? x : TileDoubles{} - 1000.0;
      const TileDoubles weights = exp2_exact(x);
      __builtin_memcpy(&weights_[i], &weights, sizeof weights);
    }
    for (; i < count; ++i) weights_[i] = weight_of(pool.values[i] - static_cast<double>(highest), exponent);
    beyond_ = pool.ids ? weight_of(pool.least - static_cast<double>(highest), exponent) : 0.0;

    bins_ = std::min(std::max(count / 2, 2), kMostBins);
    const float range = std::min(highest - lowest_of(pool.values, count), kNats / static_cast<float>(scale));
    const float last = static_cast<float>(bins_ - 1), bins = last / std::max(range, 1e-30f);
    for (i = 0; i < count; ++i)
      bin_of_[i] = static_cast<std::uint16_t>(static_cast<int>(std::min((highest - pool.values[i]) * bins, last)));
    std::fill(sums_, sums_ + bins_, 0.0);
    std::fill(counts_, counts_ + bins_, 0);
    for (i = 0; i < count; ++i) sums_[bin_of_[i]] += weights_[i], ++counts_[bin_of_[i]];
    total_ = 0.0;
    for (int bin = 0; bin < bins_; ++bin) total_ += sums_[bin];
  }

  static double weight_of(double distance, double exponent) { return std::exp2(std::max(distance * exponent, -1000.0)); }

  // The bin's tokens, as places in the pool, likeliest first and lower ids first among equals.
  const std::vector<std::int32_t>& sorted(int bin) {
    found_.clear();
    for (int first = 0; first < padded_; first += kStretch) {
      int any = 0;
      for (int i = first; i < first + kStretch; ++i) any |= bin_of_[i] == bin;
      for (int i = first; any && i < first + kStretch; ++i)
        if (bin_of_[i] == bin) found_.push_back(i);
    }
    const float* values = pool.values;
    std::sort(found_.begin(), found_.end(), [values](std::int32_t a, std::int32_t b) {
      return values[a] != values[b] ? values[a] > values[b] : a < b;
    });
    return found_;
  }

  // The first token, likeliest first, with which the sum of weights is `enough`; `kUnsure` if all together are not.
  template <class Enough>
  Place first(const Enough& enough) {
    double before = 0.0;
    int bin = 0;
    while (bin < bins_ && !enough(before + sums_[bin])) before += sums_[bin++];
    if (bin == bins_) return {kUnsure, 0.0};
    for (const std::int32_t place : sorted(bin))
      if (enough(before += weights_[place])) return {pool.id(place), before};
    return {kUnsure, 0.0};
  }

  double sum_of_first(int tokens) {
    double sum = 0.0;
    int bin = 0;
    while (tokens > counts_[bin]) tokens -= counts_[bin], sum += sums_[bin++];
    const std::vector<std::int32_t>& rest = sorted(bin);
    for (int i = 0; i < tokens; ++i) sum += weights_[rest[i]];
    return sum;
  }

  double sum_of_at_least(double least) const {
    TileDoubles sums = {};
    for (int i = 0; i < padded_; i += kDoubleLanes) {
      TileDoubles weights;
      __builtin_memcpy(&weights, &weights_[i], sizeof weights);
      sums += weights >= least ? weights : TileDoubles{};
    }
    double sum = 0.0;
    for (int lane = 0; lane < kDoubleLanes; ++lane) sum += sums[lane];
    return sum;
  }

  std::vector<float> tile_weights_;
  // State of the pool.
  int padded_ = 0, bins_ = 0;  // padded: tokens, rounded up to stretches
  double total_ = 0.0;
  double beyond_ = 0.0;        // upper bound of the weight of any token that is not in it
  double sums_[kMostBins];
  int counts_[kMostBins];
  std::vector<double> weights_;
  std::vector<std::uint16_t> bin_of_;
  std::vector<std::int32_t> found_;
};
