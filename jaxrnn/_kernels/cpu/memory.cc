// The kernels of matrix memories. This file is compiled once for every instruction set.
#include "memory_backward.h"
#include "memory_forward.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Loop, class Job>
std::size_t memory_workspace(const Job& job) {
  Arena arena(nullptr);
  static_cast<void>(Loop(arena, job));
  return arena.used();
}

template <class Loop, class Job>
void run_memory(const Job& job, char* workspace, Rows pairs) {
  Arena arena(workspace);
  Loop(arena, job).run(pairs);
}

extern const MemoryKernel memory{memory_workspace<MemoryForward, Memory>, run_memory<MemoryForward, Memory>,
                                 memory_workspace<MemoryBackward, MemoryGradients>,
                                 run_memory<MemoryBackward, MemoryGradients>};

}  // namespace jaxrnn::JAXRNN_ISA
