// The decoder's step. Included per variant, after attention.hpp.
//
// One parallel region runs all layers; between phases there is a barrier, inside a phase each thread takes units of its
// own range, then of others'. Every sum over inputs runs in one fixed order, whatever the batch and the number of
// threads, so a row's result does not depend on what it is batched with.

class VariantDecoder final : public Decoder {
 public:
  explicit VariantDecoder(const DecoderConfig& config)
      : c_(config),
        geometry_{config.heads, config.kv_heads, config.head_dim, (config.head_dim + 63) / 64 * 64},
        layers_(config.layers),
        attention_(geometry_),
        pool_(config.threads),
        phases_(pool_, kPhasesALayer * config.layers + 16) {
    if (c_.hidden % kLanes || c_.intermediate % 2 || c_.head_dim % 2 || c_.head_dim > 256)
      throw std::invalid_argument("hidden must be a multiple of 16, head_dim even and at most 256");
    if (c_.heads % c_.kv_heads || geometry_.group() > kMostGroup)
      throw std::invalid_argument("heads must be a multiple of kv_heads, by at most 24");
    for (auto& layer : layers_) layer.kv.reset(geometry_.page_of(c_.pages, 0));
  }

  void load_embedding(const float* embedding, const float* head, const float* final_norm,
                      const float* rope_frequencies) override {
    pack(head_, {head ? head : embedding, nullptr}, c_.vocabulary, c_.hidden);
    if (head) pack(embedding_, {embedding, nullptr}, c_.vocabulary, c_.hidden);
    tied_ = head == nullptr;
    if (screens()) screen_.reset(head_.bf16(), c_.hidden);
    final_norm_.assign(final_norm, final_norm + c_.hidden);
    rope_frequencies_.assign(rope_frequencies, rope_frequencies + c_.head_dim / 2);
  }

  void load_layer(int index, const LayerSource& s) override {
    Layer& layer = layers_[index];
    const int q_size = c_.heads * c_.head_dim;
    // One tile per head, so that the thread that computes it can also rotate and store it.
    const int columns = geometry_.head_columns, all = c_.heads + 2 * c_.kv_heads;
    layer.qkv.reset(form(s.q), restored(s.q), all * columns, c_.hidden, columns);
    for (int h = 0; h < all; ++h) {
      const bool query = h < c_.heads, key = !query && h < c_.heads + c_.kv_heads;
      const int first = query ? h : key ? h - c_.heads : h - c_.heads - c_.kv_heads;
      layer.qkv.pack(query ? s.q : key ? s.k : s.v, first * c_.head_dim, c_.head_dim, c_.hidden, h * columns);
    }
    if (s.q_bias) {
      layer.qkv_bias.assign(all * columns, 0.0f);
      for (int h = 0; h < all; ++h) {
        const float* source = h < c_.heads ? s.q_bias + h * c_.head_dim
                              : h < c_.heads + c_.kv_heads ? s.k_bias + (h - c_.heads) * c_.head_dim
                                                           : s.v_bias + (h - c_.heads - c_.kv_heads) * c_.head_dim;
        std::copy(source, source + c_.head_dim, layer.qkv_bias.begin() + h * columns);
      }
    }
    if (s.q_norm) {
      layer.q_norm.assign(s.q_norm, s.q_norm + c_.head_dim), layer.q_norm.resize(columns);
      layer.k_norm.assign(s.k_norm, s.k_norm + c_.head_dim), layer.k_norm.resize(columns);
    }
    layer.attn_norm.assign(s.attn_norm, s.attn_norm + c_.hidden);
    layer.mlp_norm.assign(s.mlp_norm, s.mlp_norm + c_.hidden);
    pack(layer.o, s.o, c_.hidden, q_size);
    pack(layer.down, s.down, c_.hidden, c_.intermediate);
    // Panels of gate and up alternate, so that a tile has both for the same columns.
    const int panels = (c_.intermediate + kLanes - 1) / kLanes;
    layer.gate_up.reset(form(s.gate), restored(s.gate), 2 * panels * kLanes, c_.hidden,
                        2 * tile_outputs_for(c_.intermediate));
    for (int p = 0; p < panels; ++p) {
      const int first = p * kLanes, count = std::min(kLanes, c_.intermediate - first);
      layer.gate_up.pack(s.gate, first, count, c_.hidden, 2 * first);
      layer.gate_up.pack(s.up, first, count, c_.hidden, 2 * first + kLanes);
    }
  }

