// The plain sum over 27 taps.
//
// How it is fast. A task is one volume, a range of planes along D and a block of rows along H. It walks
// along D and copies each input row once, with what is applied to it, into a ring of planes,
// [channels / XS][W + 2][XS] with zeros at both ends, so that inner loops know no edges. A tile keeps
// V voxels times FB vectors of filters in registers; a voxel that was broadcast serves the three taps of
// its row. Rows are summed up, selected from and differentiated while they are in cache; with one
// channel the pre-activation is never stored.
#pragma once

#include <vector>

#include "rows.hpp"
#include "tile.hpp"

namespace conv3::detail {

// The weights in the order of use, and how a row is cut into tiles.
template <class T>
class Plan {
 public:
  // `flip` gives the transposed convolution, from the `in` filters to the `out` channels of kernel.
  Plan(const T* kernel, int64_t in, int64_t out, int64_t width, bool flip, const Parallel& parallel)
      : out_(out), lanes_(lanes_of<T>(out)), stride_(in == 1 ? 1 : lanes_of<T>(in)),
        blocks_(in / stride_), paired_(detail::paired<T>(out)), width_(width) {
    vectors_ = sizeof(T) == 4 && !paired_ && out % (2 * lanes_) == 0 ? 2 : 1;
    const int64_t numbers = paired_ ? 2 : 1, steps = paired_ ? half_of(width) : width;
    entry_ = 3 * stride_ * wide() * numbers;
    block_ = (steps + 2) * stride_ * numbers;
    weights_.resize(groups() * entries() * entry_);
    chunk_ = std::clamp<int64_t>(kChunkBytes / (entry_ * sizeof(T)), 1, entries());
    parallel(groups(), [&](int group) {
      const int64_t f = group * wide(), step = flip ? in : 1;
      for (int64_t tap = 0; tap < 27; tap++) {
        const T* from = kernel + (flip ? ((26 - tap) * out + f) * in : tap * in * out + f);
        T* to = weights_.data() + group * entries() * entry_ + (tap / 3 * in * 3 + tap % 3) * wide() * numbers;
        const int64_t next = 3 * wide() * numbers;  // from one channel to the next
        if (paired_)
          for (int64_t c = 0; c < in; c++, to += next, from += flip ? 1 : out)
            for (int i = 0; i < 16; i++) to[i] = from[i / 2 * step];
        else if (!flip)
          for (int64_t c = 0; c < in; c++, to += next, from += out) std::copy_n(from, wide(), to);
        else
          for (int64_t c0 = 0; c0 < in; c0 += kLanes)  // a few at a time, for the cache
            for (int64_t i = 0; i < wide(); i++)
              for (int64_t c = c0; c < std::min<int64_t>(in, c0 + kLanes); c++) to[c * next + i] = from[i * in + c];
      }
    });
    const int64_t most = most_of_tile();
    tiles_ = (steps + most - 1) / most;
    voxels_ = (steps + tiles_ - 1) / tiles_;
    large_ = steps - (voxels_ - 1) * tiles_;
    tile_ = pick(voxels_);
    smaller_ = pick(voxels_ - 1);
  }

  bool paired() const { return paired_; }             // whether it reads pairs
  int64_t wide() const { return vectors_ * lanes_; }  // filters of a tile
  int64_t groups() const { return out_ / wide(); }
  int64_t chunks() const { return (entries() + chunk_ - 1) / chunk_; }

  // The rows of taps of one chunk; `row(r)` is the padded input row of tap row r, or null outside.
  template <class Row>
  int taps_of(int64_t chunk, const Row& row, Tap<T>* taps) const {
    int count = 0;
    for (int64_t i = chunk * chunk_; i < std::min(entries(), (chunk + 1) * chunk_); i++)
      if (const T* x = row(i / blocks_))
        taps[count++] = {x + i % blocks_ * block_, weights_.data() + i * entry_};
    return count;
  }
  // Filters [group * wide, ...) of a whole row; `out` is the row, of out_ numbers a voxel, or in pairs.
  void row(Tap<T>* taps, int count, int64_t group, T* out, bool first, bool in_pairs) const {
    for (int i = 0; i < count; i++) taps[i].weights += group * entries() * entry_;
    const int64_t half = half_of(width_);
    int64_t w = 0;
    for (int64_t t = 0; t < tiles_; t++) {
      const bool large = t < large_;
      const Target<T> to = in_pairs ? Target<T>{out + (group * half + w) * 16, 16, 0, 0}
                                    : Target<T>{out + w * out_ + group * wide(), out_, half * out_, width_ - half - w};
      (large ? tile_ : smaller_)(taps, count, w, to, first);
      w += large ? voxels_ : voxels_ - 1;
    }
    for (int i = 0; i < count; i++) taps[i].weights -= group * entries() * entry_;
  }
  int64_t most_taps() const { return chunk_; }

