// Softmax of a tile of queries over one block of keys. Included per variant, after kv_pages.hpp.
//
// Scores lie page by page, [pages][queries][16 keys], as the tiles leave them; weights query by query, as they take them.
// Sixteen queries go together, so that what is found of each stays in a lane, and no query waits for another's sums.

constexpr int kBlock = Decoder::kBlockTokens;
constexpr int kBlockPages = kBlock / kPage;
constexpr int kMostGroup = 24;  // query heads for one head of keys and values
#if defined(PARROT_HAS_AMX)
constexpr int kTileQueries = 2 * kTileRows;
#else
constexpr int kTileQueries = kMostGroup;
#endif
constexpr int kTileVectors = (kTileQueries + kLanes - 1) / kLanes;  // that hold a number for each query
constexpr int kScorePage = kTileQueries * kPage;

// Softmax state of sixteen queries: the largest score seen, and the total of weights relative to it.
struct Softmax {
  F32x16 peak, total;
};
constexpr float kNoPeak = -1e30f;  // of a query that has seen nothing; its total is 0

// Folds `part` into `state`; what was summed by weight before is to be scaled by `before`, what comes by `now`.
// Not inlined, like `blend`, so that every caller rounds alike.
__attribute__((noinline)) static void fold(Softmax& state, const Softmax& part, float* before, float* now) {
  const F32x16 peak = max(state.peak, part.peak);
  const F32x16 old_scale = exp2(state.peak - peak), new_scale = exp2(part.peak - peak);
  state.peak = peak;
  state.total = state.total * old_scale + part.total * new_scale;
  store(before, old_scale), store(now, new_scale);
}

// Folds weighted values, [count][columns], into those before.
__attribute__((noinline)) static void blend(float* sums, const float* part, int count, int columns, const float* before,
                                            const float* now) {
  for (int i = 0; i < count; ++i)
    for (int c = i * columns; c < (i + 1) * columns; c += kLanes)
      store(sums + c, load(sums + c) * before[i] + load(part + c) * now[i]);
}

// Makes a query's scores weigh nothing from key `seen` on.
static inline void hide(float* scores, int seen, int pages) {
  const int whole = seen / kPage;
  if (whole < pages)
    for (int k = seen % kPage; k < kPage; ++k) scores[whole * kScorePage + k] = kNoPeak;
  for (int page = whole + 1; page < pages; ++page) store(scores + page * kScorePage, splat(kNoPeak));
}

// The largest of a query's scores, lane by lane.
static inline F32x16 highest(const float* scores, int pages) {
  F32x16 even = load(scores), odd = even;
  for (int page = 1; page < pages; page += 2) {
    odd = max(odd, load(scores + page * kScorePage));
    if (page + 1 < pages) even = max(even, load(scores + (page + 1) * kScorePage));
  }
  return max(even, odd);
}

// A query's scores to weights relative to `peak`; returns their sums, lane by lane.
static inline F32x16 soften(const float* scores, int pages, float peak, Activation* weights) {
  F32x16 even{}, odd{};
  int page = 0;
  for (; page + 2 <= pages; page += 2) {
    const F32x16 first = exp2(load(scores + page * kScorePage) - peak);
    const F32x16 second = exp2(load(scores + (page + 1) * kScorePage) - peak);
    even += first, odd += second;
    store_activations(weights + page * kPage, first, second);
  }
  if (page < pages) {
    const F32x16 last = exp2(load(scores + page * kScorePage) - peak);
    even += last;
    store_activations(weights + page * kPage, last);
  }
  return even + odd;
}

// Turns the scores of up to sixteen queries, of which each sees the first seen[i] keys of so many pages, into weights.
static inline Softmax weigh(float* scores, const int* seen, int count, int pages, Activation* weights) {
  F32x16 lanes[kLanes];
  for (F32x16& lane : lanes) lane = splat(kNoPeak);
  for (int i = 0; i < count; ++i) {
    hide(scores + i * kPage, std::max(seen[i], 0), pages);
    lanes[i] = highest(scores + i * kPage, pages);
  }
  const F32x16 peak = max_of(lanes);
  alignas(64) float peaks[kLanes];
  store(peaks, peak);
  for (F32x16& lane : lanes) lane = F32x16{};
  for (int i = 0; i < count; ++i)
    lanes[i] = soften(scores + i * kPage, pages, seen[i] > 0 ? peaks[i] : 0.0f, weights + i * kBlock);
  return {peak, sum_of(lanes)};
}
