// The backward pass: the time loop from the last step to the first.
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

  // What a part keeps from step to step: the gradients of the state (`carry`, and `carry_cell` for c of an LSTM), the
  // deltas, and for each row a pointer to h_{t-1} (`previous`) and the place of its deltas in this step (`current`) and
  // in the step after it (`next`); -1 for a row in the padding.
  struct Workspace {
    D deltas;
    Index width, *current, *next, *rows;
    float *carry, *carry_cell;
    const float** previous;

    Workspace(Arena& arena, const Shape& shape, Rows part) : deltas(arena, shape, part), width(padded(shape.hidden)) {
      const Index count = part.count();
      current = arena.take<Index>(count);
      next = arena.take<Index>(count);
      rows = arena.take<Index>(count);
      carry = arena.take<float>(count * width);
      carry_cell = arena.take<float>(Cell::STATES > 1 ? count * width : 0);
      previous = arena.take<const float*>(count);
    }
  };

 public:
  static std::size_t shared(const Shape& shape) { return bytes_of<Packed>(shape); }
  static std::size_t workspace(const Shape& shape, Rows rows) { return bytes_of<Workspace>(shape, rows); }

  static std::size_t sums(const Shape& shape) { return static_cast<std::size_t>(D::sums(shape)) * sizeof(float); }

  static void pack(const Backward& job, char* shared, Share share) {
    Arena arena(shared);
    const Packed to(arena, job.shape);
    const Index hidden = job.shape.hidden, inputs = job.shape.inputs;
    pack_transposed<Cell, Cell::FIRST_RECURRENT>(job.weights.w_h, hidden, hidden, share.cut(tiles(hidden)),
                                                 to.recurrent);
    if (job.dxs) {
      pack_transposed<Cell, Cell::FIRST_INPUT>(job.weights.w_x, inputs, hidden, share.cut(tiles(inputs)), to.input);
    }
  }

  static void run(const Backward& job, const char* shared, char* workspace, char* sums, Rows rows) {
    Arena weights(const_cast<char*>(shared)), arena(workspace);
    const BackwardLoop loop{job, Packed(weights, job.shape), Workspace(arena, job.shape, rows),
                            reinterpret_cast<float*>(sums), rows};
    loop.run_steps();
  }

  static void sum(const Backward& job, const char* sums, Index parts, Share share) {
    D::sum(job, sums, parts, share);
  }

 private:
  const Backward& job_;
  const Packed packed_;
  const Workspace work_;
  float* const sums_;
  const Rows rows_;

  BackwardLoop(const Backward& job, Packed packed, Workspace work, float* sums, Rows rows)
      : job_(job), packed_(packed), work_(work), sums_(sums), rows_(rows) {}

  void run_steps() const {
    const Shape& shape = job_.shape;
    const std::uint8_t* reset = nullptr;  // of the step after this one
    bool overwrite = true;
    start();
    for (Index s = shape.time - 1; s >= 0; s--) {
      const Index t = shape.step(s);
      if (work_.deltas.full()) {
        flush(overwrite);
        overwrite = false;
      }
      locate_rows(s);
      backward_step(t, reset);
      reset = job_.masks.reset ? job_.masks.reset + t * shape.batch : nullptr;
      std::memcpy(work_.next, work_.current, static_cast<std::size_t>(rows_.count()) * sizeof(Index));
    }
    flush(overwrite);
    backward_step(-1, reset);
  }

  // Starts from the gradients of the final state, with no deltas and a zero gradient of the reset state.
  void start() const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, count = rows_.count();
    const auto clear = [](float* at, Index floats) {
      std::memset(at, 0, static_cast<std::size_t>(floats) * sizeof(float));
    };
    work_.deltas.clear();
    for (Index r = 0; r < count; r++) work_.next[r] = -1;
    for (int i = 0; i < Cell::STATES; i++) {
      float* carry = i == 0 ? work_.carry : work_.carry_cell;
      clear(carry, count * work_.width);
      for (Index r = rows_.first; r < rows_.last; r++) {
        const Index at = i * size + r * hidden;
        if (job_.dfinal) {
          std::memcpy(carry + (r - rows_.first) * work_.width, job_.dfinal + at,
                      static_cast<std::size_t>(hidden) * sizeof(float));
        }
        if (job_.dreset_state) clear(job_.dreset_state + at, hidden);
      }
    }
  }

  // Finds h_{t-1} of each row in step `s`, and a place for its deltas. This is the rule of jaxrnn/_core/masks.py,
  // written again for speed; tests/native/test_native.py::test_equals_scan_in_float64 holds the two equal.
  void locate_rows(Index s) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, inputs = shape.inputs, start = shape.step(s) * shape.batch;
    const float* last_h = s == 0 ? job_.state : job_.ys + shape.step(s - 1) * shape.batch * hidden;
    for (Index r = rows_.first; r < rows_.last; r++) {
      const Index i = r - rows_.first;
      if (job_.masks.valid && !job_.masks.valid[start + r]) {
        work_.current[i] = -1;
        if (job_.dxs) std::memset(job_.dxs + (start + r) * inputs, 0, static_cast<std::size_t>(inputs) * sizeof(float));
        continue;
      }
      const bool reset = job_.masks.reset && job_.masks.reset[start + r];
      work_.previous[i] = (reset ? job_.masks.reset_state : last_h) + r * hidden;
      work_.current[i] = work_.deltas.place(i, work_.previous[i], job_.xs + (start + r) * inputs);
    }
  }

  void flush(bool overwrite) const {
    work_.deltas.flush(job_, packed_.input, sums_, overwrite);
    for (Index i = 0; i < rows_.count(); i++) {
      if (work_.next[i] >= 0) work_.next[i] = work_.deltas.preserve(i, work_.next[i]);
    }
  }

  // Differentiates step t; t = -1 stands for the initial state. Only rows that were valid in the next step need a
  // matmul.
  void backward_step(Index t, const std::uint8_t* reset) const {
    const Index hidden = job_.shape.hidden;
    Index count = 0;
    for (Index r = rows_.first; r < rows_.last; r++) {
      if (work_.next[r - rows_.first] >= 0) {
        work_.rows[count++] = r;
      } else {
        for (Index unit = 0; unit < hidden; unit += LANES) backward_units(t, reset, r, unit, Vector{});
      }
    }
    for (Index tile = 0; tile < tiles(hidden); tile++) {
      in_blocks({0, count}, [&](Index i, auto m) { backward_tile<decltype(m)::value>(t, reset, i, tile); });
    }
  }

  // Differentiates step t of M of these rows, from number `i` on, for the units of one tile.
  template <int M>
  void backward_tile(Index t, const std::uint8_t* reset, Index i, Index tile) const {
    const Index panels = P::count(job_.shape.hidden);
    Vector acc[M][4] = {};
    const float* a[M];
    UNROLL for (int m = 0; m < M; m++) {
      a[m] = work_.deltas.at(0, work_.next[work_.rows[i + m] - rows_.first]) + Cell::FIRST_RECURRENT * LANES;
    }
    const float* block = packed_.recurrent + tile * panels * D::DEPTH * TILE;
    for (Index panel = 0; panel < panels; panel++, block += D::DEPTH * TILE) {
      accumulate<0, 4>(acc, a, 1, block, TILE, D::DEPTH);
      UNROLL for (int m = 0; m < M; m++) a[m] += work_.deltas.next();
    }
    UNROLL for (int m = 0; m < M; m++) {
      UNROLL for (int u = 0; u < 4; u++) {
        const Index unit = tile * TILE + u * LANES;
        if (unit < job_.shape.hidden) backward_units(t, reset, work_.rows[i + m], unit, acc[m][u]);
      }
    }
  }

  // Differentiates step t of one vector of units; `d` is the gradient of h_t through the weights of the next step.
  __attribute__((always_inline)) void backward_units(Index t, const std::uint8_t* reset, Index row, Index unit,
                                              Vector d) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, size = shape.batch * hidden, lanes = hidden - unit, at = row * hidden + unit;
    const Index i = row - rows_.first, at_carry = i * work_.width + unit;
    d += load(work_.carry + at_carry);
    Vector dc = Cell::STATES > 1 ? load(work_.carry_cell + at_carry) : Vector{};
    if (reset && reset[row]) {
      add_to(job_.dreset_state + at, d, lanes);
      if (Cell::STATES > 1) add_to(job_.dreset_state + size + at, dc, lanes);
      d = dc = Vector{};
    }
    if (t < 0) {
      store(job_.dstate + at, d, lanes);
      if (Cell::STATES > 1) store(job_.dstate + size + at, dc, lanes);
      return;
    }
    const Index step = t * shape.batch + row, to = work_.current[i];
    if (job_.dys) d += load(job_.dys + step * hidden + unit, lanes);
    if (to >= 0) {
      Vector residuals[Cell::RESIDUALS + 1], deltas[4];
      const float* from = job_.residuals + (step * padded(hidden) + unit) * Cell::RESIDUALS;
      UNROLL for (int k = 0; k < Cell::RESIDUALS; k++) residuals[k] = load(from + k * LANES);
      const Vector previous = load(work_.previous[i] + unit, lanes), h = load(job_.ys + step * hidden + unit, lanes);
      d = Cell::backward(d, dc, residuals, previous, h, deltas);
      const Index panel = unit / (Cell::UNITS * LANES);
      float* out = work_.deltas.at(panel, to) + (unit - panel * Cell::UNITS * LANES);
      UNROLL for (int v = 0; v < 4 / Cell::UNITS; v++) store(out + v * LANES, deltas[v]);
    }
    store(work_.carry + at_carry, d);
    if (Cell::STATES > 1) store(work_.carry_cell + at_carry, dc);
  }

  INLINE void add_to(float* to, Vector v, Index lanes) { store(to, load(to, lanes) + v, lanes); }
};

}  // namespace jaxrnn::JAXRNN_ISA
