// The backward pass: the time loop from the last step to the first.
#pragma once
#include "deltas.h"

namespace jaxrnn::JAXRNN_ISA {

template <class Cell, class Engine>
class BackwardLoop {
  using P = Panels<Cell>;
  using D = Deltas<Cell, Engine>;
  using Element = typename Engine::Element;

  // The weights transposed, in tiles.
  struct Packed {
    Element *input, *recurrent;
    Index tile, plane;  // elements of a tile in one plane, and in all

    Packed(Arena& arena, const Shape& shape) {
      tile = P::count(shape.hidden) * D::DEPTH * TILE;
      plane = tile * Engine::PLANES;
      recurrent = arena.take<Element>(tiles(shape.hidden) * plane);
      input = arena.take<Element>(tiles(shape.inputs) * plane);
    }
  };

  // What a part keeps from step to step: the gradients of the state (`carry`) and of the reset state, the deltas, and
  // for each row h_{t-1} (`previous`), the place of its deltas in this step (`current`; -1 for a row in the padding),
  // and its number among the rows that were valid in the step after this one (`number`; -1 for others). `rows` and
  // `places` list these.
  struct Workspace {
    D deltas;
    Index row, *current, *number, *rows, *places;
    float *carry, *reset_state, *sums;
    Array* previous;

    Workspace(Arena& arena, const Shape& shape, Rows part, Index threads)
        : deltas(arena, shape, part, threads), row(state_row(shape.hidden)) {
      const Index count = part.count();
      current = arena.take<Index>(count);
      number = arena.take<Index>(count);
      rows = arena.take<Index>(count);
      places = arena.take<Index>(count);
      carry = arena.take<float>(Cell::STATES * count * row);
      reset_state = arena.take<float>(Cell::STATES * count * row);
      sums = arena.take<float>(threads * BLOCK * TILE);
      previous = arena.take<Array>(count);
    }
  };

  // The rows that were valid in the step after this one: how many, and the first place of their deltas.
  struct Next {
    Index count, place;
  };

 public:
  static std::size_t shared(const Shape& shape) { return bytes_of<Packed>(shape); }
  static std::size_t workspace(const Shape& shape, Rows rows, Index threads) {
    return bytes_of<Workspace>(shape, rows, threads);
  }

  static std::size_t sums(const Shape& shape) { return static_cast<std::size_t>(D::sums(shape)) * sizeof(float); }

  static void pack(const Backward& job, char* shared, Crew& crew) {
    Arena arena(shared);
    const Packed to(arena, job.shape);
    crew.equip(Engine::begin, Engine::end);
    const Index hidden = job.shape.hidden, inputs = job.shape.inputs, panels = P::count(hidden);
    for (Index panel = 0; panel < panels; panel++) {  // a round for each: threads that come late get their share
      crew([&](Share share) {
        Engine::template pack_transposed<Cell, Cell::FIRST_RECURRENT>(job.weights.w_h, hidden, hidden, panel,
                                                                      share.cut(tiles(hidden)), to.recurrent);
        if (!job.dxs) return;
        Engine::template pack_transposed<Cell, Cell::FIRST_INPUT>(job.weights.w_x, inputs, hidden, panel,
                                                                  share.cut(tiles(inputs)), to.input);
      });
    }
  }

  static void run(const Backward& job, const char* shared, char* workspace, char* sums, Rows rows,
                  Crew& crew) {
    Arena weights(const_cast<char*>(shared)), arena(workspace);
    const BackwardLoop loop{job, Packed(weights, job.shape), Workspace(arena, job.shape, rows, crew.limit()),
                            reinterpret_cast<float*>(sums), rows};
    crew.equip(Engine::begin, Engine::end);
    Engine::begin();
    loop.run_steps(crew);
    Engine::end();
  }

  static void sum(const Backward& job, const char* sums, Index parts, Crew& crew) {
    crew([&](Share share) { D::sum(job, sums, parts, share); });
  }

 private:
  const Backward& job_;
  const Packed packed_;
  const Workspace work_;
  float* const sums_;
  const Rows rows_;

  BackwardLoop(const Backward& job, Packed packed, Workspace work, float* sums, Rows rows)
      : job_(job), packed_(packed), work_(work), sums_(sums), rows_(rows) {}

