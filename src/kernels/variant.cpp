// One instruction-set variant of the decoder. Built several times, with PARROT_VARIANT naming the variant and the
// compiler told which instructions it may use.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__AVX512F__)
// GCC 12 warns of undefined vectors in its own header.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
#if defined(__AVX512BF16__)
#define PARROT_HAS_BF16 1
#endif
#if defined(__AVX512VNNI__)
#define PARROT_HAS_VNNI 1
#endif
#if defined(__AMX_BF16__)
#define PARROT_HAS_AMX 1
#endif

#include "decoder.hpp"
#include "thread_pool.hpp"

namespace parrot {
namespace PARROT_VARIANT {
namespace {

// From the bottom up: each file uses those before it.

#include "simd.hpp"              // vectors of sixteen floats

#include "memory.hpp"            // memory for weights, KV and the buffers of a step

#include "register_tile.hpp"     // products of few rows with panels of columns

#include "amx_tile.hpp"          // the same by AMX

#include "matrix.hpp"            // matrices in bf16

#include "quantised_rows.hpp"    // input rows in int8

#include "amx_quantised.hpp"     // products of these with panels by AMX

#include "matrix_quantised.hpp"  // matrices in int8 and int4

#include "matrix_restored.hpp"   // bf16 restored from a file's 4-bit blocks, for few rows

#include "weights.hpp"           // a matrix in any of these forms

#include "kv_pages.hpp"          // pages of keys and values

#include "softmax.hpp"           // softmax over a block of keys

#include "attention.hpp"         // attention over paged KV

#include "logits.hpp"            // a step's logits, as sampling needs them

#include "draws.hpp"             // tokens drawn from them

#include "phases.hpp"            // how threads share a step

#include "screen.hpp"            // likeliest tokens without most of the logits

#include "decoder_impl.hpp"      // the step, made of all these

// CPU time of this thread in seconds: what other threads do on its core must not change which variant is chosen.
double thread_seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
#else
  const std::chrono::duration<double> now = std::chrono::steady_clock::now().time_since_epoch();
  return now.count();
#endif
}

// Seconds per floating-point operation of a full tile over operands that stay in the caches.
double tile_seconds(int rounds) {
  constexpr int kPairs = 64, kRows = rows_of_group(kPageGroup);
  Aligned<Activation> a;
  Aligned<std::uint16_t> b;
  Aligned<float> out;
  a.reset(kRows * kPairs * 2), b.reset(kPairs * kPageGroup * kPanel), out.reset(kRows * kPageGroup * kLanes);
  const std::uint16_t* panels = b.get();
  const double start = thread_seconds();
  const TileUse use;
  for (int round = 0; round < rounds; ++round)
    micro_group<kPageGroup>(kRows, {a.get(), kPairs * 2}, kPairs,
                            panels_at(kPageGroup * kPanel,
                                      [=](int p, int k) { return panels + (k * kPageGroup + p) * kPanel; }),
                            {out.get(), kPageGroup * kLanes}, fetcher(false, [](int) {}));
  return (thread_seconds() - start) / (4.0 * rounds * kRows * kPageGroup * kLanes * kPairs);
}

}  // namespace

double measure() {
  tile_seconds(200);  // leave the low-power state of the wide units
  double best = tile_seconds(200);
  for (int attempt = 0; attempt < 12; ++attempt) best = std::min(best, tile_seconds(200));
  return 1e-9 / best;
}

std::unique_ptr<Decoder> make(const DecoderConfig& config) { return std::make_unique<VariantDecoder>(config); }

}  // namespace PARROT_VARIANT
}  // namespace parrot
