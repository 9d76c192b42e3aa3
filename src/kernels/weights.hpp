// Weights in bf16 or int8, behind one face. Included per variant, after matrix_int8.hpp.

// The input rows of a matrix, in the form that its weights are multiplied with.
class Inputs {
 public:
  void reserve(bool int8, int rows, int inputs) {
    int8_ = int8;
    inputs_ = inputs;
    values_.reserve(static_cast<std::size_t>(rows) * inputs);
    if (int8) quantised_.reserve(rows, inputs);
  }

  // To be written, and then finished.
  Activation* row(int row) { return values_.get() + static_cast<std::size_t>(row) * inputs_; }
  void finish(int row) {
    if (int8_) quantised_.quantise(row, values_.get() + static_cast<std::size_t>(row) * inputs_);
  }

  const Activation* values() const { return values_.get(); }
  const QuantisedRows& quantised() const { return quantised_; }

 private:
  bool int8_ = false;
  int inputs_ = 0;
  Aligned<Activation> values_;
  QuantisedRows quantised_;
};

class Matrix {
 public:
  void reset(bool int8, int outputs, int inputs, int tile_outputs) {
    int8_ = int8;
    if (int8)
      quantised_.reset(outputs, inputs, tile_outputs);
    else
      packed_.reset(outputs, inputs, tile_outputs);
  }
  void pack(const float* w, int rows, int inputs, int first) {
    int8_ ? quantised_.pack(w, rows, inputs, first) : packed_.pack(w, rows, inputs, first);
  }
  void unpack(int output, float* to, int inputs) const {
    int8_ ? quantised_.unpack(output, to, inputs) : packed_.unpack(output, to, inputs);
  }

  int tiles() const { return int8_ ? quantised_.tiles() : packed_.tiles(); }
  int tile_outputs() const { return int8_ ? quantised_.tile_outputs() : packed_.tile_outputs(); }

  // To be fetched ahead.
  const void* tile(int index) const {
    return int8_ ? static_cast<const void*>(quantised_.tile(index)) : static_cast<const void*>(packed_.tile(index));
  }

  // Calls done(row, out) for every row of [first, last) with the tile's outputs, row by row; `ahead` is the tile to
  // be read next, of this matrix or another, or null.
  template <class Done>
  void rows(int index, const Inputs& a, int first, int last, const void* ahead, const Done& done) const {
    if (int8_)
      quantised_.rows(index, a.quantised(), first, last, static_cast<const std::uint8_t*>(ahead), done);
    else
      packed_.rows(index, a.values(), first, last, static_cast<const std::uint16_t*>(ahead), done);
  }

 private:
  bool int8_ = false;
  PackedMatrix packed_;
  Int8Matrix quantised_;
};