  void run_steps(Crew& crew) const {
    const Shape& shape = job_.shape;
    const std::uint8_t* reset = nullptr;  // of the step after this one
    Next next{0, 0};
    work_.deltas.empty();
    crew([&](Share share) { start(share); });
    for (Index s = shape.time - 1; s >= 0; s--) {
      const Index t = shape.step(s);
      if (work_.deltas.full()) {
        next.place = work_.deltas.preserve(work_.places, next.count);
        flush(crew);
      }
      locate_rows(s);
      crew([&](Share share) { backward_step(t, reset, next, share); });
      reset = job_.masks.reset ? job_.masks.reset + t * shape.batch : nullptr;
      next = list_rows();
    }
    flush(crew);
    crew([&](Share share) { backward_step(-1, reset, next, share); });
  }

  // Returns the row of array i of a state.
  float* of_state(float* state, int i, Index row) const {
    return state + (i * rows_.count() + row - rows_.first) * work_.row;
  }

  // Starts from the gradients of the final state, with no deltas and a zero gradient of the reset state: a share of it.
  void start(Share share) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, groups = shape.groups > 1 ? rows_.count() * shape.groups / shape.batch : 1;
    const Rows of_sums = share.cut(D::sums(shape) * groups), rows = share.cut(rows_.count());
    work_.deltas.clear(share);
    std::memset(sums_ + of_sums.first, 0, static_cast<std::size_t>(of_sums.count()) * sizeof(float));
    for (Index r = rows_.first + rows.first; r < rows_.first + rows.last; r++) {
      work_.number[r - rows_.first] = -1;
      for (int i = 0; i < Cell::STATES; i++) {
        const Index at = (i * shape.batch + r) * hidden;
        for (Index unit = 0; unit < padded(hidden); unit += LANES) {
          const Index lanes = hidden - unit;
          store(of_state(work_.carry, i, r) + unit, job_.dfinal ? load(job_.dfinal + (at + unit), lanes) : Vector{});
          store(of_state(work_.reset_state, i, r) + unit, Vector{});
        }
      }
    }
  }

