#include "library.h"

#include <cstring>

namespace jaxrnn {

#if defined(__x86_64__)
namespace avx512 {
extern const Kernel kernels[CELLS];
void affine(const Affine&, Rows);
}
namespace avx2 {
extern const Kernel kernels[CELLS];
void affine(const Affine&, Rows);
}
#endif
namespace baseline {
extern const Kernel kernels[CELLS];
void affine(const Affine&, Rows);
}

namespace {

struct Isa {
  const char* name;
  const Kernel* kernels;
  AffineLoop affine;
  bool supported;
};

const Isa* isas() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  static const Isa all[] = {
      {"avx512", avx512::kernels, avx512::affine,
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")},
      {"avx2", avx2::kernels, avx2::affine, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
      {"baseline", baseline::kernels, baseline::affine, true},
      {nullptr, nullptr, nullptr, false},
  };
#else
  static const Isa all[] = {{"baseline", baseline::kernels, baseline::affine, true},
                            {nullptr, nullptr, nullptr, false}};
#endif
  return all;
}

std::atomic<const Isa*> chosen{nullptr};

const Isa* isa() {
  if (const Isa* named = chosen.load()) return named;
  const Isa* best = isas();
  while (!best->supported) best++;
  return best;
}

}  // namespace

const Kernel* find_kernel(const char* cell, std::size_t length) {
  for (const Kernel* kernel = isa()->kernels; kernel != isa()->kernels + CELLS; kernel++) {
    if (std::strlen(kernel->name) == length && std::strncmp(kernel->name, cell, length) == 0) return kernel;
  }
  return nullptr;
}

AffineLoop find_affine() { return isa()->affine; }

}  // namespace jaxrnn

// The functions that Python calls: the floats a unit and step that the backward pass needs (-1: unknown cell), the name
// of the instruction set in use, and, for tests, the choice of another one (0: this machine lacks it).
extern "C" {
__attribute__((visibility("default"))) std::int64_t jaxrnn_residuals(const char* cell) {
  const jaxrnn::Kernel* kernel = jaxrnn::find_kernel(cell, std::strlen(cell));
  return kernel ? kernel->residuals : -1;
}
__attribute__((visibility("default"))) const char* jaxrnn_isa() { return jaxrnn::isa()->name; }
__attribute__((visibility("default"))) int jaxrnn_use_isa(const char* name) {
  for (const jaxrnn::Isa* isa = jaxrnn::isas(); isa->name; isa++) {
    if (std::strcmp(isa->name, name) == 0 && isa->supported) {
      jaxrnn::chosen = isa;
      return 1;
    }
  }
  return 0;
}
}
