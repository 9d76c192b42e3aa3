// The Python module `parrotserve._kernels`.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>

#include "cpu_features.hpp"
#include "decoder.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace parrot {

#define PARROT_DECLARE(name) \
  namespace name {           \
  std::unique_ptr<Decoder> make(const DecoderConfig& config); \
  double measure(); \
  }
#if defined(PARROT_X86_VARIANTS)
PARROT_DECLARE(amx_bf16)
PARROT_DECLARE(avx512_bf16)
PARROT_DECLARE(avx512)
PARROT_DECLARE(avx2)
#endif
PARROT_DECLARE(portable)

namespace {

struct Variant {
  const char* name;
  std::vector<std::string> needs;
  std::unique_ptr<Decoder> (*make)(const DecoderConfig&);
  double (*measure)();
};

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = {
#if defined(PARROT_X86_VARIANTS)
      {"amx_bf16",
       {"amx_tile", "amx_bf16", "amx_int8", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "avx512vbmi",
        "avx512_vnni", "fma"},
       amx_bf16::make, amx_bf16::measure},
      {"avx512_bf16", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "avx512_vnni", "fma"}, avx512_bf16::make, avx512_bf16::measure},
      {"avx512", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}, avx512::make, avx512::measure},
      {"avx2", {"avx2", "fma"}, avx2::make, avx2::measure},
#endif
      {"portable", {}, portable::make, portable::measure},
  };
  return all;
}

bool runs_here(const Variant& variant) {
  const auto features = cpu_features();
  return std::all_of(variant.needs.begin(), variant.needs.end(), [&](const std::string& need) {
    return std::find(features.begin(), features.end(), need) != features.end();
  });
}

const Variant& variant_named(const std::string& name) {
  for (const Variant& variant : variants())
    if (name == variant.name && runs_here(variant)) return variant;
  throw std::invalid_argument("no variant '" + name + "' runs here");
}

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const std::int32_t, nb::c_contig, nb::device::cpu>;
using Bools = nb::ndarray<const bool, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const std::uint64_t, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using DoublesOut = nb::ndarray<double, nb::c_contig, nb::device::cpu>;
using IntsOut = nb::ndarray<std::int32_t, nb::c_contig, nb::device::cpu>;

using Blocks = nb::ndarray<const std::uint8_t, nb::c_contig, nb::device::cpu>;

const float* data(const std::optional<Floats>& array) { return array ? array->data() : nullptr; }

MatrixSource source(const Floats& matrix, const std::map<std::string, Blocks>& blocks, const char* name) {
  const auto found = blocks.find(name);
  return {matrix.data(), found == blocks.end() ? nullptr : found->second.data()};
}

void require(bool good, const char* rule) {
  if (!good) throw std::invalid_argument(std::string("step: ") + rule);
}

// Checks everything that indexes memory, so that a mistaken batch raises an exception and never reads or writes
// elsewhere.
void check(const Batch& b, std::size_t table, const DecoderConfig& config) {
  for (int row = 0; row < b.rows; ++row) {
    require(b.tokens[row] >= 0 && b.tokens[row] < config.vocabulary, "a token is not in the vocabulary");
    require(b.positions[row] >= 0, "a position is negative");
    require(b.slots[row] >= 0 && b.slots[row] / Decoder::kPageTokens < config.pages, "a slot is in no page");
  }
  for (std::size_t i = 0; i < table; ++i)
    require(b.pages[i] >= 0 && b.pages[i] < config.pages, "a page does not exist");
  for (int i = 0; i < b.outputs; ++i)
    require(b.logit_rows[i] >= 0 && b.logit_rows[i] < b.rows, "logits of a row that is not there");
  for (int s = 0; s < b.spans; ++s) {
    const int first = b.span_rows[2 * s], last = b.span_rows[2 * s + 1];
    const int start = b.span_keys[2 * s], count = b.span_keys[2 * s + 1];
    require(first >= 0 && first <= last && last <= b.rows, "a span's rows are not there");
    require(start >= 0 && start % Decoder::kBlockTokens == 0 && count > 0, "a span begins within a block, or is empty");
    const std::int32_t from = b.page_starts[s], to = b.page_starts[s + 1];
    require(from >= 0 && from <= to && static_cast<std::size_t>(to) <= table, "a span's pages are not in the table");
    require((count + Decoder::kPageTokens - 1) / Decoder::kPageTokens <= to - from, "a span has more keys than pages");
    for (int row = first; !b.span_causal[s] && row < last; ++row)
      require(start + count <= b.positions[row], "a shared span reaches beyond a row");
  }
}