 private:
  static constexpr int64_t kChunkBytes = 16384;  // of weights that stay in the first-level cache

  int64_t entries() const { return 9 * blocks_; }
  template <int L, int FB, bool P = false>
  Tile<T> pick_stride(int64_t v) const {
    if (stride_ == 1) return tile_of<T, L, FB, 1, P>(v);
    if (stride_ == 8) return tile_of<T, L, FB, 8, P>(v);
    if constexpr (sizeof(T) == 4 && kLanes == 16) return tile_of<T, L, FB, 16, P>(v);
    return nullptr;
  }
  Tile<T> pick(int64_t v) const {
    if (v < 1) return nullptr;
    if constexpr (sizeof(T) == 4 && kLanes == 16) {
      if (paired_) return pick_stride<16, 1, true>(v);
      return vectors_ == 1 ? pick_stride<16, 1>(v) : pick_stride<16, 2>(v);
    } else {
      if constexpr (sizeof(T) == 4)
        if (vectors_ == 2) return pick_stride<8, 2>(v);
      return pick_stride<8, 1>(v);
    }
  }
  int64_t most_of_tile() const {
    if (sizeof(T) == 8) return most_voxels<T, 8, 1>();
    return vectors_ == 1 ? most_voxels<T, kLanes, 1>() : most_voxels<T, kLanes, 2>();
  }

  int64_t out_, lanes_, vectors_ = 1, stride_, blocks_;
  bool paired_;
  int64_t width_, entry_ = 0, block_ = 0, chunk_ = 1;  // block_: from one block of channels to the next
  Array<T> weights_;
  int64_t tiles_ = 0, voxels_ = 0, large_ = 0;
  Tile<T> tile_ = nullptr, smaller_ = nullptr;
};

// Input rows of a few planes, [channels / XS][W + 2][XS] each, with a voxel of zeros at both ends.
template <class T>
class Ring {
 public:
  static constexpr int kDeep = 4;  // planes; a power of two, and all that a loop holds at once
  // `paired`: rows are held as pairs too.
  Ring(int64_t channels, int64_t width, int64_t rows, bool paired)
      : stride_(channels == 1 ? 1 : lanes_of<T>(channels)), blocks_(channels / stride_), width_(width),
        rows_(rows), row_(channels * (width + 2) + kLanes), paired_row_(2 * channels * (half_of(width) + 2)),
        numbers_(kDeep * rows * row_ + kLanes), pairs_(paired ? kDeep * rows * paired_row_ : 0) {}

  // Row `r` (from 0) of plane `d`.
  T* at(int64_t d, int64_t r) { return numbers_.data() + ((d & (kDeep - 1)) * rows_ + r) * row_; }
  T* pairs(int64_t d, int64_t r) { return pairs_.data() + ((d & (kDeep - 1)) * rows_ + r) * paired_row_; }
  int64_t row() const { return row_; }
  int64_t paired_row() const { return paired_row_; }
  int64_t block() const { return (width_ + 2) * stride_; }  // from one block of channels to the next
  int64_t paired_block() const { return 2 * (half_of(width_) + 2) * stride_; }
  // Makes the pairs of a row that was filled.
  void pair(int64_t d, int64_t r) {
    if (pairs_.empty()) return;
    for (int64_t b = 0; b < blocks_; b++)
      pair_up(at(d, r) + b * block(), block(), half_of(width_) * stride_, paired_block() / 2,
              pairs(d, r) + b * paired_block());
  }
  // A row of the input, (W, channels), with the norm applied.
  void fill(T* to, const T* from, const Norm<T>& norm) const {
    if (blocks_ == 1 && !norm.mean) std::memcpy(to + stride_, from, sizeof(T) * width_ * stride_);
    else if (stride_ == 8) fill_row<8>(to + 8, block(), from, width_, blocks_, norm);
    else if constexpr (lanes_of<T>(16) == 16) fill_row<16>(to + 16, block(), from, width_, blocks_, norm);
  }

