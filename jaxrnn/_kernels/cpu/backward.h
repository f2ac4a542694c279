// The way back: the time loop from its last step to its first.
#pragma once
#include "deltas.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell>
class BackwardLoop {
  using P = Panels<Cell>;
  using D = Deltas<Cell>;

  // The weights transposed, in tiles.
  struct Packed {
    float *input, *recurrent;

    Packed(Arena& arena, const Shape& shape) {
      const Index panels = P::count(shape.hidden);
      recurrent = arena.take<float>(tiles(shape.hidden) * panels * D::DEPTH * TILE);
      input = arena.take<float>(tiles(shape.inputs) * panels * D::DEPTH * TILE);
    }
  };

  // What a part keeps from step to step: the gradients for its states so far, the deltas, and of every row where its h
  // comes from and where its deltas lie, of this step and of the one after it (-1: it is in the padding).
  struct Own {
    D deltas;
    Index width, *now, *after, *rows;
    float *carry, *carry_memory;
    const float** old;

    Own(Arena& arena, const Shape& shape, Rows part) : deltas(arena, shape, part), width(padded(shape.hidden)) {
      const Index count = part.count();
      now = arena.take<Index>(count);
      after = arena.take<Index>(count);
      rows = arena.take<Index>(count);
      carry = arena.take<float>(count * width);
      carry_memory = arena.take<float>(Cell::STATES > 1 ? count * width : 0);
      old = arena.take<const float*>(count);
    }
  };

 public:
  static std::size_t shared(const Shape& shape) { return bytes_of<Packed>(shape); }
  static std::size_t own(const Shape& shape, Rows rows) { return bytes_of<Own>(shape, rows); }

  static std::size_t sums(const Shape& shape) { return static_cast<std::size_t>(D::sums(shape)) * sizeof(float); }

  static void pack(const Backward& job, char* shared, Share share) {
    Arena arena(shared);
    const Packed to(arena, job.shape);
    const Index hidden = job.shape.hidden, inputs = job.shape.inputs;
    pack_transposed<Cell, Cell::STATE_TERM>(job.weights.w_h, hidden, hidden, share.cut(tiles(hidden)), to.recurrent);
    if (job.dxs) {
      pack_transposed<Cell, Cell::INPUT_TERM>(job.weights.w_x, inputs, hidden, share.cut(tiles(inputs)), to.input);
    }
  }

  static void run(const Backward& job, const char* shared, char* own, char* sums, Rows rows) {
    Arena weights(const_cast<char*>(shared)), arena(own);
    const BackwardLoop loop{job, Packed(weights, job.shape), Own(arena, job.shape, rows),
                            reinterpret_cast<float*>(sums), rows};
    loop.cross();
  }

  static void sum(const Backward& job, const char* sums, Index parts, Share share) {
    D::sum(job, sums, parts, share);
  }

 private:
  const Backward& job_;
  const Packed packed_;
  const Own own_;
  float* const sums_;
  const Rows rows_;

  BackwardLoop(const Backward& job, Packed packed, Own own, float* sums, Rows rows)
      : job_(job), packed_(packed), own_(own), sums_(sums), rows_(rows) {}

  void cross() const {
    const Shape& shape = job_.shape;
    const std::uint8_t* fresh = nullptr;  // of the step after the one that is crossed
    bool begin = true;
    start();
    for (Index s = shape.time - 1; s >= 0; s--) {
      const Index t = shape.step(s);
      if (own_.deltas.full()) {
        flush(begin);
        begin = false;
      }
      enter(s);
      step(t, fresh);
      fresh = job_.marks.fresh ? job_.marks.fresh + t * shape.batch : nullptr;
      std::memcpy(own_.after, own_.now, static_cast<std::size_t>(rows_.count()) * sizeof(Index));
    }
    flush(begin);
    step(-1, fresh);
  }

