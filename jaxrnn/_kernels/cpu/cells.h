// The equations, one struct a cell, on vectors of units.
//
// A matmul leaves four vectors, the terms of a panel. A panel is one vector of units with up to four terms each, or,
// where a unit has one term, four vectors of units (`UNITS`). `GATE[v]` says which gate's weights make term v. The
// state reaches `WIDTH` terms from STATE_TERM on, the inputs as many from INPUT_TERM on; the bias of a term that inputs
// do not reach is a local param. Gradients for the terms, the deltas, stand in the same places.
//
// `forward` goes from the terms, h before the step and the memory beside it (an LSTM's c) to h after it; it leaves the
// new memory, and in `kept` what the way back needs. `backward` goes from dh and the gradient for the memory to the
// deltas; it leaves the gradient for the old memory, and gives what reaches the old h without a matmul.
#pragma once
#include "activations.h"

namespace jaxrnn::JAXRNN_ISA {

template <class F>
struct Elman {
  static constexpr int GATES = 1, UNITS = 4, WIDTH = 4, STATE_TERM = 0, INPUT_TERM = 0, KEPT = 0, STATES = 1;
  static constexpr int GATE[4] = {0, 0, 0, 0};

  INLINE Vector forward(const Vector* term, Vector, Vector&, Vector*) { return F::value(term[0]); }

  INLINE Vector backward(Vector dh, Vector&, const Vector*, Vector, Vector h, Vector* delta) {
    delta[0] = dh * F::slope(h);
    return Vector{};
  }
};

struct OfTanh {
  INLINE Vector value(Vector x) { return tanh(x); }
  INLINE Vector slope(Vector y) { return 1.0f - y * y; }
};

struct OfRelu {
  INLINE Vector value(Vector x) { return x < 0.0f ? Vector{} : x; }
  INLINE Vector slope(Vector y) { return y > 0.0f ? splat(1.0f) : Vector{}; }
};

// The terms: i, f, g, o. The memory: c.
struct Lstm {
  static constexpr int GATES = 4, UNITS = 1, WIDTH = 4, STATE_TERM = 0, INPUT_TERM = 0, KEPT = 5, STATES = 2;
  static constexpr int GATE[4] = {0, 1, 2, 3};

  INLINE Vector forward(const Vector* term, Vector, Vector& c, Vector* kept) {
    const Vector i = sigmoid(term[0]), f = sigmoid(term[1]), g = tanh(term[2]), o = sigmoid(term[3]);
    kept[0] = i, kept[1] = f, kept[2] = g, kept[3] = o, kept[4] = c;
    c = f * c + i * g;
    return o * tanh(c);
  }

  INLINE Vector backward(Vector dh, Vector& dc, const Vector* kept, Vector, Vector, Vector* delta) {
    const Vector i = kept[0], f = kept[1], g = kept[2], o = kept[3], c = kept[4];
    const Vector out = tanh(f * c + i * g);
    const Vector d = dc + dh * o * (1.0f - out * out);
    delta[0] = d * g * i * (1.0f - i);
    delta[1] = d * c * f * (1.0f - f);
    delta[2] = d * i * (1.0f - g * g);
    delta[3] = dh * out * o * (1.0f - o);
    dc = d * f;
    return Vector{};
  }
};

// The terms: of n what the state gives (its bias is the local b_hn), r, z, and of n what the inputs give.
struct Gru {
  static constexpr int GATES = 3, UNITS = 1, WIDTH = 3, STATE_TERM = 0, INPUT_TERM = 1, KEPT = 4, STATES = 1;
  static constexpr int GATE[4] = {2, 0, 1, 2};

  INLINE Vector forward(const Vector* term, Vector old, Vector&, Vector* kept) {
    const Vector v = term[0], r = sigmoid(term[1]), z = sigmoid(term[2]), n = tanh(term[3] + r * v);
    kept[0] = v, kept[1] = r, kept[2] = z, kept[3] = n;
    return n + z * (old - n);
  }

  INLINE Vector backward(Vector dh, Vector&, const Vector* kept, Vector old, Vector, Vector* delta) {
    const Vector v = kept[0], r = kept[1], z = kept[2], n = kept[3];
    const Vector dn = dh * (1.0f - z) * (1.0f - n * n);
    delta[0] = dn * r;
    delta[1] = dn * v * r * (1.0f - r);
    delta[2] = dh * (old - n) * z * (1.0f - z);
    delta[3] = dn;
    return dh * z;
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