  // Finds h_{t-1} of each row in step `s`, and a place for its deltas. This is the rule of jaxrnn/_core/masks.py,
  // written again for speed; tests/native/test_native.py::test_equals_scan_in_float64 holds the two equal.
  void locate_rows(Index s) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, inputs = shape.inputs, start = shape.step(s) * shape.batch;
    const Array last_h = s == 0 ? job_.state : job_.ys + shape.step(s - 1) * shape.batch * hidden;
    for (Index r = rows_.first; r < rows_.last; r++) {
      const Index i = r - rows_.first;
      const bool reset = job_.masks.reset && job_.masks.reset[start + r];
      work_.previous[i] = (reset ? job_.masks.reset_state : last_h) + r * hidden;
      if (job_.masks.valid && !job_.masks.valid[start + r]) {
        work_.current[i] = -1;
        for (Index k = 0; job_.dxs && k < inputs; k += LANES) {
          store(job_.dxs + ((start + r) * inputs + k), Vector{}, inputs - k);
        }
        continue;
      }
      work_.current[i] = work_.deltas.place(i, work_.previous[i], start + r);
    }
  }

  // Lists the valid rows of this step, for the step before it. Their places follow one another, but where the batch has
  // groups.
  Next list_rows() const {
    Index count = 0;
    for (Index i = 0; i < rows_.count(); i++) {
      work_.number[i] = work_.current[i] < 0 ? -1 : count;
      if (work_.current[i] < 0) continue;
      work_.rows[count] = rows_.first + i;
      work_.places[count++] = work_.current[i];
    }
    if (job_.shape.groups > 1) return {count, work_.deltas.preserve(work_.places, count)};
    return {count, count > 0 ? work_.places[0] : 0};
  }

  void flush(Crew& crew) const { work_.deltas.flush(job_, packed_.input, sums_, crew); }

  // Differentiates step t for a share of the units; t = -1 stands for the initial state. Only rows that were valid in
  // the next step need a matmul.
  void backward_step(Index t, const std::uint8_t* reset, Next next, Share share) const {
    const Index hidden = job_.shape.hidden, depth = P::count(hidden) * D::DEPTH;
    const Rows mine = share.cut(tiles(hidden));
    const Index last = mine.last * TILE < hidden ? mine.last * TILE : hidden;
    float* own = work_.sums + share.index * BLOCK * TILE;
    for (Index r = rows_.first; r < rows_.last; r++) {
      if (work_.number[r - rows_.first] >= 0) continue;
      for (Index unit = mine.first * TILE; unit < last; unit += LANES) backward_units<1>(t, reset, &r, unit, {});
    }
    for (Index tile = mine.first; tile < mine.last; tile++) {
      const Panel<Element> right{packed_.recurrent + tile * packed_.plane, 4, packed_.tile};
      in_blocks_of_sums({0, next.count}, [&](Rows block) {
        std::memset(own, 0, static_cast<std::size_t>(block.count() * TILE) * sizeof(float));
        Engine::template multiply<4>(work_.deltas.operand(next.place + block.first, Cell::FIRST_RECURRENT),
                                     block.count(), right, {depth, D::DEPTH}, own, job_.shape.batch == 1);
        const auto units = [&](Index i, auto count) {
          constexpr int N = decltype(count)::value;
          for (Index n = 0; n < TILE && tile * TILE + n < hidden; n += LANES) {
            const float* sums = own + (i - block.first) * TILE + n;
            const auto d = each<N>([&](int k) { return load(sums + k * TILE); });
            backward_units<N>(t, reset, work_.rows + i, tile * TILE + n, d);
          }
        };
        Index i = block.first;
        for (; i + ABREAST <= block.last; i += ABREAST) units(i, Count<ABREAST>{});
        for (; i < block.last; i++) units(i, Count<1>{});
      });
    }
  }

  // Differentiates step t of one vector of units of N rows; `d` is the gradient of h_t through the weights of the next
  // step.
  template <int N>
  void backward_units(Index t, const std::uint8_t* reset, const Index* rows, Index unit, Vectors<N> d) const {
    const Shape& shape = job_.shape;
    const Index hidden = shape.hidden, start = t * shape.batch, lanes = hidden - unit;
    Vectors<N> residuals[Cell::RESIDUALS + 1], deltas[4], dc, previous, h;
    UNROLL for (int n = 0; n < N; n++) {
      const Index row = rows[n];
      d.v[n] += load(of_state(work_.carry, 0, row) + unit);
      dc.v[n] = Cell::STATES > 1 ? load(of_state(work_.carry, Cell::STATES - 1, row) + unit) : Vector{};
      if (reset && reset[row]) {
        add_to(of_state(work_.reset_state, 0, row) + unit, d.v[n]);
        if (Cell::STATES > 1) add_to(of_state(work_.reset_state, Cell::STATES - 1, row) + unit, dc.v[n]);
        d.v[n] = dc.v[n] = Vector{};
      }
      if (t < 0) {
        store_gradients(row, unit, d.v[n], dc.v[n]);
        continue;
      }
      if (job_.dys) d.v[n] += load(job_.dys + ((start + row) * hidden + unit), lanes);
      const Array from = job_.residuals + ((start + row) * padded(hidden) + unit) * Cell::RESIDUALS;
      UNROLL for (int k = 0; k < Cell::RESIDUALS; k++) residuals[k].v[n] = load(from + k * LANES, lanes);
      previous.v[n] = load(work_.previous[row - rows_.first] + unit, lanes);
      h.v[n] = load(job_.ys + ((start + row) * hidden + unit), lanes);
    }
    if (t < 0) return;
    Vectors<N> before = dc;
    const Vectors<N> through = Cell::backward(d, before, residuals, previous, h, deltas);
    const Index panel = unit / (Cell::UNITS * LANES), first = unit / LANES - panel * Cell::UNITS;
    UNROLL for (int n = 0; n < N; n++) {
      const Index row = rows[n], to = work_.current[row - rows_.first];
      const bool valid = to >= 0;
      UNROLL for (int v = 0; valid && v < 4 / Cell::UNITS; v++) work_.deltas.set(panel, to, first + v, deltas[v].v[n]);
      store(of_state(work_.carry, 0, row) + unit, valid ? through.v[n] : d.v[n]);
      if (Cell::STATES > 1) store(of_state(work_.carry, 1, row) + unit, valid ? before.v[n] : dc.v[n]);
    }
  }

  INLINE void add_to(float* sum, Vector v) { store(sum, load(sum) + v); }

  // Stores the gradients of the initial state of a row, and of its reset state.
  void store_gradients(Index row, Index unit, Vector dh, Vector dc) const {
    const Index hidden = job_.shape.hidden, at = row * hidden + unit, size = job_.shape.batch * hidden;
    const Index lanes = hidden - unit;
    store(job_.dstate + at, dh, lanes);
    if (Cell::STATES > 1) store(job_.dstate + (size + at), dc, lanes);
    if (!job_.dreset_state) return;
    store(job_.dreset_state + at, load(of_state(work_.reset_state, 0, row) + unit), lanes);
    if (Cell::STATES < 2) return;
    store(job_.dreset_state + (size + at), load(of_state(work_.reset_state, Cell::STATES - 1, row) + unit), lanes);
  }
};

}  // namespace jaxrnn::JAXRNN_ISA
