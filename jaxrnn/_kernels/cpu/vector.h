// The vector of the instruction set that this file is compiled for.
#pragma once
#include <cstring>
#include <utility>

#include "job.h"

#if defined(JAXRNN_TILES)  // compiled for AVX-512, or for anything where the tiles are emulated
#define JAXRNN_ISA amx
#define JAXRNN_BYTES 64
#elif defined(__AVX512F__) && defined(__AVX512DQ__)
#define JAXRNN_ISA avx512
#define JAXRNN_BYTES 64
#elif defined(__AVX2__) && defined(__FMA__)
#define JAXRNN_ISA avx2
#define JAXRNN_BYTES 32
#else
#define JAXRNN_ISA baseline
#define JAXRNN_BYTES 16
#endif
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

namespace jaxrnn::JAXRNN_ISA {

constexpr Index LANES = JAXRNN_BYTES / 4;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif
constexpr int ABREAST = REGISTERS == 32 ? 4 : 1;  // vectors of units that are computed side by side

// A number that is known to the compiler, as an argument.
template <int N>
struct Count {
  static constexpr int value = N;
};

typedef float Vector __attribute__((vector_size(JAXRNN_BYTES)));
typedef std::int32_t Integers __attribute__((vector_size(JAXRNN_BYTES)));
typedef std::uint32_t Bits __attribute__((vector_size(JAXRNN_BYTES)));
typedef std::uint16_t Halves __attribute__((vector_size(JAXRNN_BYTES / 2)));
typedef float Unaligned __attribute__((vector_size(JAXRNN_BYTES), aligned(4), may_alias));
typedef std::uint16_t UnalignedHalves __attribute__((vector_size(JAXRNN_BYTES / 2), aligned(2), may_alias));

INLINE Vector splat(float x) { return x - Vector{}; }  // x + 0 would be an addition: -0 + 0 is +0
INLINE Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
INLINE void store(float* to, Vector v) { *reinterpret_cast<Unaligned*>(to) = v; }
INLINE Vector as_floats(Bits bits) { return reinterpret_cast<Vector>(bits); }
INLINE Bits as_bits(Vector v) { return reinterpret_cast<Bits>(v); }

// The same for the `count` floats at the end of a row; the other lanes are zero.
INLINE Vector load(const float* from, Index count) {
  if (count >= LANES) return load(from);
  Vector v{};
  if (count > 0) std::memcpy(&v, from, static_cast<std::size_t>(count) * sizeof(float));
  return v;
}
INLINE void store(float* to, Vector v, Index count) {
  if (count >= LANES) return store(to, v);
  if (count > 0) std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof(float));
}

// Interleaves two rows, (a0, b0, a1, b1, ...), into the first and the second half.
template <std::size_t... K>
INLINE void zip(Vector a, Vector b, Vector& first, Vector& second, std::index_sequence<K...>) {
  first = __builtin_shufflevector(a, b, (K / 2 + K % 2 * LANES)...);
  second = __builtin_shufflevector(a, b, (LANES / 2 + K / 2 + K % 2 * LANES)...);
}

// Transposes LANES rows of LANES floats. Interleaving the upper half of the rows with the lower, once for every bit of
// a row's index, exchanges those bits with the bits of a column's index.
INLINE void transpose(Vector (&rows)[LANES]) {
  UNROLL for (Index bit = 1; bit < LANES; bit *= 2) {
    Vector zipped[LANES];
    UNROLL for (Index i = 0; i < LANES / 2; i++) {
      zip(rows[i], rows[i + LANES / 2], zipped[2 * i], zipped[2 * i + 1], std::make_index_sequence<LANES>{});
    }
    UNROLL for (Index i = 0; i < LANES; i++) rows[i] = zipped[i];
  }
}

}  // namespace jaxrnn::JAXRNN_ISA
