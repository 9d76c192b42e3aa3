// Finds the likeliest token of a row without most of the head's products in bf16 (docs/adr/018). Included per variant,
// after phases.hpp.
//
// The head is kept in int8, too, where a product takes half the bytes and fewer operations. The error of quantisation
// is bounded; with w' and x' for an output's weights and a row after quantisation:
//   |w x - w' x'| <= |w - w'| |x| + |w'| |x - x'|    (Cauchy and Schwarz)
// So each logit is known to lie between two numbers. Only logits that may be the highest are computed in bf16, mostly
// fewer than a hundred of fifty thousand. The answer is bit-identical to that of computing all of them.

class Screen {
 public:
  // With more rows, multiplying all in bf16 is faster: without VNNI always, with AMX from few rows on.
#if defined(PARROT_HAS_AMX)
  static constexpr int kMostRows = 16;
#elif defined(PARROT_HAS_VNNI)
  static constexpr int kMostRows = 1 << 30;
#else
  static constexpr int kMostRows = 0;
#endif
  static constexpr bool kPays = kMostRows > 0;

  // `head` must outlive this.
  void reset(const PackedMatrix& head, int inputs) {
    head_ = &head;
    inputs_ = inputs;
    matrix_.reset(head.outputs(), inputs, head.tile_outputs());
    const int outputs = head.tiles() * head.tile_outputs();  // with padding, whose tokens are never looked at
    errors_.reset(outputs), sizes_.reset(outputs);
    std::vector<float> exact(inputs), rounded(inputs);
    for (int output = 0; output < head.outputs(); ++output) {
      head.unpack(output, exact.data(), inputs);
      matrix_.pack(exact.data(), 1, inputs, output);
      matrix_.unpack(output, rounded.data(), inputs);
      double error = 0, size = 0;
      for (int k = 0; k < inputs; ++k) {
        const double difference = static_cast<double>(exact[k]) - rounded[k];
        error += difference * difference, size += static_cast<double>(rounded[k]) * rounded[k];
      }
      errors_[output] = static_cast<float>(std::sqrt(error)) * kUp;
      sizes_[output] = static_cast<float>(std::sqrt(size)) * kUp;
    }
  }

  const void* tile(int index, int) const { return matrix_.tile(index); }
  int tiles() const { return matrix_.tiles(); }

  // Begins a step in which `rows` rows are screened.
  void begin(int rows, int threads) {
    count_ = rows;
    threads_ = threads;
    stride_ = (rows + kLanes - 1) / kLanes * kLanes;
    rows_.reserve(rows, inputs_);
    found_.assign(static_cast<std::size_t>(threads) * rows, Found{});
    norms_.resize(rows);
    least_.assign(stride_, INFINITY);
    lows_.reserve(static_cast<std::size_t>(threads) * rows * kLanes);
    std::fill_n(lows_.get(), static_cast<std::size_t>(threads) * rows * kLanes, -INFINITY);
    highs_.reserve(static_cast<std::size_t>(matrix_.tiles()) * panels() * stride_);
  }

  void take(int row, const Activation* from) {
    rows_.quantise(row, from);
    const Quantised* values = rows_.values(row);
    TileVector size{}, error{};
    for (int k = 0; k < inputs_; k += kTileLanes) {
      const TileVector x = load_activations(from + k);
      const TileVector off = x - load_quantised(values + k) * rows_.scales(row)[k / FineInt8::kGroup].scale;
      size += x * x, error += off * off;
    }
    // Sums of products in float are off by less than this fraction of the product of norms, in either order.
    const float rounding = static_cast<float>(inputs_ + 64) * 0x1p-23f;
    const float whole = std::sqrt(sum_of(size)) * kUp;
    norms_[row] = {whole * (1 + 2 * rounding), std::sqrt(sum_of(error)) * kUp + 2 * rounding * whole,
                   whole > kLeast && whole < kMost};
  }

  // Runs on all threads; `rows` are those that were taken, in the form that the head is multiplied with.
  void run(Phases& phases, Phases::Place& at, const Activation* rows) {
    multiply(phases, at, matrix_, rows_, count_, nullptr,
             [&](int row, int tile, const float* out) { note(at.thread, row, tile, out); });
    phases.each(at, count_, [&](int row, int) { least_[row] = norms_[row].sound ? highest_low(row) : -INFINITY; });
    phases.each(at, matrix_.tiles(), [&](int tile, int) {
      for (int panel = 0; panel < panels(); ++panel) look(at.thread, tile, panel, rows);
    });
  }

  // After `run`: the highest logit and its token, the lowest id among equals; `highest` is NaN if any logit is not
  // finite.
  void likeliest(int row, std::int32_t& id, float& highest) const {
    Found best;
    for (int thread = 0; thread < threads_; ++thread) best.add(found(thread, row));
    id = best.id, highest = best.value;
  }

