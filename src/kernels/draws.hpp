// Drawing a token: from an output's highest logits, and where those do not decide from all of them. Included per
// variant, after simd.hpp.
//
// The answer is that of `parrotserve.engines.native.sampler.draw_from_row`, or none: weights and sums are doubles, here
// in another order than there, and where an answer hangs on less than `kDoubt` of the mass it is left to that.

typedef double TileDoubles __attribute__((vector_size(4 * kTileLanes)));
typedef std::int64_t TileLongs __attribute__((vector_size(4 * kTileLanes)));
typedef float HalfTile __attribute__((vector_size(2 * kTileLanes)));
constexpr int kDoubleLanes = kTileLanes / 2;

// 2^x for -1000 <= x <= 0: a Taylor series, its rest is below 1e-17.
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

// One thread's; kept, for its memory.
class RowDraw {
 public:
  static constexpr int kUnsure = -1;

  struct Question {
    double scale;         // what logits are multiplied with: one over the temperature
    int top_k;            // 0: no filter; so are 1 and 0 below
    double top_p, min_p;
    double number;        // in [0, 1)
  };

  // `highest` are those of the row, as many as it has or `kHighest`, and `mass` is the sum of all weights, nearly.
  static constexpr int kHighest = 128;
  struct Highest {
    std::int32_t ids[kHighest];
    float values[kHighest];
    int count;
    double mass;
  };

  int token(const float* row, int vocabulary, const Highest& highest, const Question& question) {
    const int token = from_highest(vocabulary, highest, question);
    return token != kUnsure || question.top_k ? token : from_all(row, vocabulary, highest.values[0], question);
  }

 private:
  static constexpr int kBins = 4096, kMost = 2048, kStretch = 32;
  static constexpr double kDoubt = 1e-11, kMassError = 2e-5;
  static constexpr float kNats = 45.0f;  // what is less likely by more than that is one bin

  int from_highest(int vocabulary, const Highest& highest, const Question& question) const {
    const int count = highest.count;
    double weights[kHighest], sums[kHighest], sum = 0.0;
    for (int i = 0; i < count; ++i) {
      weights[i] = std::exp((static_cast<double>(highest.values[i]) - highest.values[0]) * question.scale);
      sums[i] = sum += weights[i];
    }
    // What is kept, and its mass, which is certain as soon as the former is.
    int kept = question.top_k ? question.top_k : vocabulary;
    double mass = highest.mass, error = kMassError;
    const auto keep = [&](int tokens) {
      kept = std::min(kept, tokens);
      if (kept <= count) mass = sums[kept - 1], error = kDoubt;
    };
    keep(vocabulary);
    if (question.top_k && kept > count) return kUnsure;
    if (question.top_p < 1.0) {
      const double target = question.top_p * mass;
      const auto reached = std::lower_bound(sums, sums + count, target * (1 - error)) - sums;
      if (reached == count || sums[reached] < target * (1 + error)) return kUnsure;
      keep(static_cast<int>(reached) + 1);
    }
    if (question.min_p > 0.0) {
      int likely = 0;
      while (likely < count && weights[likely] >= question.min_p * (1 + kDoubt)) ++likely;
      if (likely < count ? weights[likely] > question.min_p * (1 - kDoubt) : count < kept) return kUnsure;
      keep(likely);
    }
    const double target = question.number * mass;
    const auto place = std::upper_bound(sums, sums + count, target * (1 - error)) - sums;
    return place < std::min(kept, count) && sums[place] > target * (1 + error) ? highest.ids[place] : kUnsure;
  }

  int from_all(const float* row, int vocabulary, float highest, const Question& question) {
    weigh(row, vocabulary, highest, question.scale);
    double kept = total_;
    if (question.top_p < 1.0) {
      const Place last = find(row, question.top_p * total_);
      if (last.token == kUnsure) return kUnsure;
      kept = last.through;
    }
    if (question.min_p > 0.0) {
      const double likely = mass_of_at_least(question.min_p);
      if (likely < 0.0) return kUnsure;
      kept = std::min(kept, likely);
    }
    return find(row, question.number * kept).token;
  }

  struct Place {
    int token;
    double through;  // the sum of weights up to and with it
  };

