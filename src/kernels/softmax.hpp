// Softmax of a tile of queries over one block of keys. Included per variant, after kv_pages.hpp.
//
// Scores are stored panel by panel, [panels][queries][16 keys], as the tiles write them. Weights are stored as the
// tiles read them: query by query or, with AMX, in place of the scores, those of a page's two panels where the scores
// of the first were. Sixteen queries are processed together, so that each query's results stay in a lane and none waits
// for another's sums.

constexpr int kBlock = Decoder::kBlockTokens;
constexpr int kBlockPages = kBlock / kPage;
constexpr int kMostGroup = 24;  // query heads per KV head, at most
#if defined(PARROT_HAS_AMX)
constexpr int kTileQueries = 2 * kTileRows;
constexpr bool kWeightsInPlace = true;
#else
constexpr int kTileQueries = kMostGroup;
constexpr bool kWeightsInPlace = false;
#endif
constexpr int kTileVectors = (kTileQueries + kLanes - 1) / kLanes;  // vectors that hold a number for each query
constexpr int kScorePanel = kTileQueries * kLanes;
// Elements from a query's weights to the next query's, and from a query's weights of a page to those of the next page.
constexpr int kWeightQuery = kWeightsInPlace ? kPage : kBlock;
constexpr int kWeightPage = kWeightsInPlace ? 2 * kPage * kTileQueries : kPage;

#if defined(__clang__)
#define PARROT_ONCE __attribute__((noinline))
#else
#define PARROT_ONCE __attribute__((noinline, noclone))
#endif

// Softmax state of sixteen queries: the largest score seen, and the total of weights relative to it.
struct Softmax {
  F32x16 peak, total;
};
constexpr float kNoPeak = -1e30f;  // the peak of a query that has seen nothing; its total is 0

// Folds `part` into `state`. The weighted sums of `state` are to be scaled by `before`, those of `part` by `now`.
// Like `blend`, not inlined or cloned for a caller, so that results are rounded alike for all callers.
PARROT_ONCE static void fold(Softmax& state, const Softmax& part, float* before, float* now) {
  const F32x16 peak = max(state.peak, part.peak);
  const F32x16 old_scale = exp2(state.peak - peak), new_scale = exp2(part.peak - peak);
  state.peak = peak;
  state.total = state.total * old_scale + part.total * new_scale;
  store(before, old_scale), store(now, new_scale);
}

// Folds weighted values, [count][columns], into earlier `sums`.
PARROT_ONCE static void blend(float* sums, const float* part, int count, int columns, const float* before,
                              const float* now) {
  for (int i = 0; i < count; ++i)
    for (int c = i * columns; c < (i + 1) * columns; c += kLanes)
      store(sums + c, load(sums + c) * before[i] + load(part + c) * now[i]);
}

// Masks a query's scores from key `seen` on, so that they weigh nothing.
static inline void hide(float* scores, int seen, int panels) {
  const int whole = seen / kLanes;
  if (whole < panels)
    for (int k = seen % kLanes; k < kLanes; ++k) scores[whole * kScorePanel + k] = kNoPeak;
  for (int panel = whole + 1; panel < panels; ++panel) store(scores + panel * kScorePanel, splat(kNoPeak));
}

// The largest of a query's scores, lane by lane.
static inline F32x16 highest(const float* scores, int panels) {
  F32x16 even = load(scores), odd = even;
  for (int panel = 1; panel < panels; panel += 2) {
    odd = max(odd, load(scores + panel * kScorePanel));
    if (panel + 1 < panels) even = max(even, load(scores + (panel + 1) * kScorePanel));
  }
  return max(even, odd);
}

#if defined(PARROT_HAS_AMX)

// 128 * (127 + x), rounded to an integer, is nearly 2^x in bf16: it has the right exponent, but the fraction f of x in
// the place of the mantissa 2^f - 1. Element i is 128 * (f - (2^f - 1)), where i is the first six of f's seven bits.
// (Schraudolph, "A fast, compact approximation of the exponential function", 1999, with a table for the rest.)
alignas(64) constexpr std::uint8_t kFractionExcess[64] = {
    0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 5, 6, 6, 7, 7, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 10, 11, 11, 11, 11, 11,
    11, 11, 11, 11, 11, 11, 11, 11, 11, 10, 10, 10, 10, 10, 9, 9, 9, 8, 8, 8, 7, 7, 6, 6, 5, 5, 4, 3, 3, 2, 1, 1};

