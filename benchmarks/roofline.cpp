// What this machine can do at most, for benchmarks/engine.py: bf16 and float32 multiply-adds a second from registers,
// and bytes a second from memory, on all threads. Prints three numbers: GFLOP/s bf16 (0 without the instructions),
// GFLOP/s float32, GB/s.
//
//   c++ -O3 -march=native -pthread roofline.cpp -o roofline && ./roofline THREADS
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
volatile float sink;

// Seconds until all threads have done `work(thread)`.
double on_all(int threads, const std::function<void(int)>& work) {
  const auto began = Clock::now();
  std::vector<std::thread> team;
  for (int i = 0; i < threads; ++i) team.emplace_back(work, i);
  for (auto& each : team) each.join();
  return std::chrono::duration<double>(Clock::now() - began).count();
}

// Twelve independent accumulators hide the latency of the multiply-add.
constexpr int kChains = 12;

#if defined(__AVX512BF16__)
constexpr double kBf16Flops = 2.0 * 32 * kChains;
void bf16_loop(std::int64_t rounds) {
  __m512 sum[kChains];
  for (auto& each : sum) each = _mm512_setzero_ps();
  __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80), b = a;
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (auto& each : sum) each = _mm512_dpbf16_ps(each, a, b);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  float total = 0;
  for (auto& each : sum) total += _mm512_reduce_add_ps(each);
  sink = total;
}
#else
constexpr double kBf16Flops = 0;
void bf16_loop(std::int64_t) {}
#endif

#if defined(__AVX512F__)
using Vector = __m512;
constexpr int kLanes = 16;
Vector fill(float x) { return _mm512_set1_ps(x); }
Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__AVX2__) && defined(__FMA__)
using Vector = __m256;
constexpr int kLanes = 8;
Vector fill(float x) { return _mm256_set1_ps(x); }
Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
#else
typedef float Vector __attribute__((vector_size(16)));
constexpr int kLanes = 4;
Vector fill(float x) { return Vector{x, x, x, x}; }
Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
#endif

void fp32_loop(std::int64_t rounds) {
  Vector sum[kChains];
  for (auto& each : sum) each = fill(0);
  Vector a = fill(0.5f), b = fill(0.25f);
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (auto& each : sum) each = fma(a, b, each);
#if defined(__x86_64__)
    asm volatile("" : "+v"(a), "+v"(b));
#else
    asm volatile("" : "+w"(a), "+w"(b));
#endif
  }
  alignas(64) float lanes[kLanes];
  for (int i = 1; i < kChains; ++i) sum[0] += sum[i];
  *reinterpret_cast<Vector*>(lanes) = sum[0];
  sink = lanes[0];
}

// Reads every byte once; the compiler makes vector adds of it.
void read_loop(const std::uint64_t* data, std::size_t count) {
  std::uint64_t sums[32] = {};
  for (std::size_t i = 0; i + 32 <= count; i += 32)
    for (int lane = 0; lane < 32; ++lane) sums[lane] += data[i + lane];
  std::uint64_t total = 0;
  for (auto each : sums) total += each;
  sink = static_cast<float>(total);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = std::max(1, argc > 1 ? std::atoi(argv[1]) : 1);
  constexpr std::int64_t kRounds = 4'000'000;
  double bf16 = 0, fp32 = 0, memory = 0;
  constexpr std::size_t kWords = std::size_t{1} << 25;  // 256 MiB a thread
  std::vector<std::vector<std::uint64_t>> data(threads);
  on_all(threads, [&](int i) { data[i].assign(kWords, i + 1); });
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double half = on_all(threads, [](int) { bf16_loop(kRounds); });
    const double full = on_all(threads, [](int) { fp32_loop(kRounds); });
    const double read = on_all(threads, [&](int i) { read_loop(data[i].data(), kWords); });
    bf16 = std::max(bf16, threads * kRounds * kBf16Flops / half / 1e9);
    fp32 = std::max(fp32, threads * kRounds * 2.0 * kLanes * kChains / full / 1e9);
    memory = std::max(memory, threads * kWords * 8.0 / read / 1e9);
  }
  std::printf("%.1f %.1f %.2f\n", bf16, fp32, memory);
}
