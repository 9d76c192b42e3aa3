#include "cpu_features.hpp"

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#define PARROT_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define PARROT_ARM64 1
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace parrot {
namespace {

#if defined(PARROT_X86)

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// A leaf the CPU does not have reads as zeros, hence as "no feature".
Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
#if defined(_MSC_VER)
  int highest[4], out[4];
  __cpuid(highest, 0);
  if (static_cast<std::uint32_t>(highest[0]) < leaf) return r;
  __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
  r.eax = out[0], r.ebx = out[1], r.ecx = out[2], r.edx = out[3];
#else
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return Registers{};
#endif
  return r;
}

// XCR0: which register files the operating system saves on a context switch. Needs OSXSAVE.
std::uint64_t saved_register_files() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
#endif
}

// Linux gives AMX's registers to a process that asks for them; other systems are not asked.
bool amx_granted() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM (asm/prctl.h), an XSAVE feature's number
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool bit(std::uint32_t word, int position) { return (word >> position) & 1u; }

// Bits from Intel's Software Developer's Manual, volume 2A, CPUID: leaf 1; leaf 7, subleaves 0 and 1.
std::vector<std::string> detect() {
  const Registers basic = cpuid(1, 0);
  const Registers extended = cpuid(7, 0);
  // Subleaf 1 exists only if subleaf 0 says so in EAX; asked for anyway, older CPUs repeat other data.
  const Registers newer = extended.eax >= 1 ? cpuid(7, 1) : Registers{};

  const bool osxsave = bit(basic.ecx, 27);
  const std::uint64_t xcr0 = osxsave ? saved_register_files() : 0;
  const bool avx_usable = (xcr0 & 0x6) == 0x6;             // XMM and YMM
  const bool avx512_usable = avx_usable && (xcr0 & 0xe0) == 0xe0;  // opmask and ZMM
  const bool amx_usable = (xcr0 & 0x60000) == 0x60000 && amx_granted();  // TILECFG and TILEDATA

  const struct {
    const char* name;
    bool usable;
  } table[] = {
      {"sse4_2", bit(basic.ecx, 20)},
      {"avx", avx_usable && bit(basic.ecx, 28)},
      {"f16c", avx_usable && bit(basic.ecx, 29)},
      {"fma", avx_usable && bit(basic.ecx, 12)},
      {"avx2", avx_usable && bit(extended.ebx, 5)},
      {"avx_vnni", avx_usable && bit(newer.eax, 4)},
      {"avx512f", avx512_usable && bit(extended.ebx, 16)},
      {"avx512dq", avx512_usable && bit(extended.ebx, 17)},
      {"avx512bw", avx512_usable && bit(extended.ebx, 30)},
      {"avx512vl", avx512_usable && bit(extended.ebx, 31)},
      {"avx512vbmi", avx512_usable && bit(extended.ecx, 1)},
      {"avx512_vnni", avx512_usable && bit(extended.ecx, 11)},
      {"avx512_bf16", avx512_usable && bit(newer.eax, 5)},
      {"avx512_fp16", avx512_usable && bit(extended.edx, 23)},
      {"amx_tile", amx_usable && bit(extended.edx, 24)},
      {"amx_bf16", amx_usable && bit(extended.edx, 22)},
      {"amx_int8", amx_usable && bit(extended.edx, 25)},
  };
  std::vector<std::string> found;
  for (const auto& row : table)
    if (row.usable) found.emplace_back(row.name);
  return found;
}

#elif defined(PARROT_ARM64) && defined(__linux__)

// Bit positions are the kernel's ABI (Documentation/arch/arm64/elf_hwcaps.rst); spelled out because older
// C libraries lack the newer names.
std::vector<std::string> detect() {
  const unsigned long hwcap = getauxval(AT_HWCAP);
  const unsigned long hwcap2 = getauxval(AT_HWCAP2);
  std::vector<std::string> found;
  if (hwcap & (1ul << 1)) found.emplace_back("neon");
  if (hwcap & (1ul << 10)) found.emplace_back("fp16");
  if (hwcap & (1ul << 20)) found.emplace_back("dotprod");
  if (hwcap & (1ul << 22)) found.emplace_back("sve");
  if (hwcap2 & (1ul << 1)) found.emplace_back("sve2");
  if (hwcap2 & (1ul << 13)) found.emplace_back("i8mm");
  if (hwcap2 & (1ul << 14)) found.emplace_back("bf16");
  return found;
}

#elif defined(PARROT_ARM64) && defined(__APPLE__)

bool has(const char* name) {
  int value = 0;
  std::size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

std::vector<std::string> detect() {
  std::vector<std::string> found{"neon"};
  if (has("hw.optional.arm.FEAT_FP16")) found.emplace_back("fp16");
  if (has("hw.optional.arm.FEAT_DotProd")) found.emplace_back("dotprod");
  if (has("hw.optional.arm.FEAT_I8MM")) found.emplace_back("i8mm");
  if (has("hw.optional.arm.FEAT_BF16")) found.emplace_back("bf16");
  return found;
}

#elif defined(PARROT_ARM64)

std::vector<std::string> detect() { return {"neon"}; }  // part of the architecture's baseline

#else

std::vector<std::string> detect() { return {}; }

#endif

}  // namespace

std::vector<std::string> cpu_features() {
  std::vector<std::string> found = detect();
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace parrot
