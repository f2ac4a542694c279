"""The time loop in C++ for a CPU: its sources, and the library that is built from them when jaxrnn is installed.

Read the files in this order: `job.h`, the arguments of a kernel; `vector.h`, `numbers.h`, `activations.h`, arithmetic;
`cells.h`, the equations; `panels.h`, the operands of matmuls, and `fma.h` and `tiles.h`, the ways to multiply;
`forward.h`, `deltas.h`, `backward.h`, `affine.h`, the loops; `kernel.cc`, all kernels for one instruction set;
`products.h`, `memory_chunk.h`, `memory_forward.h`, `memory_backward.h` and `memory.cc`, the same for matrix memories;
`parallel.h`, `library.h`, threads; `checker.h`, `ffi.cc` and `memory_ffi.cc`, the handlers that XLA calls;
`library.py`, which loads the library; `calls.py`, `affine.py` and `memory.py`, the calls from JAX.
"""
