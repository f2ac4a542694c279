// The backward pass of a matrix memory: from the last chunk to the first, each computed again from the memory that the
// forward pass kept.
//
// A name that begins with d is a gradient of the loss. The gradient of total_t gathers what comes through every decay
// that it is in; those of the log decays are its sums from the end.
#pragma once
#include "memory_chunk.h"

namespace jaxrnn::JAXRNN_ISA {

struct MemoryBackward {
  const MemoryGradients& job;
  Chunk chunk;
  float *dread, *dvalue, *transposed_value, *dproducts, *decayed_key, *scaled, *dquery, *dkey, *more;
  float *memory, *transposed_memory, *transposed_dmemory, *dmemories, *dtotal, *derase;

  MemoryBackward(Arena& arena, const MemoryGradients& job) : job(job), chunk(arena, job.of) {
    const Index width = chunk.width, keys = chunk.keys, values = chunk.values;
    for (float** rows : {&dread, &dvalue, &transposed_value, &scaled}) *rows = arena.take<float>(width * values);
    for (float** rows : {&decayed_key, &dquery, &dkey, &more}) *rows = arena.take<float>(width * keys);
    for (float** one : {&memory, &transposed_memory, &transposed_dmemory}) *one = arena.take<float>(keys * values);
    dproducts = arena.take<float>(width * width);
    dtotal = arena.take<float>(width);
    derase = arena.take<float>(width);
    dmemories = arena.take<float>(chunk.pairs_together() * keys * values);
  }

  // Runs over time for some pairs.
  void run(Rows pairs) {
    const Index size = chunk.keys * chunk.values, together = chunk.pairs_together();
    for (Index first = pairs.first; first < pairs.last; first += together) {
      const Index last = first + together < pairs.last ? first + together : pairs.last;
      for (Index p = first; p < last; p++) chunk.load_memory(job.dfinal, p, dmemories + (p - first) * size);
      for (Index i = job.of.chunks() - 1; i >= 0; i--) {
        for (Index p = first; p < last; p++) run_chunk(p, i, dmemories + (p - first) * size);
      }
      for (Index p = first; p < last; p++) chunk.store_memory(dmemories + (p - first) * size, job.dmemory, p);
    }
  }

 private:
  void run_chunk(Index pair, Index index, float* dmemory) {
    Chunk& c = chunk;
    const Memory& of = job.of;
    c.load_chunk(pair, index);
    c.load_memory(of.kept, index * of.pairs + pair, memory);
    c.load_steps(job.dread, of.values, dread, c.values);
    if (of.erase) c.solve(memory);
    for (Index t = 0; t < c.width; t++) dtotal[t] = derase[t] = 0;
    transpose(c.value, c.values, padded(c.steps, GRAIN), c.values, transposed_value, c.width);
    transpose(memory, c.values, c.keys, c.values, transposed_memory, c.keys);
    transpose(dmemory, c.values, c.keys, c.values, transposed_dmemory, c.keys);
    differentiate_products();
    differentiate_value(dmemory);
    differentiate_query();
    differentiate_key();
    if (of.erase) differentiate_erasing();
    dtotal[c.steps - 1] += c.at_end() * dot(memory, dmemory, c.keys * c.values);
    differentiate_memory(dmemory);
    c.store_steps(dquery, c.keys, job.dquery, of.keys);
    c.store_steps(dkey, c.keys, job.dkey, of.keys);
    c.store_steps(dvalue, c.values, job.dvalue, of.values);
    store_numbers();
  }

  INLINE float dot(const float* a, const float* b, Index count) {
    Vector sum{};
    for (Index i = 0; i < count; i += LANES) sum += load(a + i) * load(b + i);
    return sum_of(sum);
  }

  // Adds to dtotal what a decayed product x_ts with the gradient y_ts brings, x y for s < t: to total_t, from total_s.
  void add_to_total(const float* x, const float* y) {
    const Index width = chunk.width;
    for (Index t = 0; t < chunk.steps; t++) {
      Vector row{};
      for (Index s = 0; s < t; s += LANES) {
        const Vector both = load(x + t * width + s) * load(y + t * width + s);
        const Vector part = lanes_from(s) < static_cast<std::int32_t>(t) ? both : Vector{};
        row += part;
        store(dtotal + s, load(dtotal + s) - part);
      }
      dtotal[t] += sum_of(row);
    }
  }

  // Leaves D_ts (q_t . k_s) in `products`, and D_ts (dread_t . u_s) in `dproducts`.
  void differentiate_products() {
    Chunk& c = chunk;
    c.decayed_products(c.query, c.products);
    multiply({dproducts, c.width, c.rows, c.vectors(), nullptr, 1, true},
             {{dread, c.values, 1, transposed_value, c.width, job.of.values}});
    add_to_total(c.products, dproducts);
    decay_lower(dproducts);
  }

  void decay_lower(float* products) {
    const Index width = chunk.width;
    each_lower(chunk.rows, [&](Index t, Index s) {
      float* at = products + t * width + s;
      store(at, load(at) * load(chunk.decay + t * width + s));
    });
  }

