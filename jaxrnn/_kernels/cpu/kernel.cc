// The loops for every cell, compiled once for every instruction set.
#include "affine.h"
#include "backward.h"
#include "forward.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell>
constexpr Kernel kernel(const char* name) {
  using F = ForwardLoop<Cell>;
  using B = BackwardLoop<Cell>;
  return {name,      Cell::GATES, Cell::STATES, Cell::INPUT_TERM, Cell::KEPT, F::shared, F::own,
          F::pack,   F::run,      B::shared,    B::own,           B::sums,    B::pack,   B::run,
          B::sum};
}

extern const Kernel kernels[CELLS] = {
    kernel<Elman<OfTanh>>("elman_tanh"),
    kernel<Elman<OfRelu>>("elman_relu"),
    kernel<Lstm>("lstm"),
    kernel<Gru>("gru"),
};

}  // namespace jaxrnn::JAXRNN_ISA