  void spoil_pages() override {
    constexpr std::uint16_t kNotANumber = 0x7fc0;
    for (Layer& layer : layers_) layer.kv.fill(kNotANumber);
  }

  void copy_pages(const std::int32_t* from, const std::int32_t* to, int count) override {
    const std::size_t size = geometry_.page_of(1, 0);
    for (Layer& layer : layers_)
      for (int i = 0; i < count; ++i)
        std::copy_n(layer.kv.get() + from[i] * size, size, layer.kv.get() + to[i] * size);
  }

  void step(const Batch& batch, const StepLogits& logits) override {
    prepare(batch, logits);
    const std::function<void(int)> task = [this](int thread) { run(thread); };
    pool_.run(task);
  }

  void find_candidates(const CandidateSearch& search) override {
    each_output(search.count, [&](int i, RowDraw& draw) {
      const std::size_t at = static_cast<std::size_t>(i) * search.width;
      logit_rows_.candidates(search.outputs[i], search.width, search.ids + at, search.values + at, draw.pool);
      search.masses[i] = draw.mass(logit_rows_, search.outputs[i], search.scales[i]);
    });
  }

  void draw(const DrawSearch& search) override {
    each_output(search.count, [&](int i, RowDraw& draw) {
      search.tokens[i] =
          draw.token(logit_rows_, search.outputs[i],
                     {search.scales[i], search.top_k[i], search.top_p[i], search.min_p[i],
                      uniform(search.starts[i], search.positions[i])});
    });
  }

 private:
  using Place = Phases::Place;

  struct Layer {
    Matrix qkv, o, gate_up, down;
    std::vector<float> qkv_bias, q_norm, k_norm, attn_norm, mlp_norm;
    Aligned<std::uint16_t> kv;
  };

  Form form(const MatrixSource& w) const {
    return !c_.quantised ? Form::kBf16 : w.blocks ? Form::kInt4 : Form::kInt8;
  }

  bool restored(const MatrixSource& w) const { return !c_.quantised && w.blocks; }

  void pack(Matrix& matrix, const MatrixSource& w, int outputs, int inputs) {
    matrix.reset(form(w), restored(w), outputs, inputs, tile_outputs_for(outputs));
    matrix.pack(w, 0, outputs, inputs, 0);
  }

  void prepare(const Batch& batch, const StepLogits& logits) {
    batch_ = batch;
    logits_ = logits;
    logit_rows_.begin(logits.rows, batch.outputs, c_.vocabulary, head_.tile_outputs(), batch.scales);
    const std::size_t rows = batch.rows;
    const int q_size = c_.heads * c_.head_dim;
    x_.reserve(rows * c_.hidden);
    normed_.reserve(c_.quantised, batch.rows, c_.hidden);
    queries_.reserve(rows * q_size);
    mixed_.reserve(c_.quantised, batch.rows, q_size);
    gated_.reserve(c_.quantised, batch.rows, c_.intermediate);
    rotation_.reserve(rows * c_.head_dim);
    plan_last_layer();
    plan_head();
    attention_.plan(batch, pool_.size(), wanted_);
    phases_.begin();
  }

  // Calls work(i, draw) for every i below `count`, on all threads, with the thread's own RowDraw.
  template <class Work>
  void each_output(int count, const Work& work) {
    std::atomic<int> next{0};
    row_draws_.resize(pool_.size());
    const std::function<void(int)> task = [&](int thread) {
      for (int i; (i = next.fetch_add(1)) < count;) work(i, row_draws_[thread]);
    };
    pool_.run(task);
  }

  // The last layer is computed for the rows of outputs only; for all others it just writes KV.
  void plan_last_layer() {
    wanted_.assign(batch_.rows, false);
    for (int i = 0; i < batch_.outputs; ++i) wanted_[batch_.logit_rows[i]] = true;
    wanted_rows_.clear();
    wanted_place_.assign(batch_.rows, -1);
    for (int row = 0; row < batch_.rows; ++row) {
      if (!wanted_[row]) continue;
      wanted_place_[row] = static_cast<int>(wanted_rows_.size());
      wanted_rows_.push_back(row);
    }
  }

