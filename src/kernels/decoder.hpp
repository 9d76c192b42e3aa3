// A Llama-family decoder over paged KV: what the Python module sees of it, whatever the instruction set.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace parrot {

struct DecoderConfig {
  int layers = 0;
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int intermediate = 0;
  int vocabulary = 0;
  float rms_eps = 0;
  float rope_magnitude = 1;
  int pages = 0;
  int threads = 1;
  bool quantised = false;  // keep matrices in int4 where their source has blocks, else in int8, instead of in bf16
};

// A matrix [out, in], row-major: its weights in float32 and, where the file has them, its 4-bit blocks (GGUF's Q4_1),
// else null. int4 matrices are packed from the blocks, bf16 ones from both: steps of few rows read the blocks, which
// are smaller.
struct MatrixSource {
  const float* floats;
  const std::uint8_t* blocks;
};

// The weights of one layer, read only while packing. Vectors are float32, and null where the model family has none.
// Either all of q, k and v have blocks or none has; likewise gate and up.
struct LayerSource {
  const float* attn_norm;
  MatrixSource q, k, v, o;
  const float *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *mlp_norm;
  MatrixSource gate, up, down;
};

// `StepBatch` of parrotserve/engines/native/backend.py, as pointers.
struct Batch {
  int rows = 0;
  const std::int32_t* tokens = nullptr;
  const std::int32_t* positions = nullptr;
  const std::int32_t* slots = nullptr;
  int spans = 0;
  const std::int32_t* span_rows = nullptr;
  const std::int32_t* span_keys = nullptr;
  const bool* span_causal = nullptr;
  const std::int32_t* page_starts = nullptr;
  const std::int32_t* pages = nullptr;
  int outputs = 0;
  const std::int32_t* logit_rows = nullptr;
  const double* scales = nullptr;
  const bool* likeliest_only = nullptr;  // [outputs]
};

// What a step writes for its outputs. `rows` is filled only for outputs that are not `likeliest_only`.
struct StepLogits {
  float* rows = nullptr;               // [outputs, vocabulary]
  std::int32_t* likeliest = nullptr;   // [outputs]: the id of the highest logit, the lowest id among equals
  float* highest = nullptr;            // [outputs]: the highest logit; NaN where any logit is NaN or infinite
};

// A request for the `width` highest logits of some outputs of the last step, highest first and lower ids first among
// equals. No output is listed twice, here and in DrawSearch.
struct CandidateSearch {
  int count = 0, width = 0;
  const std::int32_t* outputs = nullptr;  // [count]
  const double* scales = nullptr;         // [count]
  std::int32_t* ids = nullptr;            // [count, width]
  float* values = nullptr;                // [count, width]
  double* masses = nullptr;               // [count]: sum of exp((logit - highest) * scale) over the vocabulary
};

// A request to draw the next tokens of some outputs of the last step from their logits. All arrays are [count].
struct DrawSearch {
  int count = 0;
  const std::int32_t* outputs = nullptr;
  const double* scales = nullptr;   // one over the temperature
  const std::int32_t* top_k = nullptr;  // 0: no filter
  const double* top_p = nullptr;    // 1: no filter
  const double* min_p = nullptr;    // 0: no filter
  const std::uint64_t* starts = nullptr;    // start states of the random number generators
  const std::int32_t* positions = nullptr;  // position of each token in its output
  std::int32_t* tokens = nullptr;   // the result; -1 where rounding might decide it
};

class Decoder {
 public:
  // Tokens per page: as many values as the widest instruction sums at once.
  static constexpr int kPageTokens = 32;
  // Softmax partials are taken over absolute blocks of this many keys and merged in their order, so a row's
  // result does not depend on how its keys were cut into spans. Spans begin at multiples of it.
  static constexpr int kBlockTokens = 256;

  virtual ~Decoder() = default;
  virtual void load_embedding(const float* embedding, const float* head_or_null, const float* final_norm,
                              const float* rope_frequencies) = 0;
  virtual void load_layer(int index, const LayerSource& source) = 0;
  // For tests: fills every page with NaN, so that reads of KV that was never written show.
  virtual void spoil_pages() = 0;
  // For measurements: copies the KV of page from[i] to page to[i], one after the other.
  virtual void copy_pages(const std::int32_t* from, const std::int32_t* to, int count) = 0;
  // Runs all rows through the model. In each layer, the KV of all rows is written before attention reads it.
  virtual void step(const Batch& batch, const StepLogits& logits) = 0;
  // Searches the logits (`StepLogits::rows`) of the last step, which must still be in memory, as `draw` does.
  virtual void find_candidates(const CandidateSearch& search) = 0;
  virtual void draw(const DrawSearch& search) = 0;
};

// The variants that this build holds and this CPU runs, newest first.
std::vector<std::string> decoder_variants();

// The speed of the variant's register tile on one core, in GFLOP/s; takes a few milliseconds. The newest instructions
// are not the fastest on every CPU that has them, so the choice is measured.
double measure_variant(const std::string& variant);

// Throws std::invalid_argument for a variant that is not among `decoder_variants`, as `measure_variant` does.
std::unique_ptr<Decoder> make_decoder(const std::string& variant, const DecoderConfig& config);

}  // namespace parrot