  // The gradients for the state after the last step; no deltas, and no gradient for the initial state.
  void start() const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, count = rows_.count();
    const auto clear = [](float* at, Index floats) {
      std::memset(at, 0, static_cast<std::size_t>(floats) * sizeof(float));
    };
    own_.deltas.clear();
    for (Index r = 0; r < count; r++) own_.after[r] = -1;
    for (int i = 0; i < Cell::STATES; i++) {
      float* carry = i == 0 ? own_.carry : own_.carry_memory;
      clear(carry, count * own_.width);
      for (Index r = rows_.first; r < rows_.last; r++) {
        const Index at = i * size + r * hidden;
        if (job_.dfinal) {
          std::memcpy(carry + (r - rows_.first) * own_.width, job_.dfinal + at,
                      static_cast<std::size_t>(hidden) * sizeof(float));
        }
        if (job_.dinitial) clear(job_.dinitial + at, hidden);
      }
    }
  }

  // Finds where the h of each row comes from in step `s`, and room for its deltas.
  void enter(Index s) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, inputs = shape.inputs, mark = shape.step(s) * shape.batch;
    const float* before = s == 0 ? job_.state : job_.ys + shape.step(s - 1) * shape.batch * hidden;
    for (Index r = rows_.first; r < rows_.last; r++) {
      const Index i = r - rows_.first;
      if (job_.marks.valid && !job_.marks.valid[mark + r]) {
        own_.now[i] = -1;
        if (job_.dxs) std::memset(job_.dxs + (mark + r) * inputs, 0, static_cast<std::size_t>(inputs) * sizeof(float));
        continue;
      }
      const bool fresh = job_.marks.fresh && job_.marks.fresh[mark + r];
      own_.old[i] = (fresh ? job_.marks.initial : before) + r * hidden;
      own_.now[i] = own_.deltas.place(i, own_.old[i], job_.xs + (mark + r) * inputs);
    }
  }

  void flush(bool begin) const {
    own_.deltas.flush(job_, packed_.input, sums_, begin);
    for (Index i = 0; i < rows_.count(); i++) {
      if (own_.after[i] >= 0) own_.after[i] = own_.deltas.outlast(i, own_.after[i]);
    }
  }

  // One step back, to before all steps where t is -1. Only rows that took the step after it need a matmul.
  void step(Index t, const std::uint8_t* fresh) const {
    const Index hidden = job_.shape.hidden;
    Index count = 0;
    for (Index r = rows_.first; r < rows_.last; r++) {
      if (own_.after[r - rows_.first] >= 0) {
        own_.rows[count++] = r;
      } else {
        for (Index unit = 0; unit < hidden; unit += LANES) through(t, fresh, r, unit, Vector{});
      }
    }
    for (Index tile = 0; tile < tiles(hidden); tile++) {
      in_blocks({0, count}, [&](Index i, auto m) { back<decltype(m)::value>(t, fresh, i, tile); });
    }
  }

  // One step back of M of these rows, from number `i` on, for the units of one tile.
  template <int M>
  void back(Index t, const std::uint8_t* fresh, Index i, Index tile) const {
    const Index panels = P::count(job_.shape.hidden);
    Vector acc[M][4] = {};
    const float* a[M];
    UNROLL for (int m = 0; m < M; m++) {
      a[m] = own_.deltas.at(0, own_.after[own_.rows[i + m] - rows_.first]) + Cell::STATE_TERM * LANES;
    }
    const float* block = packed_.recurrent + tile * panels * D::DEPTH * TILE;
    for (Index panel = 0; panel < panels; panel++, block += D::DEPTH * TILE) {
      accumulate<0, 4>(acc, a, 1, block, TILE, D::DEPTH);
      UNROLL for (int m = 0; m < M; m++) a[m] += own_.deltas.next();
    }
    UNROLL for (int m = 0; m < M; m++) {
      UNROLL for (int u = 0; u < 4; u++) {
        const Index unit = tile * TILE + u * LANES;
        if (unit < job_.shape.hidden) through(t, fresh, own_.rows[i + m], unit, acc[m][u]);
      }
    }
  }

  // Through one step of one vector of units; `d` is what came back through the weights of the step after it.
  __attribute__((always_inline)) void through(Index t, const std::uint8_t* fresh, Index row, Index unit,
                                              Vector d) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, lanes = hidden - unit, at = row * hidden + unit;
    const Index i = row - rows_.first, own = i * own_.width + unit;
    d += load(own_.carry + own);
    Vector dc = Cell::STATES > 1 ? load(own_.carry_memory + own) : Vector{};
    if (fresh && fresh[row]) {
      give(job_.dinitial + at, d, lanes);
      if (Cell::STATES > 1) give(job_.dinitial + size + at, dc, lanes);
      d = dc = Vector{};
    }
    if (t < 0) {
      store(job_.dstate + at, d, lanes);
      if (Cell::STATES > 1) store(job_.dstate + size + at, dc, lanes);
      return;
    }
    const Index step = t * shape.batch + row, to = own_.now[i];
    if (job_.dys) d += load(job_.dys + step * hidden + unit, lanes);
    if (to >= 0) {
      Vector kept[Cell::KEPT + 1], deltas[4];
      const float* from = job_.kept + (step * padded(hidden) + unit) * Cell::KEPT;
      UNROLL for (int k = 0; k < Cell::KEPT; k++) kept[k] = load(from + k * LANES);
      const Vector old = load(own_.old[i] + unit, lanes), h = load(job_.ys + step * hidden + unit, lanes);
      d = Cell::backward(d, dc, kept, old, h, deltas);
      const Index panel = unit / (Cell::UNITS * LANES);
      float* out = own_.deltas.at(panel, to) + (unit - panel * Cell::UNITS * LANES);
      UNROLL for (int v = 0; v < 4 / Cell::UNITS; v++) store(out + v * LANES, deltas[v]);
    }
    store(own_.carry + own, d);
    if (Cell::STATES > 1) store(own_.carry_memory + own, dc);
  }

  INLINE void give(float* to, Vector v, Index lanes) { store(to, load(to, lanes) + v, lanes); }
};

}  // namespace jaxrnn::JAXRNN_ISA