  bool screens() const { return Screen::kPays && !c_.quantised; }

  // Orders the outputs: first the `whole_` outputs whose logits are all computed, then those that are screened for
  // their likeliest token.
  void plan_head() {
    const auto likeliest = std::count(batch_.likeliest_only, batch_.likeliest_only + batch_.outputs, true);
    const bool screened = screens() && likeliest <= Screen::kMostRows;
    const auto whole = [&](int output) { return !screened || !batch_.likeliest_only[output]; };
    outputs_.resize(batch_.outputs);
    std::iota(outputs_.begin(), outputs_.end(), 0);
    whole_ = static_cast<int>(std::stable_partition(outputs_.begin(), outputs_.end(), whole) - outputs_.begin());
    if (screens()) screen_.begin(batch_.outputs - whole_, pool_.size());
  }

  // The rows for which a layer computes more than KV: all, or `some`. Row `i` of the buffers between its matrices
  // belongs to row `at(i)` of the batch.
  struct Rows {
    int count;
    const int* some;
    int at(int i) const { return some ? some[i] : i; }
  };

  // --- one parallel region -----------------------------------------------------------------------------------

  void run(int thread) {
    const TileUse use;
    Place at{thread};
    phases_.each(at, batch_.rows, [&](int row, int) { embed(row); });
    for (Layer& layer : layers_) {
      const bool last = &layer == &layers_.back();
      const Rows rows{last ? static_cast<int>(wanted_rows_.size()) : batch_.rows, last ? wanted_rows_.data() : nullptr};
      attention_.clear(thread, pool_.size());
      phases_.each(at, batch_.rows, [&](int row, int) { norm(x(row), layer.attn_norm.data(), row); });
      qkv(at, layer, last, first_tile(layer.o, thread));
      attend(at, layer, last, rows);
      add(at, layer.o, mixed_, rows, first_tile(layer.gate_up, thread));
      phases_.each(at, rows.count, [&](int i, int) { norm(x(rows.at(i)), layer.mlp_norm.data(), i); });
      gate_up(at, layer.gate_up, rows.count, first_tile(layer.down, thread));
      if (c_.quantised) phases_.each(at, rows.count, [&](int i, int) { gated_.finish(i); });
      const void* following = !last                      ? first_tile((&layer + 1)->qkv, thread)
                              : whole_ || !batch_.outputs ? first_tile(head_, thread)
                                                          : first_tile(screen_, thread);
      add(at, layer.down, gated_, rows, following);
    }
    head(at);
  }

  void head(Place& at) {
    const int screened = batch_.outputs - whole_;
    phases_.each(at, batch_.outputs, [&](int i, int) {
      norm(x(batch_.logit_rows[outputs_[i]]), final_norm_.data(), i);
      if (i >= whole_) screen_.take(i - whole_, normed_.row(i));
    });
    if (whole_) {
      multiply(phases_, at, head_, normed_, whole_, screened ? first_tile(screen_, at.thread) : nullptr,
               [&](int row, int tile, const float* out) { logit_rows_.keep(outputs_[row], tile, out); });
    }
    if (screened) screen_.run(phases_, at, normed_.row(whole_));
    phases_.each(at, batch_.outputs, [&](int i, int) {
      const int output = outputs_[i];
      if (i < whole_) return logit_rows_.likeliest(output, logits_.likeliest[output], logits_.highest[output]);
      screen_.likeliest(i - whole_, logits_.likeliest[output], logits_.highest[output]);
    });
  }

  void attend(Place& at, const Layer& layer, bool last, const Rows& rows) {
    const auto out = [&](int row) {
      const int i = last ? wanted_place_[row] : row;
      return i < 0 ? nullptr : mixed_.row(i);
    };
    int previous = -1;
    phases_.each(at, attention_.starts(last), [&](int unit, int next) {
      attention_.run(unit, std::exchange(previous, unit), next, last, queries_.get(), layer.kv.get(), out);
    });
    phases_.each(at, rows.count, [&](int i, int) {
      if (attention_.merged(rows.at(i))) attention_.merge(rows.at(i), mixed_.row(i));
      mixed_.finish(i);
    });
  }