 private:
  int64_t stride_, blocks_, width_, rows_, row_, paired_row_;
  Array<T> numbers_, pairs_;
};

// A pointer to tap row r around row (d, h) of the ring whose rows start at `top`, or to its pairs; null
// outside of the volume.
template <class T>
auto rows_around(Ring<T>& ring, bool paired, const Shape& s, int64_t d, int64_t h, int64_t top) {
  return [&ring, paired, &s, d, h, top](int64_t r) -> const T* {
    const int64_t plane = d + r / 3 - 1, row = h + r % 3 - 1;
    if (plane < 0 || plane >= s.d || row < 0 || row >= s.h) return nullptr;
    return paired ? ring.pairs(plane, row - top) : ring.at(plane, row - top);
  };
}

// Adds sums over voxels, or over pairs of them, to a gradient of as many filters.
template <int L, bool P, class T>
inline void add_to(T* dk, Vector<T, L> sum) {
  if constexpr (P) store(dk, Half(load<8>(dk) + (first_of(sum) + second_of(sum))));
  else store(dk, Vector<T, L>(load<L>(dk) + sum));
}

// Adds to dk[t][c][f], for three taps t of a row, XC channels and L filters (P: of pairs), what some rows
// of `width` voxels give: the sum of x[w][c] * dz[w + 1 - t][f].
template <class T, int L, int XC, bool P>
void kernel_tile(const T* x, int64_t x_row, const T* dz, int64_t dz_row, int64_t rows, int64_t width,
                 const Shape& s, T* dk) {
  constexpr int kNumbers = P ? 2 : 1;
  Vector<T, L> sum[3][XC] = {};
  for (int64_t r = 0; r < rows; r++) {
    const T *xs = x + r * x_row, *g = dz + r * dz_row;
    Vector<T, L> before = load<L>(g), here = load<L>(g + L);
    for (int64_t w = 0; w < width; w++) {
      const Vector<T, L> after = load<L>(g + (w + 2) * L);
      CONV3_UNROLL for (int c = 0; c < XC; c++) {
        const Vector<T, L> voxel = voxel_at<L, P>(xs + (w * s.c + c) * kNumbers);
        sum[0][c] += voxel * after;
        sum[1][c] += voxel * here;
        sum[2][c] += voxel * before;
      }
      before = here;
      here = after;
    }
  }
  CONV3_UNROLL for (int t = 0; t < 3; t++) CONV3_UNROLL for (int c = 0; c < XC; c++)
      add_to<L, P>(dk + (t * s.c + c) * s.f, sum[t][c]);
}

// The same for one channel and R rows of taps: x are padded rows, dz one row of the ring.
template <class T, int L, int R, bool P>
void kernel_tile_of_one(const T* const* x, const T* dz, int64_t width, const Shape& s, T* const* dk) {
  constexpr int kNumbers = P ? 2 : 1;
  Vector<T, L> sum[R][3] = {}, before{}, here{};
  for (int64_t u = 0; u < width + 2; u++) {
    const Vector<T, L> after = u < width ? load<L>(dz + (u + 1) * L) : Vector<T, L>{};
    CONV3_UNROLL for (int r = 0; r < R; r++) {
      const Vector<T, L> voxel = voxel_at<L, P>(x[r] + u * kNumbers);
      sum[r][0] += voxel * after;
      sum[r][1] += voxel * here;
      sum[r][2] += voxel * before;
    }
    before = here;
    here = after;
  }
  CONV3_UNROLL for (int r = 0; r < R; r++) CONV3_UNROLL for (int t = 0; t < 3; t++)
      add_to<L, P>(dk[r] + t * s.f, sum[r][t]);
}

template <class T>
void forward_of_rows(const Forward<T>& a, const Parallel& parallel) {
  const Shape& s = a.s;
  const Plan<T> plan(a.kernel, s.c, s.f, s.w, false, parallel);
  const Cut cut(s, s.c, plan.groups(), sizeof(T), s.f);
  std::vector<Sums<T>> parts(a.mean ? s.n * cut.parts() : 0, Sums<T>(s.f));
  parallel(s.n * cut.parts() * cut.groups, [&](int index) {
    const Task task(cut, s, index);
    const bool in_pairs = plan.paired() && !a.z;
    const int64_t top = task.first_row - 1, numbers = (in_pairs ? 2 * half_of(s.w) : s.w) * s.f;
    const int64_t g0 = task.begin(plan.groups()), g1 = task.end(plan.groups());
    const int64_t f0 = g0 * plan.wide(), f1 = g1 * plan.wide();
    // Weights that do not stay in cache are used for a block's rows, others for two rows at a time.
    const int64_t together = plan.chunks() == 1 ? 2 : cut.rows;
    Ring<T> ring(s.c, s.w, cut.rows + 2, plan.paired());
    Array<T> scratch(a.z ? 0 : 2 * cut.rows * numbers);
    std::vector<Tap<T>> taps(plan.most_taps());
    auto read = [&](int64_t d) {
      if (d >= 0 && d < s.d)
        for (int64_t h = std::max<int64_t>(0, top); h < std::min(s.h, task.end_row + 1); h++) {
            ring.fill(ring.at(d, h - top), a.x + ((task.n * s.d + d) * s.h + h) * s.w * s.c, a.norm);
            ring.pair(d, h - top);
          }
    };
    Sums<T>* sums = a.mean ? &parts[task.part] : nullptr;
    read(task.first_plane - 1);
    read(task.first_plane);
    for (int64_t d = task.first_plane; d < task.end_plane; d += 2) {
      read(d + 1);
      read(d + 2);
      const int64_t planes = std::min<int64_t>(2, s.d - d);
      for (int64_t h0 = task.first_row; h0 < task.end_row; h0 += together) {
        const int64_t h1 = std::min(task.end_row, h0 + together);
        auto row = [&](int64_t p, int64_t h) {
          return a.z ? a.z + ((task.n * s.d + d + p) * s.h + h) * numbers
                     : scratch.data() + (p * cut.rows + h - h0) * numbers;
        };
        for (int64_t chunk = 0; chunk < plan.chunks(); chunk++)
          for (int64_t p = 0; p < planes; p++)
            for (int64_t h = h0; h < h1; h++) {
              const int count =
                  plan.taps_of(chunk, rows_around(ring, plan.paired(), s, d + p, h, top), taps.data());
              for (int64_t g = g0; g < g1; g++) plan.row(taps.data(), count, g, row(p, h), chunk == 0, in_pairs);
            }
        auto reduce = [&]<bool P>() {
          if (sums) sums->template add_rows<P>(row, planes, h0, h1, s, f0, f1);
          if (a.value && planes == 2) select_rows<P>(a, row, task.n, d, h0, h1, f0, f1);
        };
        if constexpr (paired<T>(8)) in_pairs ? reduce.template operator()<true>() : reduce.template operator()<false>();
        else reduce.template operator()<false>();
      }
    }
  });
  if (a.mean) write_moments(parts, cut, a);
}

// Backward for one channel: z is computed again, a row at a time. P: of pairs.
template <class T, int L, bool P>
void backward_of_one(const Backward<T>& a, const Parallel& parallel) {
  constexpr int kFilters = P ? L / 2 : L;  // of a vector
  const Shape& s = a.s;
  const Plan<T> plan(a.kernel, 1, s.f, s.w, false, parallel);
  const Cut cut(s, 1, 1, sizeof(T), 27 * s.f);
  const int64_t halo = a.dx ? 1 : 0;  // planes and rows of dz beside the task's own
  const int64_t size = a.dk ? 27 * s.f : 0;
  Array<T> parts(s.n * cut.parts() * size);
  parallel(s.n * cut.parts(), [&](int index) {
    const Task task(cut, s, index);
    Ring<T> ring(1, s.w, cut.rows + 2 + 2 * halo, P);
    Ring<T> dz(s.f, s.w, a.dx ? cut.rows + 2 * halo : 1, P);  // one row is enough for the kernel's gradient
    const int64_t x_top = task.first_row - 1 - halo, dz_top = task.first_row - halo;
    const int64_t first = std::max<int64_t>(0, task.first_plane - halo);
    const int64_t end = std::min(s.d, task.end_plane + halo);
    T* const dk = parts.data() + index * size;
    const int64_t steps = P ? 2 * half_of(s.w) : s.w;  // of a row, padded by two voxels or pairs of them
    Array<T> z(steps * s.f), nothing(steps + 4), waste(3 * s.f);
    std::vector<Tap<T>> taps(plan.most_taps());
    auto read = [&](int64_t d) {
      if (d >= 0 && d < s.d)
        for (int64_t h = std::max<int64_t>(0, x_top); h < std::min(s.h, task.end_row + 1 + halo); h++) {
          ring.fill(ring.at(d, h - x_top), a.x + ((task.n * s.d + d) * s.h + h) * s.w, a.norm);
          ring.pair(d, h - x_top);
        }
    };
    auto input_gradient = [&](int64_t d) {
      for (int64_t h = task.first_row; h < task.end_row; h++) {
        const auto around = rows_around(dz, false, s, d, h, dz_top);
        T* out = a.dx + ((task.n * s.d + d) * s.h + h) * s.w;
        for (int64_t w = 0; w < s.w; w++) {
          Vector<T, kFilters> sum{};
          for (int64_t r = 0; r < 9; r++)
            if (const T* g = around(r))
              for (int64_t f = 0; f < s.f; f += kFilters)
                for (int64_t t = 0; t < 3; t++)
                  sum += load<kFilters>(a.kernel + (26 - (3 * r + t)) * s.f + f) *
                         load<kFilters>(g + f / kFilters * dz.block() + (w + t) * kFilters);
          T total = 0;
          for (int i = 0; i < kFilters; i++) total += sum[i];
          out[w] = total;
        }
      }
    };
    read(first - 1);
    read(first);
    for (int64_t d = first; d < end; d++) {
      read(d + 1);
      for (int64_t h = std::max<int64_t>(0, dz_top); h < std::min(s.h, task.end_row + halo); h++) {
        const auto around = rows_around(ring, P, s, d, h, x_top);
        if (a.slope) {
          const int count = plan.taps_of(0, around, taps.data());
          for (int64_t g = 0; g < plan.groups(); g++) plan.row(taps.data(), count, g, z.data(), true, P);
        }
        const int64_t dz_plane = a.dx ? d : 0, dz_row = a.dx ? h - dz_top : 0;
        T* const voxels = dz.at(dz_plane, dz_row) + kFilters;
        if constexpr (P) {
          T* const pairs = dz.pairs(dz_plane, dz_row) + L;
          gradient_pairs(a, task.n, d, h, z.data(), dz.paired_block(), pairs);
          if (a.dx) unpair_row(pairs, dz.paired_block(), s, dz.block(), voxels);
        } else gradient_row<T, kFilters>(a, task.n, d, h, z.data(), dz.block(), voxels);
        if (!a.dk || h < task.first_row || h >= task.end_row) continue;
        if (d < task.first_plane || d >= task.end_plane) continue;
        const T* row = P ? dz.pairs(dz_plane, dz_row) : dz.at(dz_plane, dz_row);
        const int64_t block = P ? dz.paired_block() : dz.block(), width = P ? half_of(s.w) : s.w;
        const T* x[9];
        T* to[9];
        for (int64_t f = 0; f < s.f; f += kFilters) {
          for (int64_t r = 0; r < 9; r++) {
            const T* found = around(r);
            x[r] = found ? found : nothing.data();
            to[r] = (found ? dk + 3 * r * s.f : waste.data()) + f;
          }
          const T* g = row + f / kFilters * block;
          if (kRegisters == 32 && sizeof(T) == 4) kernel_tile_of_one<T, L, 9, P>(x, g, width, s, to);
          else for (int r = 0; r < 9; r += 3) kernel_tile_of_one<T, L, 3, P>(x + r, g, width, s, to + r);
        }
      }
      if (a.dx && d > task.first_plane) input_gradient(d - 1);
    }
    if (a.dx && end == task.end_plane) input_gradient(end - 1);
  });
  if (a.dk) write_kernel_gradient(parts, cut, a, parallel);
}

// Backward for 8k channels: both gradients from one ring of the gradient of z. P: of pairs.
template <class T, int L, bool P>
void backward_of_many(const Backward<T>& a, const Parallel& parallel) {
  constexpr int kChannels = kRegisters == 32 && sizeof(T) == 4 ? 8 : 4, kFilters = P ? L / 2 : L;
  const Shape& s = a.s;
  const Plan<T> plan(a.kernel, s.f, s.c, s.w, true, parallel);
  const Cut cut(s, s.f, s.f / kFilters, sizeof(T), 27 * s.c * s.f);
  const bool normed = a.norm.mean;
  const int64_t width = P ? half_of(s.w) : s.w, apart = width * s.c;
  const int64_t size = a.dk ? 27 * s.c * s.f : 0;
  Array<T> parts(s.n * cut.parts() * size);
  std::vector<std::vector<double>> sums(s.n * cut.parts(), std::vector<double>(normed ? 2 * s.c : 0));
  parallel(s.n * cut.parts() * cut.groups, [&](int index) {
    const Task task(cut, s, index);
    const int64_t top = task.first_row - 1, row = s.w * s.c;
    Ring<T> ring(s.f, s.w, cut.rows + 2, P || plan.paired());
    T* const dk = parts.data() + task.part * size;
    Array<T> activated(normed ? cut.rows * row : 0), pairs(P ? cut.rows * 2 * apart : 0);
    std::vector<Tap<T>> taps(plan.most_taps());
    const int64_t g0 = task.begin(plan.groups()), g1 = task.end(plan.groups());
    auto read = [&](int64_t d) {
      if (d >= 0 && d < s.d)
        for (int64_t h = std::max<int64_t>(0, top); h < std::min(s.h, task.end_row + 1); h++) {
          const T* z = a.z ? a.z + ((task.n * s.d + d) * s.h + h) * s.w * s.f : nullptr;
          gradient_row<T, kFilters>(a, task.n, d, h, z, ring.block(), ring.at(d, h - top) + kFilters);
          ring.pair(d, h - top);
        }
    };
    read(task.first_plane - 1);
    read(task.first_plane);
    for (int64_t d = task.first_plane; d < task.end_plane; d++) {
      read(d + 1);
      const int64_t begin = ((task.n * s.d + d) * s.h + task.first_row) * row;  // of the task's rows in x and dx
      const T *x = a.x + begin, *input = x;
      if (normed) {
        activate_rows(x, a.norm, s, task.end_row - task.first_row, activated.data());
        input = activated.data();
      }
      if (a.dx)
        for (int64_t chunk = 0; chunk < plan.chunks(); chunk++)
          for (int64_t h = task.first_row; h < task.end_row; h++) {
            const int count = plan.taps_of(chunk, rows_around(ring, plan.paired(), s, d, h, top), taps.data());
            T* out = a.dx + begin + (h - task.first_row) * row;
            for (int64_t g = g0; g < g1; g++) plan.row(taps.data(), count, g, out, chunk == 0, false);
            if (normed && chunk == plan.chunks() - 1)
              back_through_norm(x + (h - task.first_row) * row, a.norm, s, g0 * plan.wide(),
                                g1 * plan.wide(), out, sums[task.part].data());
          }
      if (!a.dk) continue;
      if (P)
        for (int64_t h = 0; h < task.end_row - task.first_row; h++)
          pair_up(input + h * row, row, apart, apart, pairs.data() + h * 2 * apart);
      const T* voxels = P ? pairs.data() : input;
      const int64_t x_row = P ? 2 * apart : row, block_size = P ? ring.paired_block() : ring.block();
      for (int64_t r = 0; r < 9; r++) {
        // Tap row r multiplies row (d, h) of x with row (d + 1 - r / 3, h + 1 - r % 3) of dz.
        const int64_t plane = d + 1 - r / 3, first = std::max(task.first_row, r % 3 - 1);
        const int64_t end = std::min(task.end_row, s.h - 1 + r % 3);
        if (plane < 0 || plane >= s.d || first >= end) continue;
        const T* x_rows = voxels + (first - task.first_row) * x_row;
        const int64_t ring_row = first + 1 - r % 3 - top;
        const T* g = P ? ring.pairs(plane, ring_row) : ring.at(plane, ring_row);
        for (int64_t block = task.begin(s.f / kFilters); block < task.end(s.f / kFilters); block++)
          for (int64_t c = 0; c < s.c; c += kChannels)
            kernel_tile<T, L, kChannels, P>(x_rows + c * (P ? 2 : 1), x_row, g + block * block_size,
                                            P ? ring.paired_row() : ring.row(), end - first, width, s,
                                            dk + (3 * r * s.c + c) * s.f + block * kFilters);
      }
    }
  });
  if (a.dk) write_kernel_gradient(parts, cut, a, parallel);
  if (normed && a.dx) write_norm_gradient(sums, cut, a);
}

template <class T>
void backward_of_rows(const Backward<T>& a, const Parallel& parallel) {
  auto run = [&]<int L, bool P>() {
    a.s.c == 1 ? backward_of_one<T, L, P>(a, parallel) : backward_of_many<T, L, P>(a, parallel);
  };
  if constexpr (!paired<T>(8)) run.template operator()<8, false>();
  else paired<T>(a.s.f) ? run.template operator()<16, true>() : run.template operator()<16, false>();
}

}  // namespace conv3::detail
