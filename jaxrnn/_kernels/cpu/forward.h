// The forward pass: the time loop from the first step to the last.
#pragma once
#include "forward_memory.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell, class Engine>
class ForwardLoop {
  using P = Panels<Cell>;
  using Element = typename Engine::Element;
  using Weights = ForwardWeights<Cell, Engine>;
  using Workspace = ForwardWorkspace<Cell, Engine>;
  using Own = typename Workspace::Own;

 public:
  static std::size_t shared(const Shape& shape) { return bytes_of<Weights>(shape); }
  static std::size_t workspace(const Shape& shape, Rows rows, Index threads) {
    return bytes_of<Workspace>(shape, rows, threads);
  }

  static void pack(const Forward& job, char* shared, Crew& crew) {
    Arena arena(shared);
    crew.equip(Engine::begin, Engine::end);
    Weights(arena, job.shape).pack(job, crew);
  }

  static void run(const Forward& job, const char* shared, char* workspace, Rows rows, Crew& crew) {
    Arena weights(const_cast<char*>(shared)), arena(workspace);
    const ForwardLoop loop{job, Weights(weights, job.shape), Workspace(arena, job.shape, rows, crew.limit()), rows};
    crew.equip(Engine::begin, Engine::end);
    Engine::begin();
    loop.run_steps(crew);
    Engine::end();
  }

 private:
  const Forward& job_;
  const Weights packed_;
  const Workspace work_;
  const Rows rows_;
  const bool streams_;    // ys and the residuals past the caches
  const bool used_once_;  // the input weights, which are not packed then

  ForwardLoop(const Forward& job, Weights packed, Workspace work, Rows rows)
      : job_(job), packed_(packed), work_(work), rows_(rows), streams_(streams(job)),
        used_once_(Weights::used_once(job)) {}

  static bool streams(const Forward& job) {
    const Shape& shape = job.shape;
    const Index numbers = shape.time * shape.batch * padded(shape.hidden) * (job.residuals ? 1 + Cell::RESIDUALS : 1);
    const bool whole = shape.hidden % LANES == 0 && may_stream(job.ys);  // lines, each vector of units
    const bool exceeds = numbers * static_cast<Index>(sizeof(float)) > caches().l2;
    return exceeds && whole && (!job.residuals || may_stream(job.residuals));
  }