  // The tile of a matrix that a thread is likely to read first.
  template <class M>
  const void* first_tile(const M& matrix, int thread) const {
    return matrix.tile(matrix.tiles() * thread / pool_.size(), batch_.rows);
  }

  void qkv(Place& at, const Layer& layer, bool last, const void* following) {
    const auto unwanted = [&](int head, int first) {
      const auto end = std::min<std::size_t>(first + kRowsAUnit, wanted_.size());
      return last && head < c_.heads && std::find(&wanted_[first], &wanted_[0] + end, true) == &wanted_[0] + end;
    };
    multiply(phases_, at, layer.qkv, normed_, batch_.rows, following,
             [&](int row, int head, float* out) { place(layer, row, head, out); }, unwanted);
  }

  void add(Place& at, const Matrix& matrix, const Inputs& a, const Rows& rows, const void* following) {
    const int columns = matrix.tile_outputs();
    multiply(phases_, at, matrix, a, rows.count, following, [&](int row, int tile, const float* out) {
      float* to = x(rows.at(row)) + tile * columns;
      const int count = std::min(columns, c_.hidden - tile * columns);
      for (int i = 0; i < count; i += kLanes) {
        prefetch_l2(to + kRowsAPass * c_.hidden + i);
        store(to + i, load(to + i) + load(out + i));
      }
    });
  }

  void gate_up(Place& at, const Matrix& matrix, int rows, const void* following) {
    const int columns = matrix.tile_outputs() / 2;
    multiply(phases_, at, matrix, normed_, rows, following,
             [&](int row, int tile, const float* out) { gate(out, tile * columns, columns, row); });
  }

  // Writes silu(gate) * up as the next matrix's input; panels of gate and up alternate in `from`.
  void gate(const float* from, int column, int columns, int row) {
    Activation* to = gated_.row(row) + column;
    const int count = std::min(columns, c_.intermediate - column);
    alignas(64) Activation out[PackedMatrix::kMostTileOutputs / 2];
    Activation* whole = count == columns ? to : out;
    for (int i = 0; i < columns; i += 2 * kLanes) prefetch_to_write(to + kRowsAPass * c_.intermediate + i);
    for (int i = 0; i < columns; i += kLanes)
      store_activations(whole + i, silu(load(from + 2 * i)) * load(from + 2 * i + kLanes));
    if (whole == out) copy_few(to, out, count);
  }

  void embed(int row) {
    (tied_ ? head_ : embedding_).unpack(batch_.tokens[row], x(row), c_.hidden);
    float* rotation = rotation_.get() + static_cast<std::size_t>(row) * c_.head_dim;
    const int half = c_.head_dim / 2;
    for (int i = 0; i < half; ++i) {
      const float angle = static_cast<float>(batch_.positions[row]) * rope_frequencies_[i];
      rotation[i] = std::cos(angle) * c_.rope_magnitude;
      rotation[half + i] = std::sin(angle) * c_.rope_magnitude;
    }
  }

  // RMS norm, into row `row` of the next matrix's input.
  void norm(const float* from, const float* weight, int row) {
    Activation* to = normed_.row(row);
    F32x16 squares{};
    for (int i = 0; i < c_.hidden; i += kLanes) squares += load(from + i) * load(from + i);
    const float scale = 1.0f / std::sqrt(sum_lanes(squares) / static_cast<float>(c_.hidden) + c_.rms_eps);
    for (int i = 0; i < c_.hidden; i += kLanes) store_activations(to + i, load(from + i) * scale * load(weight + i));
    normed_.finish(row);
  }

