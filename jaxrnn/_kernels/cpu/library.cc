#include "library.h"

#include <unistd.h>

#include <chrono>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#endif

namespace jaxrnn {

#define DECLARE(isa)                    \
  namespace isa {                       \
  extern const Kernel kernels[CELLS];   \
  void affine(const Affine&, Rows);     \
  extern const MemoryKernel memory;     \
  }
#if defined(__x86_64__)
DECLARE(avx512)
DECLARE(avx2)
namespace amx {
extern const Kernel one_pass[CELLS], three_passes[CELLS];
}
#endif
DECLARE(baseline)

namespace {

// The kernels for one instruction set. `one_pass` and `three_passes` multiply in bfloat16; null where it has no unit.
struct Isa {
  const char* name;
  bool supported;
  const Kernel* kernels;
  AffineLoop affine;
  const MemoryKernel* memory;
  const Kernel *one_pass = nullptr, *three_passes = nullptr;
};

// Why this machine has no kernels that multiply in bfloat16; null if it has.
const char* missing_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24;
  static const char* const missing = []() -> const char* {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & BF16) || !(d & TILE)) return "this processor has no AMX";
    if (!__builtin_cpu_supports("avx512bf16")) return "this processor has no AVX512-BF16";
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0) return nullptr;
    return "the system does not permit this process to use AMX (arch_prctl)";
  }();
  return missing;
#else
  return "AMX is used on Linux and x86-64 alone";
#endif
}

// The instruction sets, the best first.
const Isa* isas() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  static const Isa all[] = {
#if defined(JAXRNN_EMULATED_TILES)  // next to the vector kernels that any machine has
      {"amx", true, baseline::kernels, baseline::affine, &baseline::memory, amx::one_pass, amx::three_passes},
#else
      {"amx", has_avx512 && !missing_tiles(), avx512::kernels, avx512::affine, &avx512::memory, amx::one_pass,
       amx::three_passes},
#endif
      {"avx512", has_avx512, avx512::kernels, avx512::affine, &avx512::memory},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::kernels, avx2::affine,
       &avx2::memory},
      {"baseline", true, baseline::kernels, baseline::affine, &baseline::memory},
      {nullptr, false, nullptr, nullptr, nullptr},
  };
#else
  static const Isa all[] = {{"baseline", true, baseline::kernels, baseline::affine, &baseline::memory},
                            {nullptr, false, nullptr, nullptr, nullptr}};
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

const Kernel* find_kernel(std::string_view cell, Dtype weights, Precision precision) {
  const Isa* here = isa();
  if (weights == Dtype::BF16) precision = Precision::BFLOAT16;
  const Kernel* kernels = here->kernels;
  if (weights != Dtype::F16 && precision == Precision::BFLOAT16 && here->one_pass) kernels = here->one_pass;
  if (weights != Dtype::F16 && precision == Precision::BFLOAT16_X3 && here->three_passes) kernels = here->three_passes;
  for (const Kernel* kernel = kernels; kernel != kernels + CELLS; kernel++) {
    if (cell == kernel->name) return kernel;
  }
  return nullptr;
}

AffineLoop find_affine() { return isa()->affine; }
const MemoryKernel& find_memory() { return *isa()->memory; }

std::int64_t nanoseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

const Caches& caches() {
  static const Caches here = [] {
#if defined(JAXRNN_L2)  // for tests: one that small weights exceed
    return Caches{Index{1} << 15, JAXRNN_L2};
#else
    Index l1 = 0, l2 = 0;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE);
    l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return Caches{l1 > 0 ? l1 : Index{1} << 15, l2 > 0 ? l2 : Index{1} << 19};
#endif
  }();
  return here;
}

}  // namespace jaxrnn

// The functions that Python calls: the numbers a unit and step that the backward pass needs (-1: unknown cell), why
// there is no AMX (null: there is), the name of the instruction set in use, and, for tests, the choice of another one
// (0: this machine lacks it).
extern "C" {
__attribute__((visibility("default"))) std::int64_t jaxrnn_residuals(const char* cell) {
  const auto* kernel = jaxrnn::find_kernel(cell, jaxrnn::Dtype::F32, jaxrnn::Precision::FLOAT32);
  return kernel ? kernel->residuals : -1;
}
__attribute__((visibility("default"))) const char* jaxrnn_missing_tiles() { return jaxrnn::missing_tiles(); }
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