// Owns a decoder. The shapes of weights are not checked here: whoever loads them from files does (models/weights.py).
class Handle {
 public:
  Handle(const std::string& variant, int layers, int hidden, int heads, int kv_heads, int head_dim, int intermediate,
         int vocabulary, float rms_eps, float rope_magnitude, int pages, int threads, bool quantised) {
    DecoderConfig& config = config_;
    config.layers = layers, config.hidden = hidden, config.heads = heads, config.kv_heads = kv_heads;
    config.head_dim = head_dim, config.intermediate = intermediate, config.vocabulary = vocabulary;
    config.rms_eps = rms_eps, config.rope_magnitude = rope_magnitude;
    config.pages = pages, config.threads = threads, config.quantised = quantised;
    decoder_ = make_decoder(variant, config);
  }

  void load_embedding(Floats embedding, std::optional<Floats> head, Floats final_norm, Floats rope_frequencies) {
    nb::gil_scoped_release release;
    decoder_->load_embedding(embedding.data(), data(head), final_norm.data(), rope_frequencies.data());
  }

  void load_layer(int index, Floats attn_norm, Floats q, Floats k, Floats v, Floats o, std::optional<Floats> q_bias,
                  std::optional<Floats> k_bias, std::optional<Floats> v_bias, std::optional<Floats> q_norm,
                  std::optional<Floats> k_norm, Floats mlp_norm, Floats gate, Floats up, Floats down,
                  const std::map<std::string, Blocks>& blocks) {
    const auto matrix = [&](const Floats& floats, const char* name) { return source(floats, blocks, name); };
    const LayerSource layer{attn_norm.data(), matrix(q, "q"),       matrix(k, "k"),   matrix(v, "v"),
                            matrix(o, "o"),   data(q_bias),         data(k_bias),     data(v_bias),
                            data(q_norm),     data(k_norm),         mlp_norm.data(),  matrix(gate, "gate"),
                            matrix(up, "up"), matrix(down, "down")};
    nb::gil_scoped_release release;
    decoder_->load_layer(index, layer);
  }

  void spoil_pages() { decoder_->spoil_pages(); }

  void copy_pages(Ints from, Ints to) {
    require(from.size() == to.size(), "arrays of different lengths");
    for (std::size_t i = 0; i < from.size(); ++i)
      require(std::min(from.data()[i], to.data()[i]) >= 0 && std::max(from.data()[i], to.data()[i]) < config_.pages,
              "a page does not exist");
    decoder_->copy_pages(from.data(), to.data(), static_cast<int>(from.size()));
  }

  void step(Ints tokens, Ints positions, Ints slots, Ints span_rows, Ints span_keys, Bools span_causal,
            Ints page_starts, Ints pages, Ints logit_rows, Doubles scales, Bools likeliest_only, FloatsOut logits,
            IntsOut likeliest, FloatsOut highest) {
    Batch batch;
    batch.rows = static_cast<int>(tokens.size());
    batch.tokens = tokens.data(), batch.positions = positions.data(), batch.slots = slots.data();
    batch.spans = static_cast<int>(span_causal.size());
    batch.span_rows = span_rows.data(), batch.span_keys = span_keys.data();
    batch.span_causal = span_causal.data();
    batch.page_starts = page_starts.data(), batch.pages = pages.data();
    batch.outputs = static_cast<int>(logit_rows.size()), batch.logit_rows = logit_rows.data();
    batch.scales = scales.data(), batch.likeliest_only = likeliest_only.data();
    require(positions.size() == tokens.size() && slots.size() == tokens.size() &&
                span_rows.size() == 2 * span_causal.size() && span_keys.size() == 2 * span_causal.size() &&
                page_starts.size() == span_causal.size() + 1 &&
                logits.size() >= logit_rows.size() * static_cast<std::size_t>(config_.vocabulary) &&
                likeliest.size() == logit_rows.size() && highest.size() == logit_rows.size() &&
                scales.size() == logit_rows.size() && likeliest_only.size() == logit_rows.size(),
            "arrays of different lengths");
    check(batch, pages.size(), config_);
    const StepLogits out{logits.data(), likeliest.data(), highest.data()};
    nb::gil_scoped_release release;
    decoder_->step(batch, out);
  }

