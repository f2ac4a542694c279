// The kernels of all cells. This file is compiled once for every instruction set.
#include "affine.h"
#include "backward.h"
#include "forward.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell>
constexpr Kernel kernel(const char* name) {
  using F = ForwardLoop<Cell>;
  using B = BackwardLoop<Cell>;
  return {name,      Cell::GATES, Cell::STATES, Cell::FIRST_INPUT, Cell::RESIDUALS, F::shared, F::workspace,
          F::pack,   F::run,      B::shared,    B::workspace,           B::sums,    B::pack,   B::run,
          B::sum};
}

extern const Kernel kernels[CELLS] = {
    kernel<Elman<Tanh>>("elman_tanh"),
    kernel<Elman<Relu>>("elman_relu"),
    kernel<Lstm>("lstm"),
    kernel<Gru>("gru"),
};

}  // namespace jaxrnn::JAXRNN_ISA
