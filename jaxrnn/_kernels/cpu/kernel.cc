// The kernels of all cells. This file is compiled once for every instruction set, and once for the tiles of AMX.
#include "affine.h"
#include "backward.h"
#include "forward.h"
#if defined(JAXRNN_TILES)
#include "tiles.h"
#else
#include "fma.h"
#endif

namespace jaxrnn::JAXRNN_ISA {

template <class Cell, class Engine>
constexpr Kernel kernel(const char* name) {
  using F = ForwardLoop<Cell, Engine>;
  using B = BackwardLoop<Cell, Engine>;
  constexpr Index BYTES = Engine::PLANES * sizeof(typename Engine::Element);
  return {name,     Cell::GATES,  Cell::STATES, Cell::FIRST_INPUT, Cell::RESIDUALS, Engine::MIN_ROWS, BYTES,
          Cell::UNITS * LANES, TILE, Engine::MIN_SHARED_FLOPS,
          F::shared, F::workspace, F::pack,      F::run,            B::shared,       B::workspace,
          B::sums,   B::pack,      B::run,       B::sum};
}

#define KERNELS(engine)                                                                                       \
  {kernel<Elman<Tanh>, engine>("elman_tanh"), kernel<Elman<Relu>, engine>("elman_relu"), kernel<Lstm, engine>("lstm"), \
   kernel<Gru, engine>("gru")}

#if defined(JAXRNN_TILES)
extern const Kernel one_pass[CELLS] = KERNELS(Tiles<1>);
extern const Kernel three_passes[CELLS] = KERNELS(Tiles<2>);
#else
extern const Kernel kernels[CELLS] = KERNELS(Fma);
#endif

}  // namespace jaxrnn::JAXRNN_ISA
