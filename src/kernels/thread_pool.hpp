// A fixed team of threads that runs one function at a time, with barriers inside it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace parrot {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Runs `task(thread)` on every thread of the team, the caller's as number 0, and returns when all are done.
  void run(const std::function<void(int)>& task);

  // Inside a task: waits until every thread has come here.
  void barrier();

 private:
  void work(int thread);
  std::uint64_t await_task(std::uint64_t seen);

  const int size_;
  const std::function<void(int)>* task_ = nullptr;
  std::atomic<std::uint64_t> round_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<std::uint64_t> generation_{0};
  std::vector<std::thread> workers_;
};

}  // namespace parrot