  void candidates(Ints outputs, Doubles scales, IntsOut ids, FloatsOut values, DoublesOut masses) {
    CandidateSearch search;
    search.count = static_cast<int>(outputs.size()), search.width = static_cast<int>(ids.shape(1));
    search.outputs = outputs.data(), search.scales = scales.data();
    search.ids = ids.data(), search.values = values.data(), search.masses = masses.data();
    nb::gil_scoped_release release;
    decoder_->find_candidates(search);
  }

  void draw(Ints outputs, Doubles scales, Ints top_k, Doubles top_p, Doubles min_p, Words starts,
            Ints positions, IntsOut tokens) {
    DrawSearch search;
    search.count = static_cast<int>(outputs.size());
    search.outputs = outputs.data(), search.scales = scales.data(), search.top_k = top_k.data();
    search.top_p = top_p.data(), search.min_p = min_p.data(), search.starts = starts.data();
    search.positions = positions.data(), search.tokens = tokens.data();
    nb::gil_scoped_release release;
    decoder_->draw(search);
  }

 private:
  DecoderConfig config_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace

std::vector<std::string> decoder_variants() {
  std::vector<std::string> names;
  for (const Variant& variant : variants())
    if (runs_here(variant)) names.emplace_back(variant.name);
  return names;
}

std::unique_ptr<Decoder> make_decoder(const std::string& variant, const DecoderConfig& config) {
  return variant_named(variant).make(config);
}

double measure_variant(const std::string& variant) { return variant_named(variant).measure(); }

NB_MODULE(_kernels, m) {
  m.doc() = "Llama-family decoders on the CPU; see parrotserve.engines.native.kernels for what it is given.";
  m.attr("PAGE_TOKENS") = static_cast<int>(Decoder::kPageTokens);
  m.attr("BLOCK_TOKENS") = static_cast<int>(Decoder::kBlockTokens);
  m.def("variants", &decoder_variants, "Instruction-set variants that this build has and this CPU runs, newest first.");
  m.def("measure", &measure_variant, "variant"_a, "GFLOP/s of the variant's register tile on one core.");
  nb::class_<Handle>(m, "Decoder")
      .def(nb::init<const std::string&, int, int, int, int, int, int, int, float, float, int, int, bool>(), "variant"_a,
           nb::kw_only(), "layers"_a, "hidden"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "intermediate"_a,
           "vocabulary"_a, "rms_eps"_a, "rope_magnitude"_a, "pages"_a, "threads"_a, "quantised"_a)
      .def("load_embedding", &Handle::load_embedding, "embedding"_a, "head"_a.none(), "final_norm"_a,
           "rope_frequencies"_a)
      .def("load_layer", &Handle::load_layer, "index"_a, nb::kw_only(), "attn_norm"_a, "q"_a, "k"_a, "v"_a, "o"_a,
           "q_bias"_a.none(), "k_bias"_a.none(), "v_bias"_a.none(), "q_norm"_a.none(), "k_norm"_a.none(),
           "mlp_norm"_a, "gate"_a, "up"_a, "down"_a, "blocks"_a)
      .def("spoil_pages", &Handle::spoil_pages)
      .def("copy_pages", &Handle::copy_pages, "source"_a, "target"_a)
      .def("step", &Handle::step, "tokens"_a, "positions"_a, "slots"_a, "span_rows"_a, "span_keys"_a,
           "span_causal"_a, "page_starts"_a, "pages"_a, "logit_rows"_a, "scales"_a,
           "likeliest_only"_a, "logits"_a, "likeliest"_a, "highest"_a)
      .def("candidates", &Handle::candidates, "outputs"_a, "scales"_a, "ids"_a, "values"_a, "masses"_a)
      .def("draw", &Handle::draw, "outputs"_a, "scales"_a, "top_k"_a, "top_p"_a, "min_p"_a, "starts"_a,
           "positions"_a, "tokens"_a);
}

}  // namespace parrot