  // Takes one head of one row after its projection: adds the bias, normalises and rotates, then stores it as a query or
  // in the KV cache. The columns beyond head_dim are zero.
  void place(const Layer& layer, int row, int head, float* out) {
    const int columns = geometry_.head_columns;
    alignas(64) std::uint16_t half[kMostColumns];
    if (!layer.qkv_bias.empty())
      for (int d = 0; d < columns; d += kLanes)
        store(out + d, load(out + d) + load(&layer.qkv_bias[head * columns + d]));
    const bool is_query = head < c_.heads, is_key = !is_query && head < c_.heads + c_.kv_heads;
    if (is_query || is_key) {
      if (!layer.q_norm.empty()) head_norm(out, is_query ? layer.q_norm.data() : layer.k_norm.data());
      rotate(out, rotation_.get() + static_cast<std::size_t>(row) * c_.head_dim);
    }
    if (is_query) {
      alignas(64) Activation query[kMostColumns];
      const float scale = kLog2E / std::sqrt(static_cast<float>(c_.head_dim));
      for (int d = 0; d < columns; d += kLanes) store_activations(query + d, load(out + d) * scale);
      copy_few(queries_.get() + (static_cast<std::size_t>(row) * c_.heads + head) * c_.head_dim, query, c_.head_dim);
      return;
    }
    for (int d = 0; d < columns; d += kLanes) store_bf16(half + d, load(out + d));
    const int slot = batch_.slots[row], later = batch_.slots[std::min(row + kRowsAPass, batch_.rows - 1)];
    const int kv_head = head - c_.heads - (is_key ? 0 : c_.kv_heads);
    if (is_key)
      write_key(geometry_, layer.kv.get(), slot, later, kv_head, half);
    else
      write_value(geometry_, layer.kv.get(), slot, later, kv_head, half,
                  row + 1 == batch_.rows || batch_.slots[row + 1] != slot + 1);
  }

  void head_norm(float* head, const float* weight) const {
    F32x16 squares{};
    for (int d = 0; d < geometry_.head_columns; d += kLanes) squares += load(head + d) * load(head + d);
    const float scale = 1.0f / std::sqrt(sum_lanes(squares) / static_cast<float>(c_.head_dim) + c_.rms_eps);
    for (int d = 0; d < geometry_.head_columns; d += kLanes) store(head + d, load(head + d) * scale * load(weight + d));
  }

  // Pair i of a head is its elements i and i + head_dim / 2.
  void rotate(float* head, const float* rotation) const {
    const int half = c_.head_dim / 2;
    int i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const F32x16 low = load(head + i), high = load(head + half + i);
      const F32x16 cosine = load(rotation + i), sine = load(rotation + half + i);
      store(head + i, low * cosine - high * sine);
      store(head + half + i, high * cosine + low * sine);
    }
    for (; i < half; ++i) {
      const float low = head[i], high = head[half + i], cosine = rotation[i], sine = rotation[half + i];
      head[i] = low * cosine - high * sine;
      head[half + i] = high * cosine + low * sine;
    }
  }

  float* x(int row) { return x_.get() + static_cast<std::size_t>(row) * c_.hidden; }

  static constexpr int kPhasesALayer = 9;
  static constexpr int kMostColumns = 256;
  static constexpr int kRowsAPass = 8;  // roughly; memory that is touched this many rows later is prefetched

  const DecoderConfig c_;
  const Geometry geometry_;
  std::vector<Layer> layers_;
  Matrix head_, embedding_;
  Screen screen_;
  bool tied_ = true;
  std::vector<float> final_norm_, rope_frequencies_;
  Attention attention_;
  ThreadPool pool_;
  Phases phases_;

  // State of the current step.
  Batch batch_;
  StepLogits logits_;
  std::vector<char> wanted_;       // by row: whether the last layer's result is needed
  std::vector<int> wanted_rows_;   // the rows for which it is
  std::vector<int> wanted_place_;  // by row: its place in wanted_rows_, or -1
  std::vector<int> outputs_;       // those that need all their logits, then the others
  int whole_ = 0;                  // number of the former
  LogitRows logit_rows_;
  std::vector<RowDraw> row_draws_;  // by thread
  Aligned<float> x_;                 // [rows][hidden]: the residual stream
  Aligned<Activation> queries_;      // [rows][heads][head_dim]
  Inputs normed_, mixed_, gated_;    // [rows][hidden], [rows][heads * head_dim], [rows][intermediate]
  Aligned<float> rotation_;          // [rows][cosines, sines]
};
