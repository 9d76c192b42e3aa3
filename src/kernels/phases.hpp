// A step is a sequence of phases. In each, threads share out units of work, then wait for one another. Included per
// variant.

class Phases {
 public:
  // How far a thread has come in a step.
  struct Place {
    const int thread;
    int phase = 0;
  };

  // A step has `most` phases at most.
  Phases(ThreadPool& pool, int most) : pool_(pool), stride_((static_cast<std::size_t>(most) + 31) / 16 * 16) {}

  void begin() { taken_ = std::vector<std::atomic<int>>(pool_.size() * stride_); }

  // Calls work(unit, next) until none of the phase's `units` is left, then waits for all threads. `next` is the unit that
  // this thread takes after this one, or -1, so that what it reads can be prefetched.
  template <class Work>
  void each(Place& at, int units, const Work& work) {
    const int threads = pool_.size();
    each_from(at, [=](int thread) { return units * thread / threads; }, work);
  }

  // The same, where thread t's own units are starts[t] to starts[t + 1].
  template <class Work>
  void each(Place& at, const std::vector<int>& starts, const Work& work) {
    each_from(at, [&](int thread) { return starts[thread]; }, work);
  }

 private:
  template <class Starts, class Work>
  void each_from(Place& at, const Starts& start, const Work& work) {
    int unit = take(at, start);
    while (unit >= 0) {
      const int next = take(at, start);
      work(unit, next);
      unit = next;
    }
    ++at.phase;
    pool_.barrier();
  }

  // The next unit of a thread's own range or, once that is used up, of another's; -1 if none is left. Threads have
  // ranges because neighbouring units write to the same cache lines, which must not bounce between cores.
  template <class Starts>
  int take(const Place& at, const Starts& start) {
    const int threads = pool_.size();
    for (int i = 0; i < threads; ++i) {
      const int of = (at.thread + i) % threads;
      const int first = start(of), end = start(of + 1);
      std::atomic<int>& taken = taken_[of * stride_ + at.phase];
      if (first + taken.load(std::memory_order_relaxed) >= end) continue;
      const int unit = first + taken.fetch_add(1, std::memory_order_relaxed);
      if (unit < end) return unit;
    }
    return -1;
  }

  ThreadPool& pool_;
  const std::size_t stride_;             // phases plus a cache line, so that each thread counts in lines of its own
  std::vector<std::atomic<int>> taken_;  // [threads][stride]: units of each thread's range
};

constexpr int kRowsAUnit = 96;
static_assert(RestoredMatrix::kMostRows < kRowsAUnit, "Matrix::rows could not tell a small step from a piece");

// What a thread prefetches while it works on `unit`, which is followed by unit `next` or, where that is -1, by another
// phase that reads `following`. A tile is `pieces` units. With AMX, products are so fast that memory could not bring a
// tile during the last unit before it, so all units of a tile share the prefetching.
template <class M>
static inline Ahead ahead_of(const M& matrix, int unit, int next, int pieces, int rows, const void* following) {
  const int tile = unit / pieces, next_tile = next / pieces;
  if (!kFetchesEvenly || pieces == 1)
    return {next < 0 ? following : next_tile == tile ? nullptr : matrix.tile(next_tile, rows)};
  const int after = next >= 0 && next_tile != tile ? next_tile : tile + 1;
  const bool more = next >= 0 && after < matrix.tiles();
  return {more ? matrix.tile(after, rows) : following, unit % pieces, pieces};
}

// A phase that multiplies all rows of `a` with `matrix`: calls done(row, tile, out) for every row and tile, except in units
// for which skip(tile, first row) is true. In its last unit a thread prefetches `following`, which a later phase reads.
template <class M, class A, class Done, class Skip>
static inline void multiply(Phases& phases, Phases::Place& at, const M& matrix, const A& a, int rows, const void* following,
                            const Done& done, const Skip& skip) {
  const int pieces = (rows + kRowsAUnit - 1) / kRowsAUnit;
  phases.each(at, matrix.tiles() * pieces, [&](int unit, int next) {
    const int tile = unit / pieces, first = unit % pieces * kRowsAUnit;
    if (skip(tile, first)) return;
    matrix.rows(tile, a, first, std::min(first + kRowsAUnit, rows),
                ahead_of(matrix, unit, next, pieces, rows, following),
                [&](int row, float* out) { done(row, tile, out); });
  });
}

template <class M, class A, class Done>
static inline void multiply(Phases& phases, Phases::Place& at, const M& matrix, const A& a, int rows, const void* following,
                            const Done& done) {
  multiply(phases, at, matrix, a, rows, following, done, [](int, int) { return false; });
}
