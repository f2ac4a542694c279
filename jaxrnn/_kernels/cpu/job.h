// Jobs, the arguments of the kernels. Nothing here depends on the instruction set.
//
// T time, B batch, I input features, H hidden units, G gates, S arrays of state. All arrays are row-major, in jaxrnn's
// own layout.
#pragma once
#include <cstddef>
#include <cstdint>

// Files that are compiled for several instruction sets share this one. Its functions are inlined wherever they are
// called, since a linker may take any one copy of a function for all.
#define ALWAYS_INLINE __attribute__((always_inline)) inline

namespace jaxrnn {

using Index = std::ptrdiff_t;

enum class Dtype : std::uint8_t { F32, BF16, F16 };

// An array of numbers; null data stands for an absent one. The kernels compute in float32: numbers are widened where
// they are loaded and rounded to the nearest where they are stored.
struct Array {
  char* data = nullptr;
  Dtype dtype = Dtype::F32;

  ALWAYS_INLINE explicit operator bool() const { return data != nullptr; }
  ALWAYS_INLINE Array operator+(Index count) const { return {data + count * (dtype == Dtype::F32 ? 4 : 2), dtype}; }
};

struct Shape {
  Index time, batch, inputs, hidden;
  bool reverse;  // run over time from the last step to the first
  Index groups;  // equal parts of the batch with separate weight gradients; 1 except under vmap

  // Returns the time of the s-th step in running order.
  ALWAYS_INLINE Index step(Index s) const { return reverse ? time - 1 - s : s; }
};

struct Weights {
  Array w_x, w_h, b, local;  // (I, G, H), (H, G, H), (G, H), and other params of the gate (L, H)
};

struct StepMasks {
  const std::uint8_t *valid, *reset;  // (T, B): false in the padding; true where the state is reset before the step
  Array reset_state;                  // (S, B, H), the state that a reset puts in its place
};

struct Forward {
  Shape shape;
  Weights weights;
  StepMasks masks;
  Array xs, state;             // (T, B, I), (S, B, H)
  Array ys, final, residuals;  // (T, B, H), (S, B, H), and for the backward pass (T, B, residuals * padded(H))
};

struct Backward {
  Shape shape;
  Weights weights;
  StepMasks masks;
  Array xs, state, ys, residuals, dys, dfinal;
  Array dxs, dw_x, dw_h, db, dlocal, dstate, dreset_state;  // of weights: one group after the other
};

// The affine recurrence: a, b, out (T, N), state (N).
struct Affine {
  Index time, width;
  bool reverse;
  Array a, b, state, out;
};

// Bytes of a core's caches.
struct Caches {
  Index l1, l2;
};
const Caches& caches();

struct Rows {
  Index first, last;
  ALWAYS_INLINE Index count() const { return last - first; }
};

// One of `of` equal shares of work. `cut(count)` returns its part of `count` items.
struct Share {
  Index index, of;
  ALWAYS_INLINE Rows cut(Index count) const { return {count * index / of, count * (index + 1) / of}; }
};

// A matrix memory (K, V) for each of P pairs of a batch row and a head, with one decay a step and pair; see
// memory_chunk.h. All arrays are of float32.
struct Memory {
  Index time, pairs, keys, values, chunk;
  const float *query, *key, *value;   // (T, P, K), (T, P, K), (T, P, V)
  const float *log_decay, *erase;     // (T, P); erase may be null
  const float* memory;                // (P, K, V)
  float *read, *final, *kept;         // (T, P, V), (P, K, V), and the memory before each chunk, or null

  ALWAYS_INLINE Index chunks() const { return (time + chunk - 1) / chunk; }
};

// Its backward pass. Of `of` it needs the inputs, which include `kept`, but not `memory`.
struct MemoryGradients {
  Memory of;
  const float *dread, *dfinal;
  float *dquery, *dkey, *dvalue, *dlog_decay, *derase, *dmemory;
};

// Its kernels, for disjoint ranges of pairs, each with a separate workspace.
struct MemoryKernel {
  std::size_t (*forward_workspace)(const Memory&);
  void (*forward)(const Memory&, char* workspace, Rows pairs);
  std::size_t (*backward_workspace)(const MemoryGradients&);
  void (*backward)(const MemoryGradients&, char* workspace, Rows pairs);
};

class Crew;

// The kernel of one cell for one way to multiply. Every function works on memory that it is passed and cannot fail.
// `pack` fills `shared`. Then `run` is called for disjoint rows, each with a separate workspace and crew; the workspace
// has room for as many threads as the crew may have.
struct Kernel {
  const char* name;
  Index gates, states, locals, residuals;  // G, S, L, and the numbers a unit and step that the backward pass needs
  Index rows;                              // of the smallest part that is worth a thread
  Index bytes;                             // of a packed weight
  Index forward_units, backward_units;     // that one thread computes at least, where threads share a step
  double shared_flops;                     // of a step that is worth sharing

  std::size_t (*forward_shared)(const Shape&);
  std::size_t (*forward_workspace)(const Shape&, Rows, Index threads);
  void (*forward_pack)(const Forward&, char* shared, Crew&);
  void (*forward_run)(const Forward&, const char* shared, char* workspace, Rows, Crew&);

  std::size_t (*backward_shared)(const Shape&);
  std::size_t (*backward_workspace)(const Shape&, Rows, Index threads);
  std::size_t (*backward_sums)(const Shape&);  // of the gradients of one set of weights
  void (*backward_pack)(const Backward&, char* shared, Crew&);
  void (*backward_run)(const Backward&, const char* shared, char* workspace, char* sums, Rows, Crew&);
  void (*backward_sum)(const Backward&, const char* sums, Index parts, Crew&);  // of all parts, into the outputs
};

constexpr int CELLS = 4;

constexpr Index PADDED_TO = 16;  // floats: the widest vector
ALWAYS_INLINE constexpr Index padded(Index size, Index to = PADDED_TO) { return (size + to - 1) / to * to; }

}  // namespace jaxrnn