 private:
  static constexpr float kUp = 1.00001f;  // makes up for more than the rounding of norms
  // Limits of a row's norm. Beyond them, products may overflow, or lose more to rounding than a fraction of themselves.
  static constexpr float kLeast = 1e-15f, kMost = 1e15f;

  struct Norms {
    float size, error;
    bool sound;  // `size` is within the limits; else all logits are computed in bf16
  };

  struct Found {
    float value = -INFINITY;
    std::int32_t id = 0;

    void add(const Found& other) {
      if (value != value) return;
      if (other.value != other.value || other.value > value || (other.value == value && other.id < id)) *this = other;
    }
  };

  int panels() const { return matrix_.tile_outputs() / kLanes; }
  Found& found(int thread, int row) { return found_[static_cast<std::size_t>(thread) * count_ + row]; }
  const Found& found(int thread, int row) const { return found_[static_cast<std::size_t>(thread) * count_ + row]; }
  float* lows(int thread, int row) {
    return lows_.get() + (static_cast<std::size_t>(thread) * count_ + row) * kLanes;
  }
  float* highs(int tile, int panel) {
    return highs_.get() + (static_cast<std::size_t>(tile) * panels() + panel) * stride_;
  }

  static float sum_of(TileVector v) {
    float sum = 0;
    for (int lane = 0; lane < kTileLanes; ++lane) sum += v[lane];
    return sum;
  }

  // Notes between which numbers the logits of a tile lie.
  void note(int thread, int row, int tile, const float* out) {
    const Norms& norms = norms_[row];
    float* lows = this->lows(thread, row);
    F32x16 best = load(lows);
    for (int panel = 0; panel < panels(); ++panel) {
      const int output = tile * matrix_.tile_outputs() + panel * kLanes;
      const F32x16 value = load(out + panel * kLanes);
      const F32x16 off = load(&errors_[output]) * norms.size + load(&sizes_[output]) * norms.error;
      F32x16 low = value - off, high = value + off;
      if (output + kLanes > head_->outputs()) mask(low, high, head_->outputs() - output);
      best = max(best, low);
      highs(tile, panel)[row] = max_lanes(high);
    }
    store(lows, best);
  }

  static void mask(F32x16& low, F32x16& high, int outputs) {
    alignas(64) float lows[kLanes], highs[kLanes];
    store(lows, low), store(highs, high);
    for (int i = std::max(outputs, 0); i < kLanes; ++i) lows[i] = highs[i] = -INFINITY;
    low = load(lows), high = load(highs);
  }

  float highest_low(int row) {
    F32x16 best = load(lows(0, row));
    for (int thread = 1; thread < threads_; ++thread) best = max(best, load(lows(thread, row)));
    return max_lanes(best);
  }

  // Settles the rows whose highest logit may be in this panel: computes its logits in bf16.
  void look(int thread, int tile, int panel, const Activation* rows) {
    const float* highs = this->highs(tile, panel);
    for (int first = 0; first < count_; first += kTileLanes) {
      TileVector high, least;
      std::memcpy(&high, highs + first, sizeof high), std::memcpy(&least, &least_[first], sizeof least);
      const TileInts below = high < least;
      if (sum_lanes(below) == -kTileLanes) continue;
      for (int row = first; row < std::min(first + kTileLanes, count_); ++row)
        if (!(highs[row] < least_[row])) settle(thread, row, tile, panel, rows);
    }
  }

  void settle(int thread, int row, int tile, int panel, const Activation* rows) {
    alignas(64) float out[kLanes];
    head_->panel(tile, panel, rows + static_cast<std::size_t>(row) * inputs_, out);
    const int first = tile * matrix_.tile_outputs() + panel * kLanes;
    for (int i = 0; i < std::min(kLanes, head_->outputs() - first); ++i)
      found(thread, row).add({std::isfinite(out[i]) ? out[i] : NAN, first + i});
  }

  const PackedMatrix* head_ = nullptr;
  int inputs_ = 0;
  QuantisedMatrix<FineInt8> matrix_;
  Aligned<float> errors_, sizes_;  // [outputs]: upper bounds of |w - w'| and |w'|

  // State of the current step.
  int count_ = 0, threads_ = 0;
  int stride_ = 0;  // rows, rounded up to vectors
  QuantisedMatrix<FineInt8>::Rows rows_;
  std::vector<Norms> norms_;
  std::vector<float> least_;  // [rows]: lower bound of the highest logit
  Aligned<float> lows_;       // [threads][rows][lanes]: the highest lower bounds that a thread has seen
  Aligned<float> highs_;      // [tiles][panels][stride]: the highest upper bounds
  std::vector<Found> found_;  // [threads][rows]
};