  // Computes the gradient of u, and from it that of v.
  void differentiate_value(const float* dmemory) {
    Chunk& c = chunk;
    scale_rows(c.key, c.to_end, c.rows, c.keys, decayed_key);
    const Sums sums{dvalue, c.values, c.rows, c.values / LANES};
    const Factor read{c.products, 1, c.width, dread, c.values, c.steps, Span::FROM};
    const Factor written{decayed_key, c.keys, 1, dmemory, c.values, job.of.keys};
    if (!job.of.erase) return multiply(sums, {read, written});
    multiply<Solve::UPPER>(sums, {read, written, {c.erasing, 1, c.width, dvalue, c.values, c.steps, Span::AFTER}});
  }

  void differentiate_query() {
    Chunk& c = chunk;
    scale_rows(dread, c.from_start, c.rows, c.values, dread);
    multiply({dquery, c.keys, c.rows, c.keys / LANES},
             {{dread, c.values, 1, transposed_memory, c.keys, job.of.values}});
    for (Index t = 0; t < c.steps; t++) dtotal[t] += dot(c.query + t * c.keys, dquery + t * c.keys, c.keys);
    multiply({dquery, c.keys, c.rows, c.keys / LANES, dquery},
             {{dproducts, c.width, 1, c.key, c.keys, c.steps, Span::UP_TO}});
  }

  void differentiate_key() {
    Chunk& c = chunk;
    multiply({dkey, c.keys, c.rows, c.keys / LANES},
             {{c.value, c.values, 1, transposed_dmemory, c.keys, job.of.values}});
    scale_rows(dkey, c.to_end, c.rows, c.keys, dkey);
    for (Index t = 0; t < c.steps; t++) {
      const float part = dot(c.key + t * c.keys, dkey + t * c.keys, c.keys);
      dtotal[t] -= part;
      dtotal[c.steps - 1] += part;
    }
    multiply({dkey, c.keys, c.rows, c.keys / LANES, dkey},
             {{dproducts, 1, c.width, c.query, c.keys, c.steps, Span::FROM}});
  }

  // Adds what comes through u = v - erase (...). With `more` = -e_t S dv_t and M_ts = -D_ts (dv_t . u_s), s < t, the
  // gradient of erase_t is k_t . (more_t + sum over s of M_ts k_s).
  void differentiate_erasing() {
    Chunk& c = chunk;
    const Index width = c.width, keys = c.keys, rows = c.rows;
    multiply({dproducts, width, rows, c.vectors(), nullptr, 1, true},
             {{dvalue, c.values, 1, transposed_value, width, job.of.values}});
    add_to_total(c.erasing, dproducts);
    each_lower(rows, [&](Index t, Index s) {
      float* at = dproducts + t * width + s;
      const Vector both = load(at) * load(c.decay + t * width + s);
      store(at, lanes_from(s) < static_cast<std::int32_t>(t) ? -both : Vector{});
    });
    for (Index t = 0; t < rows; t++) c.scale[t] = -c.from_start[t];
    scale_rows(dvalue, c.scale, rows, c.values, scaled);
    multiply({more, keys, rows, keys / LANES}, {{scaled, c.values, 1, transposed_memory, keys, job.of.values}});
    for (Index t = 0; t < c.steps; t++) dtotal[t] += c.erase[t] * dot(c.key + t * keys, more + t * keys, keys);
    multiply({more, keys, rows, keys / LANES, more}, {{dproducts, width, 1, c.key, keys, c.steps, Span::UP_TO}});
    for (Index t = 0; t < c.steps; t++) derase[t] = dot(c.key + t * keys, more + t * keys, keys);
    scale_rows(more, c.erase, rows, keys, more);
    for (Index i = 0; i < rows * keys; i += LANES) store(dkey + i, load(dkey + i) + load(more + i));
    scale_rows(c.key, c.erase, rows, keys, decayed_key);
    multiply({dkey, keys, rows, keys / LANES, dkey}, {{dproducts, 1, width, decayed_key, keys, c.steps, Span::FROM}});
    scale_rows(scaled, c.erase, rows, c.values, scaled);
  }

  // Computes the gradient of the memory before the chunk. `dread` and `scaled` are multiplied by their decays.
  void differentiate_memory(float* dmemory) {
    Chunk& c = chunk;
    const Sums sums{dmemory, c.values, job.of.keys, c.values / LANES, dmemory, c.at_end()};
    const Factor read{c.query, 1, c.keys, dread, c.values, c.steps};
    if (!job.of.erase) return multiply(sums, {read});
    multiply(sums, {read, {c.key, 1, c.keys, scaled, c.values, c.steps}});
  }

  // Stores the gradients of log decays and of `erase`.
  void store_numbers() {
    const Memory& of = job.of;
    float *ddecay = chunk.at(job.dlog_decay, 1), *to = of.erase ? chunk.at(job.derase, 1) : nullptr;
    double sum = 0;
    for (Index t = chunk.steps - 1; t >= 0; t--) {
      sum += dtotal[t];
      ddecay[t * of.pairs] = static_cast<float>(sum);
      if (to) to[t * of.pairs] = derase[t];
    }
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
