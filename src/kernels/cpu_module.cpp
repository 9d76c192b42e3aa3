// The Python module `parrotserve._cpu`.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "cpu_features.hpp"

NB_MODULE(_cpu, m) {
  m.doc() = "What the CPU this process runs on can execute.";
  m.def("features", &parrot::cpu_features,
        "The instruction-set extensions this process may use, sorted, e.g. ['avx', 'avx2', 'fma'].");
}
