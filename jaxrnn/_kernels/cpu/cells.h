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

  template <class V>
  INLINE V forward(const V* u, V, V&, V*) {
    return F::value(u[0]);
  }

  template <class V>
  INLINE V backward(V dh, V&, const V*, V, V h, V* delta) {
    delta[0] = dh * F::slope(h);
    return V{};
  }
};

struct Tanh {
  template <class V>
  INLINE V value(V x) {
    return tanh(x);
  }
  template <class V>
  INLINE V slope(V y) {
    return 1.0f - y * y;
  }
};

struct Relu {
  template <int N>
  INLINE Vectors<N> value(const Vectors<N>& x) {
    return each<N>([&](int n) { return x.v[n] < 0.0f ? Vector{} : x.v[n]; });
  }
  template <int N>
  INLINE Vectors<N> slope(const Vectors<N>& y) {
    return each<N>([&](int n) { return y.v[n] > 0.0f ? splat(1.0f) : Vector{}; });
  }
};

// The preactivations: i, f, g, o. The cell state: c.
struct Lstm {
  static constexpr int GATES = 4, UNITS = 1, WIDTH = 4, FIRST_RECURRENT = 0, FIRST_INPUT = 0, RESIDUALS = 5, STATES = 2;
  static constexpr int GATE[4] = {0, 1, 2, 3};

  template <class V>
  INLINE V forward(const V* u, V, V& c, V* residuals) {
    const V i = sigmoid(u[0]), f = sigmoid(u[1]), g = tanh(u[2]), o = sigmoid(u[3]);
    residuals[0] = i, residuals[1] = f, residuals[2] = g, residuals[3] = o, residuals[4] = c;
    c = f * c + i * g;
    return o * tanh(c);
  }

  template <class V>
  INLINE V backward(V dh, V& dc, const V* residuals, V, V, V* delta) {
    const V i = residuals[0], f = residuals[1], g = residuals[2], o = residuals[3], c = residuals[4];
    const V out = tanh(f * c + i * g);
    const V d = dc + dh * o * (1.0f - out * out);
    delta[0] = d * g * i * (1.0f - i);
    delta[1] = d * c * f * (1.0f - f);
    delta[2] = d * i * (1.0f - g * g);
    delta[3] = dh * out * o * (1.0f - o);
    dc = d * f;
    return V{};
  }
};

// The preactivations: the recurrent part of n (its bias is the local b_hn), r, z, and the input part of n.
struct Gru {
  static constexpr int GATES = 3, UNITS = 1, WIDTH = 3, FIRST_RECURRENT = 0, FIRST_INPUT = 1, RESIDUALS = 4, STATES = 1;
  static constexpr int GATE[4] = {2, 0, 1, 2};

  template <class V>
  INLINE V forward(const V* u, V previous, V&, V* residuals) {
    const V v = u[0], r = sigmoid(u[1]), z = sigmoid(u[2]), n = tanh(u[3] + r * v);
    residuals[0] = v, residuals[1] = r, residuals[2] = z, residuals[3] = n;
    return n + z * (previous - n);
  }

  template <class V>
  INLINE V backward(V dh, V&, const V* residuals, V previous, V, V* delta) {
    const V v = residuals[0], r = residuals[1], z = residuals[2], n = residuals[3];
    const V dn = dh * (1.0f - z) * (1.0f - n * n);
    delta[0] = dn * r;
    delta[1] = dn * v * r * (1.0f - r);
    delta[2] = dh * (previous - n) * z * (1.0f - z);
    delta[3] = dn;
    return dh * z;
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
