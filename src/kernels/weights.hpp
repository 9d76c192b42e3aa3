// Weights in bf16, int8 or int4, behind one interface. Included per variant, after matrix_restored.hpp.

// The input rows of a matrix, in the form that its weights are multiplied with.
class Inputs {
 public:
  void reserve(bool quantised, int rows, int inputs) {
    is_quantised_ = quantised;
    inputs_ = inputs;
    values_.reserve(static_cast<std::size_t>(rows) * inputs);
    if (quantised) quantised_.reserve(rows, inputs);
  }

  // The memory of a row: write it, then call `finish`, which quantises it where weights are quantised.
  Activation* row(int row) { return values_.get() + static_cast<std::size_t>(row) * inputs_; }
  void finish(int row) {
    if (is_quantised_) quantised_.quantise(row, values_.get() + static_cast<std::size_t>(row) * inputs_);
  }

  const Activation* values() const { return values_.get(); }
  const QuantisedRows<Int8::kGroup>& quantised() const { return quantised_; }

 private:
  bool is_quantised_ = false;
  int inputs_ = 0;
  Aligned<Activation> values_;
  QuantisedRows<Int8::kGroup> quantised_;
};

enum class Form { kBf16, kInt8, kInt4 };

class Matrix {
 public:
  // With `restored` (bf16 only), steps of few rows multiply with weights restored from 4-bit blocks.
  void reset(Form form, bool restored, int outputs, int inputs, int tile_outputs) {
    form_ = form;
    if (restored) restored_.reset(outputs, inputs, tile_outputs);
    switch (form) {
      case Form::kBf16: return bf16_.reset(outputs, inputs, tile_outputs);
      case Form::kInt8: return int8_.reset(outputs, inputs, tile_outputs);
      case Form::kInt4: return int4_.reset(outputs, inputs, tile_outputs);
    }
  }

  // Packs `rows` rows of the source from its row `from` on, as the outputs from `first` on.
  void pack(const MatrixSource& w, int from, int rows, int inputs, int first) {
    const std::size_t row = from;
    switch (form_) {
      case Form::kBf16:
        if (restored_.present()) restored_.pack(blocks_of(w, row, inputs), rows, first);
        return bf16_.pack(w.floats + row * inputs, rows, inputs, first);
      case Form::kInt8: return int8_.pack(w.floats + row * inputs, rows, inputs, first);
      case Form::kInt4: return int4_.pack(blocks_of(w, row, inputs), rows, inputs, first);
    }
  }

  // Row `output` of W, as floats; for bf16 and int8 only.
  void unpack(int output, float* to, int inputs) const {
    form_ == Form::kInt8 ? int8_.unpack(output, to, inputs) : bf16_.unpack(output, to, inputs);
  }

  // The matrix itself; for bf16 only.
  const PackedMatrix& bf16() const { return bf16_; }

  int tiles() const {
    return form_ == Form::kBf16 ? bf16_.tiles() : form_ == Form::kInt8 ? int8_.tiles() : int4_.tiles();
  }
  int tile_outputs() const {
    return form_ == Form::kBf16   ? bf16_.tile_outputs()
           : form_ == Form::kInt8 ? int8_.tile_outputs()
                                  : int4_.tile_outputs();
  }

  // The part of a tile that a step of `rows` rows reads first, to be prefetched.
  const void* tile(int index, int rows) const {
    switch (form_) {
      case Form::kBf16: return restores(rows) ? static_cast<const void*>(restored_.tile(index)) : bf16_.tile(index);
      case Form::kInt8: return int8_.tile(index);
      default: return int4_.tile(index);
    }
  }

  // Calls done(row, out) for every row of [first, last) with the tile's outputs, row by row. A step's rows come in pieces
  // of kRowsAUnit, so a piece that begins at row 0 and has few rows is all of them.
  template <class Done>
  void rows(int index, const Inputs& a, int first, int last, const Ahead& ahead, const Done& done) const {
    switch (form_) {
      case Form::kBf16:
        if (first == 0 && restores(last)) return restored_.rows(index, a.values(), last, ahead, done);
        return bf16_.rows(index, a.values(), first, last, ahead, done);
      case Form::kInt8: return int8_.rows(index, a.quantised(), first, last, ahead, done);
      case Form::kInt4: return int4_.rows(index, a.quantised(), first, last, ahead, done);
    }
  }

 private:
  static const std::uint8_t* blocks_of(const MatrixSource& w, std::size_t row, int inputs) {
    return w.blocks + row * (inputs / Int4::kInputs) * Int4::kBlockBytes;
  }

  bool restores(int rows) const { return restored_.present() && rows <= RestoredMatrix::kMostRows; }

  Form form_ = Form::kBf16;
  PackedMatrix bf16_;
  RestoredMatrix restored_;
  QuantisedMatrix<Int8> int8_;
  QuantisedMatrix<Int4> int4_;
};
