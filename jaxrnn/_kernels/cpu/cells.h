// The equations of the cells, one struct for each, on vectors of units.
//
// A matmul outputs four vectors: the preactivations of a panel. A panel is one vector of units with up to four
// preactivations each, or, if a unit has only one, four vectors of units (`UNITS`). `GATE[v]` is the gate whose weights
// compute preactivation v. The state contributes to `WIDTH` preactivations from FIRST_RECURRENT on, the inputs to as
// many from FIRST_INPUT on; the bias of a preactivation without inputs is a local param. The gradients of the
// preactivations (deltas) have the same layout.
//
// `forward` computes h_t from the preactivations u, h_{t-1} (`previous`) and the cell state (c of an LSTM). It updates
// the cell state, and writes what the backward pass needs to `residuals`. `backward` computes the deltas from the
// gradients of h_t and of the cell state. It updates the latter, and returns the gradient of h_{t-1} that needs no
// matmul.
#pragma once
#include "activations.h"

namespace jaxrnn::JAXRNN_ISA {

template <class F>
struct Elman {
  static constexpr int GATES = 1, UNITS = 4, WIDTH = 4, FIRST_RECURRENT = 0, FIRST_INPUT = 0, RESIDUALS = 0, STATES = 1;
  static constexpr int GATE[4] = {0, 0, 0, 0};

  INLINE Vector forward(const Vector* u, Vector, Vector&, Vector*) { return F::value(u[0]); }

  INLINE Vector backward(Vector dh, Vector&, const Vector*, Vector, Vector h, Vector* delta) {
    delta[0] = dh * F::slope(h);
    return Vector{};
  }
};

struct Tanh {
  INLINE Vector value(Vector x) { return tanh(x); }
  INLINE Vector slope(Vector y) { return 1.0f - y * y; }
};

struct Relu {
  INLINE Vector value(Vector x) { return x < 0.0f ? Vector{} : x; }
  INLINE Vector slope(Vector y) { return y > 0.0f ? splat(1.0f) : Vector{}; }
};

// The preactivations: i, f, g, o. The cell state: c.
struct Lstm {
  static constexpr int GATES = 4, UNITS = 1, WIDTH = 4, FIRST_RECURRENT = 0, FIRST_INPUT = 0, RESIDUALS = 5, STATES = 2;
  static constexpr int GATE[4] = {0, 1, 2, 3};

  INLINE Vector forward(const Vector* u, Vector, Vector& c, Vector* residuals) {
    const Vector i = sigmoid(u[0]), f = sigmoid(u[1]), g = tanh(u[2]), o = sigmoid(u[3]);
    residuals[0] = i, residuals[1] = f, residuals[2] = g, residuals[3] = o, residuals[4] = c;
    c = f * c + i * g;
    return o * tanh(c);
  }

  INLINE Vector backward(Vector dh, Vector& dc, const Vector* residuals, Vector, Vector, Vector* delta) {
    const Vector i = residuals[0], f = residuals[1], g = residuals[2], o = residuals[3], c = residuals[4];
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

// The preactivations: the recurrent part of n (its bias is the local b_hn), r, z, and the input part of n.
struct Gru {
  static constexpr int GATES = 3, UNITS = 1, WIDTH = 3, FIRST_RECURRENT = 0, FIRST_INPUT = 1, RESIDUALS = 4, STATES = 1;
  static constexpr int GATE[4] = {2, 0, 1, 2};

  INLINE Vector forward(const Vector* u, Vector previous, Vector&, Vector* residuals) {
    const Vector v = u[0], r = sigmoid(u[1]), z = sigmoid(u[2]), n = tanh(u[3] + r * v);
    residuals[0] = v, residuals[1] = r, residuals[2] = z, residuals[3] = n;
    return n + z * (previous - n);
  }

  INLINE Vector backward(Vector dh, Vector&, const Vector* residuals, Vector previous, Vector, Vector* delta) {
    const Vector v = residuals[0], r = residuals[1], z = residuals[2], n = residuals[3];
    const Vector dn = dh * (1.0f - z) * (1.0f - n * n);
    delta[0] = dn * r;
    delta[1] = dn * v * r * (1.0f - r);
    delta[2] = dh * (previous - n) * z * (1.0f - z);
    delta[3] = dn;
    return dh * z;
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
