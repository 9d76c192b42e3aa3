#include "thread_pool.hpp"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace parrot {
namespace {

// Workers spin this long before they sleep. Between steps the engine's Python mostly takes less, and waking them would
// cost more.
constexpr auto kSpinBetweenTasks = std::chrono::microseconds(300);
// A few microseconds: as long as a wait takes for threads that are running, too. A thread that waits longer yields its
// core.
constexpr int kSpinsBeforeYield = 256;

inline void relax(int spins) {
  if (spins >= kSpinsBeforeYield) return std::this_thread::yield();
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : size_(threads < 1 ? 1 : threads) {
  for (int thread = 1; thread < size_; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    round_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(const std::function<void(int)>& task) {
  if (size_ > 1) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      round_.fetch_add(1);
    }
    wake_.notify_all();
  }
  task(0);
  barrier();
}

void ThreadPool::work(int thread) {
  std::uint64_t seen = 0;
  for (;;) {
    seen = await_task(seen);
    if (stopping_) return;
    (*task_)(thread);
    barrier();
  }
}

std::uint64_t ThreadPool::await_task(std::uint64_t seen) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinBetweenTasks;
  for (int spins = 0; round_.load(std::memory_order_acquire) == seen; ++spins) {
    relax(spins);
    if (spins % 64 == 63 && std::chrono::steady_clock::now() > deadline) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return round_.load() != seen; });
    }
  }
  return round_.load(std::memory_order_acquire);
}

void ThreadPool::barrier() {
  if (size_ == 1) return;
  const std::uint64_t generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; generation_.load(std::memory_order_acquire) == generation; ++spins) relax(spins);
}

}  // namespace parrot
