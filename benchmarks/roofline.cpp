// What this machine can do at most, for the benchmarks: multiply-adds a second from registers, and bytes a second from
// memory, on all threads. For every line on standard input it measures for some 0.1 s, the best of short attempts, and
// prints four numbers: GFLOP/s bf16 (0 without the instructions), GFLOP/s float32, GOP/s int8 (0 likewise), GB/s.
//
//   c++ -O3 -march=native -pthread roofline.cpp -o roofline && ./roofline THREADS MIB
//
// MIB of memory are read over and over, front to back, each thread its share: as large as a model's weights, so that as
// much of it as of them stays in the caches.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
volatile float sink;

// Seconds that the slowest thread needed for work(thread), all having begun together.
double on_all(int threads, const std::function<void(int)>& work) {
  std::atomic<int> ready{0};
  std::vector<double> seconds(threads);
  const auto run = [&](int i) {
    ready.fetch_add(1);
    while (ready.load() < threads) std::this_thread::yield();
    const auto began = Clock::now();
    work(i);
    seconds[i] = std::chrono::duration<double>(Clock::now() - began).count();
  };
  std::vector<std::thread> team;
  for (int i = 1; i < threads; ++i) team.emplace_back(run, i);
  run(0);
  for (auto& each : team) each.join();
  return *std::max_element(seconds.begin(), seconds.end());
}

// Independent accumulators, enough to hide the latency of the multiply-add.
constexpr int kChains = 12;

#if defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__linux__)
#define PARROT_AMX 1
constexpr int kTileSums = 4;

// Each thread sets its tile registers, all of sixteen rows of 64 bytes; Linux gives them to a process that asks.
void set_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  syscall(SYS_arch_prctl, kRequestPermission, kTileData);
  struct alignas(64) {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shape;
  asm volatile("ldtilecfg %0" ::"m"(shape));
}
#define PARROT_TILES(instruction)                        \
  asm volatile(instruction " %%tmm6, %%tmm4, %%tmm0\n"   \
               instruction " %%tmm7, %%tmm4, %%tmm1\n"   \
               instruction " %%tmm6, %%tmm5, %%tmm2\n"   \
               instruction " %%tmm7, %%tmm5, %%tmm3" ::)

constexpr double kBf16Flops = 2.0 * 16 * 16 * 32 * kTileSums, kInt8Ops = 2.0 * 16 * 16 * 64 * kTileSums;
void bf16_loop(std::int64_t rounds) {
  set_tiles();
  for (std::int64_t i = 0; i < rounds; ++i) PARROT_TILES("tdpbf16ps");
  asm volatile("tilerelease" ::);
}
void int8_loop(std::int64_t rounds) {
  set_tiles();
  for (std::int64_t i = 0; i < rounds; ++i) PARROT_TILES("tdpbusd");
  asm volatile("tilerelease" ::);
}
#elif defined(__AVX512BF16__)
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

#if defined(PARROT_AMX)
#elif defined(__AVX512VNNI__)
constexpr double kInt8Ops = 2.0 * 64 * kChains;
void int8_loop(std::int64_t rounds) {
  __m512i sum[kChains];
  for (auto& each : sum) each = _mm512_setzero_si512();
  __m512i a = _mm512_set1_epi8(1), b = a;
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (auto& each : sum) each = _mm512_dpbusd_epi32(each, a, b);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  int total = 0;
  for (auto& each : sum) total += _mm512_reduce_add_epi32(each);
  sink = static_cast<float>(total);
}
#else
constexpr double kInt8Ops = 0;
void int8_loop(std::int64_t) {}
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

// Reads every byte once, four streams side by side, each fetched ahead; `words` is a multiple of 32.
void read_loop(const std::uint64_t* data, std::size_t words) {
  constexpr int kStreams = 4, kLine = 8, kAhead = 64 * kLine;
  const std::size_t part = words / kStreams;
  std::uint64_t sums[kStreams][kLine] = {};
  for (std::size_t i = 0; i < part; i += kLine)
    for (int stream = 0; stream < kStreams; ++stream) {
      const std::uint64_t* line = data + stream * part + i;
      __builtin_prefetch(line + kAhead);
      for (int lane = 0; lane < kLine; ++lane) sums[stream][lane] += line[lane];
    }
  std::uint64_t total = 0;
  for (auto& stream : sums)
    for (auto each : stream) total += each;
  sink = static_cast<float>(total);
}

std::uint64_t* memory_of(std::size_t bytes) {
  constexpr std::size_t kHuge = std::size_t{1} << 21;
  void* memory = std::aligned_alloc(kHuge, (bytes + kHuge - 1) / kHuge * kHuge);
#if defined(__linux__)
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  std::fill_n(static_cast<std::uint64_t*>(memory), bytes / 8, 1);
  return static_cast<std::uint64_t*>(memory);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = std::max(1, argc > 1 ? std::atoi(argv[1]) : 1);
  const std::size_t mib = std::max(1, argc > 2 ? std::atoi(argv[2]) : 256);
  constexpr std::int64_t kRounds = 400'000;
  const std::size_t words = (mib << 20) / 8 / threads / 32 * 32;
  std::vector<std::uint64_t*> data;
  for (int i = 0; i < threads; ++i) data.push_back(memory_of(words * 8));
  for (std::string line; std::getline(std::cin, line);) {
    double bf16 = 0, fp32 = 0, int8 = 0, memory = 0;
    for (int repeat = 0; repeat < 5; ++repeat) {
      const double half = on_all(threads, [](int) { bf16_loop(kRounds); });
      const double full = on_all(threads, [](int) { fp32_loop(kRounds); });
      const double byte = on_all(threads, [](int) { int8_loop(kRounds); });
      const double read = on_all(threads, [&](int i) { read_loop(data[i], words); });
      bf16 = std::max(bf16, threads * kRounds * kBf16Flops / half / 1e9);
      fp32 = std::max(fp32, threads * kRounds * 2.0 * kLanes * kChains / full / 1e9);
      int8 = std::max(int8, threads * kRounds * kInt8Ops / byte / 1e9);
      memory = std::max(memory, threads * words * 8.0 / read / 1e9);
    }
    std::printf("%.1f %.1f %.1f %.2f\n", bf16, fp32, int8, memory);
    std::fflush(stdout);
  }
}
