// A chunk of a matrix memory: what the forward and the backward pass compute of it first.
//
// C steps, K key features, V value features; S is the memory (K, V) before the chunk. With the sums of log decays
// total_t, D_ts = exp(total_t - total_s), e_t = exp(total_t) and h_s = exp(total_C - total_s),
//
//   u_t = v_t - erase_t (e_t S^T k_t + sum over s < t of D_ts (k_t . k_s) u_s)
//   o_t = e_t S^T q_t + sum over s <= t of D_ts (q_t . k_s) u_s
//   S'  = e_C S + sum over s of h_s k_s u_s^T
#pragma once
#include "activations.h"
#include "arena.h"
#include "products.h"

namespace jaxrnn::JAXRNN_ISA {

// Loads and stores the `count` floats of a row that ends within a vector.
#if defined(__AVX512F__)
INLINE __mmask16 lanes_below(Index count) { return static_cast<__mmask16>((1u << count) - 1); }
INLINE Vector load_end(const float* from, Index count) {
  return reinterpret_cast<Vector>(_mm512_maskz_loadu_ps(lanes_below(count), from));
}
INLINE void store_end(float* to, Vector v, Index count) {
  _mm512_mask_storeu_ps(to, lanes_below(count), reinterpret_cast<__m512>(v));
}
#else
INLINE Vector load_end(const float* from, Index count) {
  Vector v{};
  for (Index i = 0; i < count; i++) v[i] = from[i];
  return v;
}
INLINE void store_end(float* to, Vector v, Index count) {
  for (Index i = 0; i < count; i++) to[i] = v[i];
}
#endif

// Copies rows to rows of `width` floats, a whole number of vectors, and fills up with zeros to `all` rows.
static void load_rows(const float* from, Index stride, Index rows, Index columns, float* to, Index width, Index all) {
  for (Index i = 0; i < rows; i++, from += stride, to += width) {
    Index j = 0;
    for (; j + LANES <= columns; j += LANES) store(to + j, load(from + j));
    for (; j < width; j += LANES) store(to + j, j < columns ? load_end(from + j, columns - j) : Vector{});
  }
  for (Index j = 0; j < (all - rows) * width; j += LANES) store(to + j, Vector{});
}

// Copies rows of `width` floats to rows of `columns`.
static void store_rows(const float* from, Index width, Index rows, Index columns, float* to, Index stride) {
  for (Index i = 0; i < rows; i++, from += width, to += stride) {
    Index j = 0;
    for (; j + LANES <= columns; j += LANES) store(to + j, load(from + j));
    if (j < columns) store_end(to + j, load(from + j), columns - j);
  }
}

// Multiplies each row by a number.
static void scale_rows(const float* from, const float* by, Index rows, Index width, float* to) {
  for (Index i = 0; i < rows; i++, from += width, to += width) {
    const Vector scale = splat(by[i]);
    for (Index j = 0; j < width; j += LANES) store(to + j, scale * load(from + j));
  }
}

INLINE float sum_of(Vector v) {
  float sum = 0;
  UNROLL for (Index i = 0; i < LANES; i++) sum += v[i];
  return sum;
}

// Returns exp(x), and zero where it is below the normal numbers.
INLINE Vector exp_of(Vector x) {
  const Exponential<Vector> e = exponential(clamp(x, 87.0f));
  return x < -87.0f ? Vector{} : e.scale + e.scale * e.rest;
}

INLINE Integers lanes_from(Index first) {
  Integers lanes;
  UNROLL for (Index i = 0; i < LANES; i++) lanes[i] = static_cast<std::int32_t>(first + i);
  return lanes;
}

// Calls body(t, s) for the vectors of a lower triangle: columns s of row t, and those that complete its block.
template <class Body>
INLINE void each_lower(Index rows, Body&& body) {
  for (Index t = 0; t < rows; t++) {
    for (Index s = 0; s <= (t | (SIDE - 1)); s += LANES) body(t, s);
  }
}

// The buffers of a chunk, and the steps of one head that are in it.
struct Chunk {
  const Memory& job;
  const Index width, keys, values;  // C, K, V, in whole vectors
  float *query, *key, *transposed_key, *value, *decay, *products, *erasing, *erased_key;
  float *high, *low, *from_start, *to_end, *erase, *scale;
  Index pair = 0, first = 0, steps = 0, rows = 0;  // rows: the steps in whole blocks

  Chunk(Arena& arena, const Memory& job)
      : job(job), width(padded(job.chunk, GRAIN)), keys(padded(job.keys, GRAIN)), values(padded(job.values, GRAIN)) {
    for (float** rows : {&query, &key, &transposed_key}) *rows = arena.take<float>(width * keys);
    value = arena.take<float>(width * values);
    for (float** square : {&decay, &products}) *square = arena.take<float>(width * width);
    for (float** one : {&high, &low, &from_start, &to_end, &erase, &scale}) *one = arena.take<float>(width);
    erasing = erased_key = nullptr;
    if (!job.erase) return;
    erasing = arena.take<float>(width * width);
    erased_key = arena.take<float>(width * keys);
  }

