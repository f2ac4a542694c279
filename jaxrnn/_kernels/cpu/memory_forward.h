// The forward pass of a matrix memory: from chunk to chunk, for some pairs of a row and a head.
#pragma once
#include "memory_chunk.h"

namespace jaxrnn::JAXRNN_ISA {

struct MemoryForward {
  const Memory& job;
  Chunk chunk;
  float *read, *memories;

  MemoryForward(Arena& arena, const Memory& job) : job(job), chunk(arena, job) {
    read = arena.take<float>(chunk.width * chunk.values);
    memories = arena.take<float>(chunk.pairs_together() * chunk.keys * chunk.values);
  }

  // Runs over time for some pairs.
  void run(Rows pairs) {
    const Index size = chunk.keys * chunk.values, together = chunk.pairs_together();
    for (Index first = pairs.first; first < pairs.last; first += together) {
      const Index last = first + together < pairs.last ? first + together : pairs.last;
      for (Index p = first; p < last; p++) chunk.load_memory(job.memory, p, memories + (p - first) * size);
      for (Index i = 0; i < job.chunks(); i++) {
        for (Index p = first; p < last; p++) run_chunk(p, i, memories + (p - first) * size);
      }
      for (Index p = first; p < last; p++) chunk.store_memory(memories + (p - first) * size, job.final, p);
    }
  }

 private:
  // Reads of the memory, and updates it.
  void run_chunk(Index pair, Index index, float* memory) {
    Chunk& c = chunk;
    c.load_chunk(pair, index);
    if (job.kept) c.store_memory(memory, job.kept, index * job.pairs + pair);
    if (job.erase) c.solve(memory);
    c.decayed_products(c.query, c.products);
    scale_rows(c.query, c.from_start, c.rows, c.keys, c.query);
    scale_rows(c.key, c.to_end, c.rows, c.keys, c.key);
    multiply({read, c.values, c.rows, c.values / LANES},
             {{c.products, c.width, 1, c.value, c.values, c.steps, Span::UP_TO},
              {c.query, c.keys, 1, memory, c.values, job.keys}});
    multiply({memory, c.values, job.keys, c.values / LANES, memory, c.at_end()},
             {{c.key, 1, c.keys, c.value, c.values, c.steps}});
    c.store_steps(read, c.values, job.read, job.values);
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
