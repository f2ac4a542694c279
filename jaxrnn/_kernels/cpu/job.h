// What a kernel is asked to do. No instruction set is seen here.
//
// T time, B batch, I input features, H hidden units, G gates, S arrays of state. All arrays are float32, row-major, in
// jaxrnn's own layout; a null pointer stands for an array that is absent.
#pragma once
#include <cstddef>
#include <cstdint>

namespace jaxrnn {

using Index = std::ptrdiff_t;

struct Shape {
  Index time, batch, inputs, hidden;
  bool reverse;  // cross time from the last step to the first
  Index groups;  // equal parts of the batch, each with weight gradients of its own; 1 but under vmap

  // The step of the sequence that is crossed as number `s`.
  Index step(Index s) const { return reverse ? time - 1 - s : s; }
};

struct Weights {
  const float *w_x, *w_h, *b, *local;  // (I, G, H), (H, G, H), (G, H), and what the gate has of its own (L, H)
};

struct Marks {
  const std::uint8_t *valid, *fresh;  // (T, B): false in the padding; true where the state begins anew
  const float* initial;               // (S, B, H), what it begins anew from
};

struct Forward {
  Shape shape;
  Weights weights;
  Marks marks;
  const float *xs, *state;    // (T, B, I), (S, B, H)
  float *ys, *final, *kept;   // (T, B, H), (S, B, H), and what the way back needs, (T, B, kept * padded(H))
};

struct Backward {
  Shape shape;
  Weights weights;
  Marks marks;
  const float *xs, *state, *ys, *kept, *dys, *dfinal;
  float *dxs, *dw_x, *dw_h, *db, *dlocal, *dstate, *dinitial;  // those for weights have one group after the other in front
};

// The affine recurrence: a, b, out (T, N), state (N).
struct Affine {
  Index time, width;
  bool reverse;
  const float *a, *b, *state;
  float* out;
};

struct Rows {
  Index first, last;
  Index count() const { return last - first; }
};

// One share of work that is cut into `of` shares: of `count` things those from `first()` to `last()`.
struct Share {
  Index index, of;
  Rows cut(Index count) const { return {count * index / of, count * (index + 1) / of}; }
};

// What one instruction set offers for one cell. Every function works on memory handed to it and cannot fail.
// `shared` is packed by `pack`, share by share, before `run` is called, for disjoint rows, each with memory of its own.
struct Kernel {
  const char* name;
  Index gates, states, locals, kept;  // G, S, L, and the floats a unit that the way back needs

  std::size_t (*forward_shared)(const Shape&);
  std::size_t (*forward_own)(const Shape&, Rows);
  void (*forward_pack)(const Forward&, char* shared, Share);
  void (*forward_run)(const Forward&, const char* shared, char* own, Rows);

  std::size_t (*backward_shared)(const Shape&);
  std::size_t (*backward_own)(const Shape&, Rows);
  std::size_t (*backward_sums)(const Shape&);  // of the gradients for one set of weights
  void (*backward_pack)(const Backward&, char* shared, Share);
  void (*backward_run)(const Backward&, const char* shared, char* own, char* sums, Rows);  // sums: null for in place
  void (*backward_sum)(const Backward&, const char* sums, Index parts, Share);  // of every part, into the outputs
};

constexpr int CELLS = 4;

constexpr Index PADDED_TO = 16;  // floats: the widest vector there is
constexpr Index padded(Index size, Index to = PADDED_TO) { return (size + to - 1) / to * to; }

}  // namespace jaxrnn
