// Numbers of 16 bits, and arrays of any dtype. Conversions work on the bits, so that every instruction set has them.
#pragma once
#include "vector.h"

namespace jaxrnn::JAXRNN_ISA {

// Rounds to the nearest bfloat16, ties to even, in the low half of each lane. NaN stays NaN.
INLINE Bits to_bfloat16(Vector v) {
#if defined(__AVX512BF16__)  // takes subnormal numbers for zero
  const __m256bh halves = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(v));
  return reinterpret_cast<Bits>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(halves)));
#else
  const Bits bits = as_bits(v);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return v == v ? rounded : (bits >> 16 | 0x40);
#endif
}
INLINE Vector from_bfloat16(Bits bits) { return as_floats(bits << 16); }

// float16 has 5 bits of exponent. Its subnormal numbers are multiples of 2^-24, and normal as float32.
INLINE Vector from_float16(Bits bits) {
  const Bits exponent = bits & 0x7c00;
  const Bits normal = ((bits & 0x7fff) << 13) + (exponent == 0x7c00 ? Bits{} + (224u << 23) : Bits{} + (112u << 23));
  const Vector subnormal = __builtin_convertvector(reinterpret_cast<Integers>(bits & 0x3ff), Vector) * 0x1p-24f;
  return as_floats((exponent == 0 ? as_bits(subnormal) : normal) | (bits & 0x8000) << 16);
}

// Rounds to the nearest float16, ties to even. Subnormal numbers are rounded by the addition of a float whose unit in
// the last place is theirs.
INLINE Bits to_float16(Vector v) {
  const Bits bits = as_bits(v), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  const Bits normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  const Bits subnormal = as_bits(as_floats(magnitude) + 0.5f) - 0x3f000000;
  Bits half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477ff000 ? Bits{} + 0x7c00 : half;  // rounds to infinity
  half = magnitude > 0x7f800000 ? Bits{} + 0x7e00 : half;
  return half | sign;
}

// Loads LANES numbers of 16 bits, of which the first `count` exist, as the low halves of lanes; stores them.
INLINE Bits load_halves(const char* from, Index count) {
  if (count >= LANES) return __builtin_convertvector(*reinterpret_cast<const UnalignedHalves*>(from), Bits);
  Halves halves{};
  if (count > 0) std::memcpy(&halves, from, static_cast<std::size_t>(count) * 2);
  return __builtin_convertvector(halves, Bits);
}
INLINE void store_halves(char* to, Bits bits, Index count) {
#if defined(__AVX512F__)
  const Halves halves = reinterpret_cast<Halves>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(bits)));
#else
  const Halves halves = __builtin_convertvector(bits, Halves);
#endif
  if (count >= LANES) {
    *reinterpret_cast<UnalignedHalves*>(to) = halves;
  } else if (count > 0) {
    std::memcpy(to, &halves, static_cast<std::size_t>(count) * 2);
  }
}

// The rare cases are not inlined, so that loops stay small: float16, and rows that end within a vector.
__attribute__((noinline)) static Vector load_rare(Array from, Index count) {
  const Bits bits = load_halves(from.data, count);
  return from.dtype == Dtype::BF16 ? from_bfloat16(bits) : from_float16(bits);
}
__attribute__((noinline)) static void store_rare(Array to, Vector v, Index count) {
  store_halves(to.data, to.dtype == Dtype::BF16 ? to_bfloat16(v) : to_float16(v), count);
}

// Loads `count` numbers of an array; the other lanes are zero. Stores them.
INLINE Vector load(Array from, Index count) {
  if (from.dtype == Dtype::F32) return load(reinterpret_cast<const float*>(from.data), count);
  if (from.dtype == Dtype::BF16 && count >= LANES) return from_bfloat16(load_halves(from.data, LANES));
  return load_rare(from, count);
}
INLINE void store(Array to, Vector v, Index count) {
  if (to.dtype == Dtype::F32) return store(reinterpret_cast<float*>(to.data), v, count);
  if (to.dtype == Dtype::BF16 && count >= LANES) return store_halves(to.data, to_bfloat16(v), LANES);
  store_rare(to, v, count);
}

// Stores past the caches: for arrays that are larger than these, whose lines would first be read. Only whole lines of a
// cache gain by it, so `may_stream` says whether a vector of such an array is one. `end_stream` comes before any other
// thread may read them.
#if defined(__AVX512F__)
ALWAYS_INLINE bool may_stream(Array to) {
  return to.dtype == Dtype::F32 && reinterpret_cast<std::uintptr_t>(to.data) % sizeof(Vector) == 0;
}
INLINE void stream(Array to, Vector v) {
  _mm512_stream_ps(reinterpret_cast<float*>(to.data), reinterpret_cast<__m512>(v));
}
INLINE void end_stream() { _mm_sfence(); }
#else
ALWAYS_INLINE bool may_stream(Array) { return false; }
INLINE void stream(Array to, Vector v) { store(to, v, LANES); }
INLINE void end_stream() {}
#endif

}  // namespace jaxrnn::JAXRNN_ISA