// Turns a query's scores into weights relative to `peak`; returns the sums of the weights, lane by lane. A weight has
// eight significant bits, so 32 of them are found at once as integers of sixteen bits. Their error is at most 0.7
// percent and 0.23 in the root mean square; rounding to bf16 alone has 0.4 and 0.17. Sums are of the rounded weights.
static inline F32x16 soften(const float* scores, int panels, float peak, Activation* weights) {
  const __m512i excess = _mm512_load_si512(kFractionExcess);
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);  // packing takes turns between its operands
  const __m512 scale = _mm512_set1_ps(128.0f), offset = _mm512_set1_ps(128.0f * (127.0f - peak));
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  const auto fixed_point = [&](int panel) {
    return _mm512_cvtps_epi32(_mm512_fmadd_ps((__m512)load(scores + panel * kScorePanel), scale, offset));
  };
  const auto weigh_page = [&](__m512i first, __m512i second, __m512 sum, Activation* to) {
    const __m512i bits = _mm512_permutexvar_epi64(order, _mm512_packus_epi32(first, second));  // negative ones become 0
    const __m512i extra = _mm512_maskz_permutexvar_epi8(0x5555555555555555, _mm512_srli_epi16(bits, 1), excess);
    const __m512i exact = _mm512_sub_epi16(bits, extra);
    _mm512_store_si512(to, exact);
    return _mm512_dpbf16_ps(sum, (__m512bh)exact, ones);
  };
  __m512 even = _mm512_setzero_ps(), odd = even;
  int panel = 0;
  for (; panel + 4 <= panels; panel += 4, weights += 2 * kWeightPage) {
    even = weigh_page(fixed_point(panel), fixed_point(panel + 1), even, weights);
    odd = weigh_page(fixed_point(panel + 2), fixed_point(panel + 3), odd, weights + kWeightPage);
  }
  for (; panel < panels; panel += 2, weights += kWeightPage) {
    const __m512i second = panel + 1 < panels ? fixed_point(panel + 1) : _mm512_setzero_si512();
    even = weigh_page(fixed_point(panel), second, even, weights);
  }
  return (F32x16)even + (F32x16)odd;
}

#else

// Turns a query's scores into weights relative to `peak`; returns the sums of the weights, lane by lane.
static inline F32x16 soften(const float* scores, int panels, float peak, Activation* weights) {
  F32x16 even{}, odd{};
  int panel = 0;
  for (; panel + 2 <= panels; panel += 2, weights += kWeightPage) {
    const F32x16 first = exp2(load(scores + panel * kScorePanel) - peak);
    const F32x16 second = exp2(load(scores + (panel + 1) * kScorePanel) - peak);
    even += first, odd += second;
    store_activations(weights, first, second);
  }
  if (panel < panels) {
    const F32x16 last = exp2(load(scores + panel * kScorePanel) - peak);
    even += last;
    store_activations(weights, last);
  }
  return even + odd;
}

#endif

// Turns the scores of up to sixteen queries into weights; query i sees the first seen[i] keys of the `panels` panels.
static inline Softmax weigh(float* scores, const int* seen, int count, int panels, Activation* weights) {
  F32x16 lanes[kLanes];
  for (F32x16& lane : lanes) lane = splat(kNoPeak);
  for (int i = 0; i < count; ++i) {
    hide(scores + i * kLanes, std::max(seen[i], 0), panels);
    lanes[i] = highest(scores + i * kLanes, panels);
  }
  const F32x16 peak = max_of(lanes);
  alignas(64) float peaks[kLanes];
  store(peaks, peak);
  for (F32x16& lane : lanes) lane = F32x16{};
  for (int i = 0; i < count; ++i)
    lanes[i] = soften(scores + i * kLanes, panels, seen[i] > 0 ? peaks[i] : 0.0f, weights + i * kWeightQuery);
  return {peak, sum_of(lanes)};
}
