"""The time loop in C++ for a CPU: its sources, and the library that they are built into when jaxrnn is installed.

To be read in this order: `job.h`, what a kernel is asked; `vector.h`, `activations.h`, `tile.h`, arithmetic; `cells.h`,
the equations; `forward.h`, `deltas.h`, `backward.h`, `affine.h`, the loops; `kernel.cc`, one instruction set;
`parallel.h`, `library.h`, how work is cut; `ffi.cc`, how XLA calls; `library.py`, which loads it; `calls.py` and
`affine.py`, the calls in JAX.
"""
