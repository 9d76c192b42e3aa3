// What the CPU this process runs on can execute.
#pragma once

#include <string>
#include <vector>

namespace parrot {

// Instruction-set extensions that numeric kernels choose between, sorted, spelled as Linux spells them in
// /proc/cpuinfo ("avx2", "fma", "avx512_bf16"), with Arm's names shortened to those in use ("neon", "dotprod",
// "bf16"). Only what the operating system lets a process use is listed: a CPU with AVX-512 under a kernel that
// does not save its registers has none. Where the CPU has AMX, this asks the system for its registers.
// Empty on an architecture this does not know.
std::vector<std::string> cpu_features();

}  // namespace parrot
