// Sigmoid and tanh, accurate to one or two ulps. NaN maps to NaN.
#pragma once
#include "vector.h"

namespace jaxrnn::JAXRNN_ISA {

INLINE Vector clamp(Vector x, float limit) {
#if defined(__AVX512F__)
  const __m512 low = reinterpret_cast<__m512>(splat(-limit)), high = reinterpret_cast<__m512>(splat(limit));
  return reinterpret_cast<Vector>(_mm512_max_ps(low, _mm512_min_ps(high, reinterpret_cast<__m512>(x))));
#else
  x = x > limit ? splat(limit) : x;
  return x < -limit ? splat(-limit) : x;
#endif
}

INLINE Vector reciprocal(Vector x) {
#if defined(__AVX512F__)
  const Vector guess = reinterpret_cast<Vector>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
  return guess + guess * (1.0f - x * guess);
#else
  return 1.0f / x;
#endif
}

// Returns 2^n, for a number n that has been shifted to the low bits.
INLINE Vector power_of_two(Vector shifted) {
  return reinterpret_cast<Vector>((reinterpret_cast<Integers>(shifted) << 23) + 0x3f800000);
}

// Several vectors that are computed side by side: the operations of one vector wait for one another.
template <int N>
struct Vectors {
  Vector v[N];
};

template <int N, class F>
INLINE Vectors<N> each(F&& f) {
  Vectors<N> out;
  UNROLL for (int n = 0; n < N; n++) out.v[n] = f(n);
  return out;
}

#define OPERATOR(op)                                                                           \
  template <int N>                                                                             \
  INLINE Vectors<N> operator op(const Vectors<N>& a, const Vectors<N>& b) {                    \
    return each<N>([&](int n) { return a.v[n] op b.v[n]; });                                   \
  }                                                                                            \
  template <int N>                                                                             \
  INLINE Vectors<N> operator op(const Vectors<N>& a, float b) {                                \
    return each<N>([&](int n) { return a.v[n] op b; });                                        \
  }                                                                                            \
  template <int N>                                                                             \
  INLINE Vectors<N> operator op(float a, const Vectors<N>& b) {                                \
    return each<N>([&](int n) { return a op b.v[n]; });                                        \
  }
OPERATOR(+)
OPERATOR(-)
OPERATOR(*)
#undef OPERATOR

template <int N>
INLINE Vectors<N> operator-(const Vectors<N>& a) {
  return each<N>([&](int n) { return -a.v[n]; });
}
template <int N>
INLINE Vectors<N> clamp(const Vectors<N>& a, float limit) {
  return each<N>([&](int n) { return clamp(a.v[n], limit); });
}
template <int N>
INLINE Vectors<N> reciprocal(const Vectors<N>& a) {
  return each<N>([&](int n) { return reciprocal(a.v[n]); });
}
template <int N>
INLINE Vectors<N> power_of_two(const Vectors<N>& a) {
  return each<N>([&](int n) { return power_of_two(a.v[n]); });
}

// exp(x) = scale * (1 + rest), for |x| < 88: `scale` is a power of two, `rest` a polynomial in the remainder.
template <class V>
struct Exponential {
  V scale, rest;
};

template <class V>
INLINE Exponential<V> exponential(V x) {
  constexpr float LOG2_E = 1.44269504088896f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
  constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const V shifted = x * LOG2_E + ROUND;
  const V whole = shifted - ROUND;
  const V r = x - whole * LN2_HIGH - whole * LN2_LOW;
  V p = r * 0.001395049155689776f + 0.008368889801204205f;
  p = p * r + 0.04166620597243309f;
  p = p * r + 0.166665181517601f;
  p = p * r + 0.5f;
  return {power_of_two(shifted), r + r * r * p};
}

template <class V>
INLINE V sigmoid(V x) {
  const Exponential<V> e = exponential(-clamp(x, 87.0f));
  return reciprocal(1.0f + (e.scale + e.scale * e.rest));
}

// tanh(x) = e / (e + 2) with e = exp(2x) - 1, which is accurate for small x.
template <class V>
INLINE V tanh(V x) {
  const Exponential<V> two = exponential(clamp(x + x, 20.0f));
  const V e = two.scale * two.rest + (two.scale - 1.0f);
  return e * reciprocal(e + 2.0f);
}

}  // namespace jaxrnn::JAXRNN_ISA