  // Returns how many pairs run over time together: those whose memories fit in half of a core's second-level cache.
  // The rows of their heads are neighbours in the arrays.
  Index pairs_together() const {
    const Index fits = caches().l2 / 2 / (keys * values * static_cast<Index>(sizeof(float)));
    return fits < 1 ? 1 : fits < 16 ? fits : 16;
  }

  // Loads the memory of a pair of an array (P, K, V); stores it.
  void load_memory(const float* from, Index index, float* to) const {
    load_rows(from + index * job.keys * job.values, job.values, job.keys, job.values, to, values, keys);
  }
  void store_memory(const float* from, float* to, Index index) const {
    store_rows(from, values, job.keys, job.values, to + index * job.keys * job.values, job.values);
  }

  Index vectors() const { return (steps + LANES - 1) / LANES; }
  const float* at(const float* array, Index features) const { return array + (first * job.pairs + pair) * features; }
  float* at(float* array, Index features) const { return array + (first * job.pairs + pair) * features; }
  float at_end() const { return from_start[steps - 1]; }

  // Loads rows of an array (T, P, features).
  void load_steps(const float* from, Index features, float* to, Index wide) const {
    load_rows(at(from, features), job.pairs * features, steps, features, to, wide, padded(steps, GRAIN));
  }
  void store_steps(const float* from, Index wide, float* to, Index features) const {
    store_rows(from, wide, steps, features, at(to, features), job.pairs * features);
  }

  // Loads a chunk of a pair, and computes its decays.
  void load_chunk(Index of_pair, Index index) {
    pair = of_pair;
    first = index * job.chunk;
    steps = job.time - first < job.chunk ? job.time - first : job.chunk;
    rows = padded(steps, SIDE);
    load_steps(job.query, job.keys, query, keys);
    load_steps(job.key, job.keys, key, keys);
    load_steps(job.value, job.values, value, values);
    transpose(key, keys, padded(steps, GRAIN), keys, transposed_key, width);
    sum_decays();
    each_lower(rows, [&](Index t, Index s) {
      const Vector apart = (splat(high[t]) - load(high + s)) + (splat(low[t]) - load(low + s));
      store(decay + t * width + s, lanes_from(s) <= static_cast<std::int32_t>(t) ? exp_of(apart) : Vector{});
    });
  }

  // Computes the sums of log decays, each in two parts, and the decays from the start and to the end.
  void sum_decays() {
    const float *decays = at(job.log_decay, 1), *erases = job.erase ? at(job.erase, 1) : nullptr;
    double total = 0;
    for (Index t = 0; t < padded(steps, GRAIN); t++) {
      if (t < steps) total += decays[t * job.pairs];
      high[t] = static_cast<float>(total);
      low[t] = static_cast<float>(total - high[t]);
      erase[t] = erases && t < steps ? erases[t * job.pairs] : 0.0f;
    }
    const Vector last_high = splat(high[steps - 1]), last_low = splat(low[steps - 1]);
    for (Index t = 0; t < padded(steps, GRAIN); t += LANES) {
      store(from_start + t, exp_of(load(high + t)));
      store(to_end + t, exp_of((last_high - load(high + t)) + (last_low - load(low + t))));
    }
  }

  // Computes products D_ts (x_t . k_s) of the lower triangle.
  void decayed_products(const float* x, float* out) const {
    multiply({out, width, rows, vectors(), nullptr, 1, true}, {{x, keys, 1, transposed_key, width, job.keys}});
    each_lower(rows, [&](Index t, Index s) {
      float* at = out + t * width + s;
      store(at, load(at) * load(decay + t * width + s));
    });
  }

  // Replaces v by u. Leaves -erase_t D_ts (k_t . k_s), strictly lower, in `erasing`, and -erase_t e_t k_t.
  void solve(const float* memory) {
    decayed_products(key, erasing);
    each_lower(rows, [&](Index t, Index s) {
      float* at = erasing + t * width + s;
      store(at, lanes_from(s) < static_cast<std::int32_t>(t) ? splat(-erase[t]) * load(at) : Vector{});
    });
    for (Index t = 0; t < rows; t++) scale[t] = -erase[t] * from_start[t];
    scale_rows(key, scale, rows, keys, erased_key);
    multiply<Solve::LOWER>({value, values, rows, values / LANES, value},
                           {{erased_key, keys, 1, memory, values, job.keys},
                            {erasing, width, 1, value, values, steps, Span::BEFORE}});
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
