// Sigmoid and tanh, accurate to one or two ulps. NaN maps to NaN.
#pragma once
#include "vector.h"

namespace jaxrnn::JAXRNN_ISA {

INLINE Vector clamp(Vector x, float limit) {
  x = x > limit ? splat(limit) : x;
  return x < -limit ? splat(-limit) : x;
}

INLINE Vector reciprocal(Vector x) {
#if defined(__AVX512F__)
  const Vector guess = reinterpret_cast<Vector>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
  return guess + guess * (1.0f - x * guess);
#else
  return 1.0f / x;
#endif
}

// exp(x) = scale * (1 + rest), for |x| < 88: `scale` is a power of two, `rest` a polynomial in the remainder.
struct Exponential {
  Vector scale, rest;
};

INLINE Exponential exponential(Vector x) {
  constexpr float LOG2_E = 1.44269504088896f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
  constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Vector shifted = x * LOG2_E + ROUND;
  const Vector whole = shifted - ROUND;
  const Vector r = x - whole * LN2_HIGH - whole * LN2_LOW;
  Vector p = r * 0.001395049155689776f + 0.008368889801204205f;
  p = p * r + 0.04166620597243309f;
  p = p * r + 0.166665181517601f;
  p = p * r + 0.5f;
  const Integers power = (reinterpret_cast<Integers>(shifted) << 23) + 0x3f800000;
  return {reinterpret_cast<Vector>(power), r + r * r * p};
}

INLINE Vector sigmoid(Vector x) {
  const Exponential e = exponential(clamp(-x, 87.0f));
  return reciprocal(1.0f + (e.scale + e.scale * e.rest));
}

// tanh(x) = e / (e + 2) with e = exp(2x) - 1, which is accurate for small x.
INLINE Vector tanh(Vector x) {
  const Exponential two = exponential(clamp(x + x, 20.0f));
  const Vector e = two.scale * two.rest + (two.scale - 1.0f);
  return e * reciprocal(e + 2.0f);
}

}  // namespace jaxrnn::JAXRNN_ISA
