// What the forward pass keeps in memory: packed weights, and the workspace of a part of the batch.
#pragma once
#include "arena.h"
#include "cells.h"
#include "crew.h"
#include "panels.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell, class Engine>
struct ForwardWorkspace;

// A panel has the weights of h and then those of x, and the biases of the preactivations. `plane` and
// `panel_size` are elements from a part of the numbers, and from a panel, to the next.
template <class Cell, class Engine>
struct ForwardWeights {
  using P = Panels<Cell>;
  using Element = typename Engine::Element;
  static constexpr Index DEPTH_PACKED = 32;  // rows of weights that are packed together

  Element *recurrent, *input;
  Index plane, panel_size;
  float* bias;

  ForwardWeights(Arena& arena, const Shape& shape) {
    const Index panels = P::count(shape.hidden), of_h = Engine::packed(shape.hidden, Cell::WIDTH);
    plane = of_h + Engine::packed(shape.inputs, Cell::WIDTH);
    panel_size = plane * Engine::PLANES;
    recurrent = arena.take<Element>(panels * panel_size);
    input = recurrent + of_h;
    bias = arena.take<float>(panels * TILE);
  }

  // Whether the input weights are read once, for all the few inputs together: they need not be packed.
  static bool used_once(const Forward& job) {
    using Workspace = ForwardWorkspace<Cell, Engine>;
    const Shape& shape = job.shape;
    return Workspace::together(shape) == shape.time && shape.time * shape.batch <= 2 * Workspace::AHEAD &&
           Engine::template takes_weights<Cell>(job.weights.w_x, shape.hidden);
  }

  // Packs some rows of all panels in a round: the numbers of a row lie together, and threads that come late get their
  // share.
  void pack(const Forward& job, Crew& crew) const {
    const Index hidden = job.shape.hidden;
    const auto pack_weights = [&](auto first, Array weights, Index depth, Element* at) {
      for (Index k = 0; k < depth; k += DEPTH_PACKED) {
        const Rows rows{k, k + DEPTH_PACKED < depth ? k + DEPTH_PACKED : depth};
        crew([&](Share share) {
          const Rows panels = share.cut(P::count(hidden));
          for (Index panel = panels.first; panel < panels.last; panel++) {
            Engine::template pack<Cell, decltype(first)::value>(weights, rows, hidden, panel, at + panel * panel_size,
                                                                plane);
          }
        });
      }
    };
    pack_weights(Count<Cell::FIRST_RECURRENT>{}, job.weights.w_h, hidden, recurrent);
    if (!used_once(job)) pack_weights(Count<Cell::FIRST_INPUT>{}, job.weights.w_x, job.shape.inputs, input);
    for (Index panel = 0; panel < P::count(hidden); panel++) {
      for (int v = 0; v < 4; v++) {
        const Index unit = P::unit(panel, v);
        const Array from = v < Cell::FIRST_INPUT ? job.weights.local + v * hidden
                                                 : job.weights.b + Cell::GATE[v] * hidden;
        store(bias + panel * TILE + v * LANES, load(from + unit, hidden - unit));
      }
    }
  }
};

// What one thread of a part has for itself: the left operand [h_{t-1} | x_t] of the valid rows of this step; x is its
// second part, or the inputs of several steps. The sums of a panel.
template <class Element>
struct OwnOperands {
  Operand<Element> h, x;
  float* sums;
};

// What a part keeps from step to step: h_{t-1} and h_t of its rows in float32, which take turns, and c of an LSTM.
// `rows` lists the valid rows of this step. If `steps` is not zero, the inputs of so many steps are projected together,
// into `ahead`, and `slots` says where those of a row are.
template <class Cell, class Engine>
struct ForwardWorkspace {
  using P = Panels<Cell>;
  using Element = typename Engine::Element;
  using Own = OwnOperands<Element>;
  static constexpr Index SEGMENT = 64;                     // of an operand whose elements are contiguous
  static constexpr Index AHEAD = 24;                       // rows whose inputs are projected together if a part has few
  static constexpr Index MANY_AHEAD = 256, MIN_STEPS = 5;  // the same, and steps, if the weights fill the cache

  Index row, steps, slots_count;
  float *h[2], *c, *ahead;
  Index *rows, *slots;
  Own* own;

  ForwardWorkspace(Arena& arena, const Shape& shape, Rows part, Index threads)
      : row(state_row(shape.hidden)), steps(together(shape)) {
    const Index count = part.count(), panels = P::count(shape.hidden);
    slots_count = steps * count;
    for (float*& buffer : h) buffer = arena.take<float>(count * row);
    c = arena.take<float>((Cell::STATES - 1) * count * row);
    ahead = arena.take<float>(panels * Engine::padded_rows(slots_count) * TILE);
    rows = arena.take<Index>(count);
    slots = arena.take<Index>(slots_count);
    own = arena.take<Own>(threads);
    for (Index i = 0; i < threads; i++) {
      Own mine;
      mine.h = operand(arena, count, Engine::padded_depth(shape.hidden) + shape.inputs);
      mine.x = mine.h;
      mine.x.at += Engine::padded_depth(shape.hidden);
      if (steps > 0) mine.x = operand(arena, slots_count, shape.inputs);
      mine.sums = arena.take<float>(BLOCK * TILE);
      if (arena.real()) own[i] = mine;
    }
  }

  static Operand<Element> operand(Arena& arena, Index rows, Index depth) {
    const Index row = padded(Engine::padded_depth(depth), 32) + 32, plane = Engine::padded_rows(rows) * row;
    return {arena.take<Element>(plane * Engine::PLANES), row, SEGMENT, plane};
  }

  // Follows from the shape alone, since the order of a sum depends on it: any cut of the rows gives the same results.
  static Index together(const Shape& shape) {
    const Index weights = Cell::GATES * shape.hidden * (shape.inputs + shape.hidden);
    const Index bytes = weights * static_cast<Index>(sizeof(Element)) * Engine::PLANES;
    const Index few = 2 * AHEAD / (shape.batch + 1);                              // of two parts
    const Index many = 3 * bytes > caches().l2 ? MANY_AHEAD / shape.batch : 0;  // to read the weights less often
    const Index steps = few > many ? few : many >= MIN_STEPS ? many : 0;
    return steps < 2 ? 0 : steps < shape.time ? steps : shape.time;
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