  void run_steps(Crew& crew) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden;
    for (Index r = rows_.first; r < rows_.last; r++) set_state(r);
    for (Index s = 0; s < shape.time; s++) {
      const bool projects = work_.steps > 0 && s % work_.steps == 0;
      const Index projected = projects ? list_slots(s) : 0;
      const Rows active{0, list_rows(s)};
      crew([&](Share share) {
        const Own& own = work_.own[share.index];
        const Rows panels = share.cut(P::count(hidden));
        if (projects) project_ahead(s, projected, panels, own);
        set_rows(s, active, panels, own);
        for (Index p = panels.first; p < panels.last; p++) {
          const Index panel = s % 2 ? panels.first + panels.last - 1 - p : p;  // to and fro: the last are in the cache
          in_blocks_of_sums(active, [&](Rows block) { step_panel(s, panel, block, own); });
        }
        if (streams_) end_stream();
      });
    }
    for (Index r = rows_.first; r < rows_.last; r++) {
      copy(h(shape.time, r), job_.final + r * hidden, hidden);
      if (Cell::STATES > 1) copy(c(r), job_.final + (shape.batch + r) * hidden, hidden);
    }
  }

  // Returns h of a row before step s, and its c.
  float* h(Index s, Index row) const { return work_.h[s % 2] + (row - rows_.first) * work_.row; }
  float* c(Index row) const { return work_.c + (row - rows_.first) * work_.row; }

  // Sets the state of a row to the initial one. The lanes past the last unit are zero: a NaN in them would spread.
  void set_state(Index row) const {
    const Shape& shape = job_.shape;
    for (int i = 0; i < Cell::STATES; i++) {
      float* to = i == 0 ? h(0, row) : c(row);
      const Array from = job_.state + (i * shape.batch + row) * shape.hidden;
      for (Index unit = 0; unit < padded(shape.hidden); unit += LANES) {
        store(to + unit, load(from + unit, shape.hidden - unit));
      }
    }
  }

  static void copy(const float* from, Array to, Index count) {
    for (Index i = 0; i < count; i += LANES) store(to + i, load(from + i), count - i);
  }

  bool valid(Index index) const { return !job_.masks.valid || job_.masks.valid[index]; }
  bool reset(Index index) const { return job_.masks.reset && job_.masks.reset[index]; }

  // Lists the valid rows of step `s`. Returns how many there are.
  Index list_rows(Index s) const {
    const Index start = job_.shape.step(s) * job_.shape.batch;
    Index count = 0;
    for (Index r = rows_.first; r < rows_.last; r++) {
      if (valid(start + r)) work_.rows[count++] = r;
    }
    return count;
  }

  // Copies h_{t-1} and the inputs of the listed rows to the left operand. A row in the padding holds its state: this
  // copies the units of some panels of it. This is the rule of jaxrnn/_core/masks.py, written again for speed;
  // tests/native/test_native.py::test_equals_scan_in_float64 holds the two equal.
  void set_rows(Index s, Rows listed, Rows panels, const Own& own) const {
    const Index hidden = job_.shape.hidden, start = job_.shape.step(s) * job_.shape.batch;
    for (Index i = listed.first; i < listed.last; i++) {
      const Index row = work_.rows[i];
      set_operand(own.h, i, previous(s, row), hidden);
      if (work_.steps == 0) set_inputs(own.x, i, start + row);  // after h, whose last vector may reach into them
    }
    if (listed.count() == rows_.count()) return;
    const Index first = P::unit(panels.first, 0), end = P::unit(panels.last, 0);
    for (Index row = rows_.first; row < rows_.last; row++) {
      if (valid(start + row)) continue;
      for (Index unit = first; unit < end && unit < hidden; unit += LANES) {
        const Vector held = load(h(s, row) + unit);
        store(h(s + 1, row) + unit, held);
        store(job_.ys + ((start + row) * hidden + unit), held, hidden - unit);
      }
    }
  }

  // Returns h_{t-1} of a row: in the state of the reset, or after the last step.
  Array previous(Index s, Index row) const {
    if (reset(job_.shape.step(s) * job_.shape.batch + row)) {
      return job_.masks.reset_state + row * job_.shape.hidden;
    }
    return {reinterpret_cast<char*>(h(s, row)), Dtype::F32};
  }

  // Sets row i of an operand. Its depth is padded with zeros.
  static void set_operand(Operand<Element> to, Index i, Array from, Index depth) {
    Element* at = to.from_row(i).at;
    Index k = 0;
    if (Engine::takes(from.dtype) && depth >= LANES) {
      k = depth / LANES * LANES;
      std::memcpy(at, from.data, static_cast<std::size_t>(k) * sizeof(Element));
    }
    for (; k < Engine::padded_depth(depth); k += LANES) {
      Engine::store_elements(at + k, to.plane, load(from + k, depth - k));
    }
  }

  void set_inputs(Operand<Element> to, Index i, Index index) const {
    set_operand(to, i, job_.xs + index * job_.shape.inputs, job_.shape.inputs);
  }

  // Returns where the inputs of a row are that are projected together from step `s` on, as an index into (T, B).
  Index ahead_of(Index s, Index place) const {
    return job_.shape.step(s + place / rows_.count()) * job_.shape.batch + rows_.first + place % rows_.count();
  }

  // Lists the inputs of step `s` and of the steps after it that are projected together. Returns how many there are.
  Index list_slots(Index s) const {
    const Index left = job_.shape.time - s, steps = work_.steps < left ? work_.steps : left;
    Index listed = 0;
    for (Index place = 0; place < work_.slots_count; place++) {
      const bool exists = place < steps * rows_.count() && valid(ahead_of(s, place));
      work_.slots[place] = exists ? listed++ : -1;
    }
    return listed;
  }

  // Projects the listed inputs for some panels.
  void project_ahead(Index s, Index listed, Rows panels, const Own& own) const {
    for (Index place = 0; place < work_.slots_count; place++) {
      if (work_.slots[place] >= 0) set_inputs(own.x, work_.slots[place], ahead_of(s, place));
    }
    for (Index panel = panels.first; panel < panels.last; panel++) {
      in_blocks_of_sums({0, listed}, [&](Rows block) {
        float* sums = ahead(block.first, panel);
        for (Index i = 0; i < block.count(); i++) copy_sums(packed_.bias + panel * TILE, sums + i * TILE);
        project(panel, block, own, sums, false);
      });
    }
  }

  float* ahead(Index slot, Index panel) const {
    return work_.ahead + (panel * Engine::padded_rows(work_.slots_count) + slot) * TILE;
  }

  static void copy_sums(const float* from, float* to) {
    UNROLL for (int v = 0; v < 4; v++) store(to + v * LANES, load(from + v * LANES));
  }

  // Adds x W_x of some rows of the operand.
  void project(Index panel, Rows rows, const Own& own, float* sums, bool alone) const {
    const Index depth = job_.shape.inputs;
    if (!used_once_) return multiply<Cell::FIRST_INPUT>(own.x, packed_.input, panel, depth, rows, sums, alone);
    const Operand<const Element> from{own.x.from_row(rows.first).at, own.x.row, own.x.segment, own.x.plane};
    Engine::template multiply_weights<Cell, Cell::FIRST_INPUT>(
        from, rows.count(), job_.weights.w_x, job_.shape.hidden, panel, {depth, Workspace::SEGMENT},
        sums + Cell::FIRST_INPUT * LANES, alone);
  }

  template <int FIRST>
  void multiply(Operand<Element> a, const Element* weights, Index panel, Index depth, Rows rows, float* sums,
                bool alone) const {
    const Operand<const Element> from{a.from_row(rows.first).at, a.row, a.segment, a.plane};
    const Panel<Element> right{weights + panel * packed_.panel_size, Cell::WIDTH, packed_.plane};
    Engine::template multiply<Cell::WIDTH>(from, rows.count(), right, {depth, Workspace::SEGMENT},
                                           sums + FIRST * LANES, alone);
  }

  // Computes step `s` of some of the valid rows for the units of one panel.
  void step_panel(Index s, Index panel, Rows rows, const Own& own) const {
    const bool alone = job_.shape.batch == 1;
    for (Index i = rows.first; i < rows.last; i++) {
      const Index place = work_.steps > 0 ? s % work_.steps * rows_.count() + work_.rows[i] - rows_.first : 0;
      copy_sums(work_.steps > 0 ? ahead(work_.slots[place], panel) : packed_.bias + panel * TILE,
                own.sums + (i - rows.first) * TILE);
    }
    const bool projected = work_.steps > 0, joint = Cell::FIRST_INPUT == Cell::FIRST_RECURRENT && !projected;
    const Index depth = joint ? Engine::padded_depth(job_.shape.hidden) + job_.shape.inputs : job_.shape.hidden;
    if (!projected && !joint) project(panel, rows, own, own.sums, alone);
    multiply<Cell::FIRST_RECURRENT>(own.h, packed_.recurrent, panel, depth, rows, own.sums, alone);
    for (int u = 0; u < Cell::UNITS; u++) {
      const Index unit = P::unit(panel, u);
      if (unit >= job_.shape.hidden) break;
      const float* sums = own.sums - rows.first * TILE + u * LANES;
      Index i = rows.first;
      for (; i + ABREAST <= rows.last; i += ABREAST) apply_gate<ABREAST>(s, i, unit, sums + i * TILE);
      for (; i < rows.last; i++) apply_gate<1>(s, i, unit, sums + i * TILE);
    }
  }

  // Computes the state of one vector of units of N valid rows, from the i-th on, from the sums, its preactivations.
  template <int N>
  ALWAYS_INLINE void apply_gate(Index s, Index i, Index unit, const float* sums) const {
    const Index hidden = job_.shape.hidden, lanes = hidden - unit, start = job_.shape.step(s) * job_.shape.batch;
    const auto of_row = [&](auto&& body) { UNROLL for (int n = 0; n < N; n++) body(n, work_.rows[i + n]); };
    Vectors<N> preactivations[4], residuals[Cell::RESIDUALS + 1], before, cell_state;
    of_row([&](int n, Index row) {
      UNROLL for (int v = 0; v < 4 / Cell::UNITS; v++) preactivations[v].v[n] = load(sums + n * TILE + v * LANES);
      before.v[n] = load(h(s, row) + unit);
      if (Cell::STATES > 1) cell_state.v[n] = load(c(row) + unit);
      if (!reset(start + row)) return;
      const Array from = job_.masks.reset_state + (row * hidden + unit);
      before.v[n] = load(from, lanes);
      if (Cell::STATES > 1) cell_state.v[n] = load(from + job_.shape.batch * hidden, lanes);
    });
    const Vectors<N> next = Cell::forward(preactivations, before, cell_state, residuals);
    of_row([&](int n, Index row) {
      if (Cell::STATES > 1) store(c(row) + unit, cell_state.v[n]);
      store(h(s + 1, row) + unit, next.v[n]);
      const Array y = job_.ys + ((start + row) * hidden + unit);
      streams_ ? stream(y, next.v[n]) : store(y, next.v[n], lanes);
      if (!job_.residuals) return;
      const Array to = job_.residuals + ((start + row) * padded(hidden) + unit) * Cell::RESIDUALS;
      UNROLL for (int k = 0; k < Cell::RESIDUALS; k++) {
        streams_ ? stream(to + k * LANES, residuals[k].v[n]) : store(to + k * LANES, residuals[k].v[n], LANES);
      }
    });
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