  // Weights, and their sums by bins of falling logits.
  void weigh(const float* row, int vocabulary, float highest, double scale) {
    padded_ = (vocabulary + kStretch - 1) / kStretch * kStretch;
    weights_.assign(padded_, 0.0), bins_.assign(padded_, kBins);
    const double exponent = scale * 1.4426950408889634;
    int i = 0;
    for (; i + kDoubleLanes <= vocabulary; i += kDoubleLanes) {
      HalfTile logits;
      __builtin_memcpy(&logits, row + i, sizeof logits);
      TileDoubles x = (__builtin_convertvector(logits, TileDoubles) - static_cast<double>(highest)) * exponent;
      x = x > -1000.0 ? x : TileDoubles{} - 1000.0;
      const TileDoubles weights = exp2_exact(x);
      __builtin_memcpy(&weights_[i], &weights, sizeof weights);
    }
    for (; i < vocabulary; ++i) weights_[i] = std::exp2(std::max((row[i] - double(highest)) * exponent, -1000.0));
    const float range = std::min(highest - lowest_of(row, vocabulary), kNats / static_cast<float>(scale));
    const float bins = (kBins - 1) / std::max(range, 1e-30f);
    for (i = 0; i < vocabulary; ++i)
      bins_[i] = static_cast<std::uint16_t>(static_cast<int>(std::min((highest - row[i]) * bins, kBins - 1.0f)));
    std::fill(sums_, sums_ + kBins, 0.0);
    for (i = 0; i < vocabulary; ++i) sums_[bins_[i]] += weights_[i];
    total_ = 0.0;
    for (double sum : sums_) total_ += sum;
  }

  static float lowest_of(const float* row, int count) {
    TileVector lowest = TileVector{} + row[0];
    int i = 0;
    for (; i + kTileLanes <= count; i += kTileLanes) {
      TileVector logits;
      __builtin_memcpy(&logits, row + i, sizeof logits);
      lowest = logits < lowest ? logits : lowest;
    }
    float least = *std::min_element(row + i - (i == count), row + count);
    for (int lane = 0; lane < kTileLanes; ++lane) least = std::min(least, lowest[lane]);
    return least;
  }

  // The first token, likeliest first, with which the sum of weights exceeds this.
  Place find(const float* row, double target) {
    double before = 0.0;
    int bin = 0;
    while (bin < kBins - 1 && before + sums_[bin] <= target) before += sums_[bin++];
    found_.clear();
    for (int first = 0; first < padded_; first += kStretch) {
      int any = 0;
      for (int i = first; i < first + kStretch; ++i) any |= bins_[i] == bin;
      for (int i = first; any && i < first + kStretch; ++i)
        if (bins_[i] == bin) found_.push_back(i);
    }
    if (found_.size() > kMost) return {kUnsure, 0.0};
    std::sort(found_.begin(), found_.end(),
              [row](std::int32_t a, std::int32_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    const double doubt = kDoubt * total_;
    for (const std::int32_t id : found_) {
      const double through = before + weights_[id];
      if (through > target + doubt) return {before == 0.0 || before < target - doubt ? id : kUnsure, through};
      before = through;
    }
    return {kUnsure, 0.0};
  }

  // Negative where a token is too close to it.
  double mass_of_at_least(double least) const {
    TileDoubles mass = {};
    TileLongs close = {};
    for (int i = 0; i < padded_; i += kDoubleLanes) {
      TileDoubles weights;
      __builtin_memcpy(&weights, &weights_[i], sizeof weights);
      mass += weights >= least ? weights : TileDoubles{};
      close |= (weights > least * (1 - kDoubt)) & (weights < least * (1 + kDoubt));
    }
    double sum = 0.0;
    for (int lane = 0; lane < kDoubleLanes; ++lane) {
      if (close[lane]) return -1.0;
      sum += mass[lane];
    }
    return sum;
  }

  int padded_ = 0;  // the vocabulary's size, rounded up to stretches
  double total_ = 0.0;
  double sums_[kBins];
  std::vector<double> weights_;
  std::vector<std::uint16_t> bins_;
  std::vector<std::int32_t> found_;
};
