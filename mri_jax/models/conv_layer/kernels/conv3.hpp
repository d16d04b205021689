// A 3 x 3 x 3 convolution with stride 1 and zero padding on one CPU, channels last (N, D, H, W, C),
// with what a conv layer needs beside it: BatchNorm and ReLU of the layer before, moments of the
// result a volume, the maximum of each 2 x 2 x 2 window (forward), and the way back through all of it
// (backward).
//
// How it is fast. A task is one volume, a range of planes along D and a block of rows along H. It walks
// along D and copies each input row once, with what is applied to it, into a ring of planes,
// [channels / XS][W + 2][XS] with zeros at both ends, so that inner loops know no edges. A tile keeps
// V voxels times FB vectors of filters in registers; a voxel that was broadcast serves the three taps of
// its row. Rows are summed up, selected from and differentiated while they are in cache; with one
// channel the pre-activation is never stored.
//
// What is exact. Work and partial sums are cut by shape alone, never by the number of threads: equal
// inputs give equal bytes. Every voxel adds its taps in one order, so that equal neighbourhoods tie to
// the last bit. Sums over voxels are taken in float a row (of the kernel's gradient: a part), then in
// double.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

namespace conv3 {

#if defined(__AVX512F__)
constexpr int kRegisters = 32, kLanes = 16;  // vector registers, floats in one
#elif defined(__aarch64__)
constexpr int kRegisters = 32, kLanes = 8;  // a vector of 8 floats takes two registers
#else
constexpr int kRegisters = 16, kLanes = 8;
#endif

// Runs task(0), ..., task(tasks - 1), on any threads in any order; returns when all have ended.
using Parallel = std::function<void(int tasks, const std::function<void(int)>& task)>;

struct Shape {
  int64_t n, d, h, w, c, f;
  int64_t voxels() const { return d * h * w; }
};

// BatchNorm and ReLU of the layer before: the convolution's input is the larger of 0 and
// factor * (x - mean) + bias. All null: it is x itself.
template <class T>
struct Norm {
  const T *mean, *factor, *bias;  // (c)
};

// z, value with offset, and mean with variance are computed where they are not null.
template <class T>
struct Forward {
  Shape s;
  const T* x;                   // (n, d, h, w, c)
  Norm<T> norm;
  const T *kernel, *sign;       // (3, 3, 3, c, f), (f)
  T* z;                         // (n, d, h, w, f)
  T* value;                     // (n, d / 2, h / 2, w / 2, f)
  int8_t* offset;               // as value: 4 * (d % 2) + 2 * (h % 2) + (w % 2) of the selected voxel
  T *mean, *variance;           // (n, f)
};

// The gradient of z is `selected` at the selected voxels (at every voxel where offset is null) plus
// constant + slope * z everywhere. z may be null where slope is, or where c is 1: it is then computed
// again. dx and dk may be null; dfactor and dbias are null where dx or the norm is.
template <class T>
struct Backward {
  Shape s;
  const T* x;
  Norm<T> norm;
  const T *kernel, *z, *selected;
  const int8_t* offset;
  const T *constant, *slope;  // (n, f), both null where the moments are not used
  T *dx, *dk;                 // as x and kernel
  T *dfactor, *dbias;         // (n, c), what each volume gives
};

namespace detail {

template <class T, int L>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * L)));
};
template <class T, int L>
using Vector = typename VectorOf<T, L>::type;
template <class T>
using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <int L, class T>
inline Vector<T, L> load(const T* p) {
  Vector<T, L> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T>
inline void store(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}
template <int L, class T>
inline Vector<T, L> all(T value) {
  return value - Vector<T, L>{};
}

// Without it GCC holds an address for every voxel in registers that the sums need.
#define CONV3_HIDE(pointer) asm("" : "+r"(pointer))
#define CONV3_UNROLL _Pragma("GCC unroll 32")

template <class T>
constexpr int lanes_of(int64_t filters) {
  return sizeof(T) == 4 && filters % kLanes == 0 ? kLanes : 8;
}

// Eight filters fill half a vector of 16 lanes. Then a row is worked on in two halves at once: a pair is
// voxel w and voxel w + half of one channel or filter, side by side.
template <class T>
constexpr bool paired(int64_t filters) {
  return sizeof(T) == 4 && kLanes == 16 && filters % 16;
}
constexpr int64_t half_of(int64_t width) { return (width + 1) / 2; }
using Pairs = Vector<uint64_t, 8>;
using Half = Vector<float, 8>;
inline Half first_of(Vector<float, 16> v) {
  return (Half)__builtin_convertvector((Pairs)v, Vector<uint32_t, 8>);
}
inline Half second_of(Vector<float, 16> v) {
  return (Half)__builtin_convertvector((Pairs)v >> 32, Vector<uint32_t, 8>);
}
inline Vector<float, 16> pairs_of(Half first, Half second) {
  return (Vector<float, 16>)(__builtin_convertvector((Vector<uint32_t, 8>)first, Pairs) |
                             __builtin_convertvector((Vector<uint32_t, 8>)second, Pairs) << 32);
}
// to[i] = (row[i], row[i + apart]), where a row of `numbers` numbers has no second: 0.
template <class T>
void pair_up(const T* row, int64_t numbers, int64_t apart, int64_t count, T* to) {
  const int64_t whole = std::min(count, numbers - apart);
  for (int64_t i = 0; i < whole; i++) to[2 * i] = row[i], to[2 * i + 1] = row[i + apart];
  for (int64_t i = whole; i < count; i++) to[2 * i] = row[i], to[2 * i + 1] = 0;
}
// A voxel, or with P a pair of them, in all lanes.
template <int L, bool P, class T>
inline Vector<T, L> voxel_at(const T* x) {
  if constexpr (P) {
    uint64_t both;
    std::memcpy(&both, x, sizeof both);
    return (Vector<T, L>)(both + Pairs{});
  } else return all<L>(*x);
}
// Voxels of a tile: what the registers hold beside three taps of weights and a broadcast voxel.
template <class T, int L, int FB>
constexpr int most_voxels() {
  if (sizeof(T) == 8) return 4;
  constexpr int taken = kLanes == 8 && kRegisters == 32 ? 2 : 1;
  return (kRegisters / taken - 3 * FB - 2) / FB > 1 ? (kRegisters / taken - 3 * FB - 2) / FB : 1;
}

// One row of taps: a padded input row and its weights, [XS][3][FB * L].
template <class T>
struct Tap {
  const T *x, *weights;
};
// Where a tile's sums go: `stride` numbers from voxel to voxel, and of pairs `second` numbers on, where
// only so many voxels are.
template <class T>
struct Target {
  T* out;
  int64_t stride, second, seconds;
};

// Adds taps to the sums of V voxels (P: pairs) from w0 on; `first` starts the sums at zero.
template <class T, int L, int FB, int XS, bool P, int V>
void tile(const Tap<T>* taps, int count, int64_t w0, const Target<T>& target, bool first) {
  constexpr int kNumbers = P ? 2 : 1;
  Vector<T, L> sum[V][FB];
  T* to = target.out;
  CONV3_UNROLL for (int v = 0; v < V; v++, to += target.stride) {
    CONV3_HIDE(to);
    CONV3_UNROLL for (int b = 0; b < FB; b++) {
      if (first) sum[v][b] = Vector<T, L>{};
      else if constexpr (P)
        sum[v][b] = pairs_of(load<8>(to), v < target.seconds ? load<8>(to + target.second) : Half{});
      else sum[v][b] = load<L>(to + b * L);
    }
  }
  for (int i = 0; i < count; i++) {
    const T *row = taps[i].x + w0 * XS * kNumbers, *weights = taps[i].weights;
    for (int c = 0; c < XS; c++) {
      Vector<T, L> tap[3][FB];
      const T* x = row + c * kNumbers;
      CONV3_HIDE(x);
      CONV3_UNROLL for (int t = 0; t < 3; t++) CONV3_UNROLL for (int b = 0; b < FB; b++)
          tap[t][b] = load<L>(weights + ((c * 3 + t) * FB + b) * L);
      CONV3_UNROLL for (int u = 0; u < V + 2; u++) {
        const Vector<T, L> voxel = voxel_at<L, P>(x + u * XS * kNumbers);
        CONV3_UNROLL for (int t = 0; t < 3; t++) if (u >= t && u - t < V)
            CONV3_UNROLL for (int b = 0; b < FB; b++) sum[u - t][b] += tap[t][b] * voxel;
      }
    }
  }
  to = target.out;
  CONV3_UNROLL for (int v = 0; v < V; v++, to += target.stride) {
    CONV3_HIDE(to);
    if constexpr (P) {
      store(to, first_of(sum[v][0]));
      if (v < target.seconds) store(to + target.second, second_of(sum[v][0]));
    } else CONV3_UNROLL for (int b = 0; b < FB; b++) store(to + b * L, sum[v][b]);
  }
}
template <class T>
using Tile = void (*)(const Tap<T>*, int, int64_t, const Target<T>&, bool);

template <class T, int L, int FB, int XS, bool P>
Tile<T> tile_of(int voxels) {
  return []<int... I>(int v, std::integer_sequence<int, I...>) {
    static constexpr Tile<T> tiles[] = {tile<T, L, FB, XS, P, I + 1>...};
    return tiles[v - 1];
  }(voxels, std::make_integer_sequence<int, most_voxels<T, L, FB>()>());
}

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
      T* to = weights_.data() + group * entries() * entry_;
      const int64_t step = flip ? in : 1;
      for (int64_t row = 0; row < 9; row++)
        for (int64_t c = 0; c < in; c++)
          for (int64_t tap = 3 * row; tap < 3 * row + 3; tap++, to += wide() * numbers) {
            const int64_t f = group * wide();
            const T* from = kernel + (flip ? ((26 - tap) * out + f) * in + c : (tap * in + c) * out + f);
            if (paired_) for (int i = 0; i < 16; i++) to[i] = from[i / 2 * step];
            else if (flip) for (int64_t i = 0; i < wide(); i++) to[i] = from[i * in];
            else std::copy_n(from, wide(), to);
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
  // Filters [group * wide, ...) of a whole row; `out` is the row, of out_ numbers a voxel.
  void row(Tap<T>* taps, int count, int64_t group, T* out, bool first) const {
    for (int i = 0; i < count; i++) taps[i].weights += group * entries() * entry_;
    int64_t w = 0;
    for (int64_t t = 0; t < tiles_; t++) {
      const bool large = t < large_;
      const int64_t half = half_of(width_);
      const Target<T> to{out + w * out_ + group * wide(), out_, half * out_, width_ - half - w};
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
  std::vector<T> weights_;
  int64_t tiles_ = 0, voxels_ = 0, large_ = 0;
  Tile<T> tile_ = nullptr, smaller_ = nullptr;
};

// BatchNorm and ReLU of L channels from c on.
template <class T, int L>
struct Activation {
  Vector<T, L> mean, factor, bias;
  Activation(const Norm<T>& norm, int64_t c)
      : mean(load<L>(norm.mean + c)), factor(load<L>(norm.factor + c)), bias(load<L>(norm.bias + c)) {}
  Vector<T, L> operator()(Vector<T, L> x) const {
    const Vector<T, L> y = factor * (x - mean) + bias;
    return y <= 0 ? Vector<T, L>{} : y;  // NaN stays NaN
  }
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
    else if (stride_ == 8) fill_blocks<8>(to, from, norm);
    else if constexpr (lanes_of<T>(16) == 16) fill_blocks<16>(to, from, norm);
  }

 private:
  template <int L>
  void fill_blocks(T* to, const T* from, const Norm<T>& norm) const {
    for (int64_t b = 0; b < blocks_; b++) {
      T* voxel = to + b * block() + L;
      const T* x = from + b * L;
      if (norm.mean) {
        const Activation<T, L> activation(norm, b * L);
        for (int64_t w = 0; w < width_; w++) store(voxel + w * L, activation(load<L>(x + w * blocks_ * L)));
      } else for (int64_t w = 0; w < width_; w++) store(voxel + w * L, load<L>(x + w * blocks_ * L));
    }
  }

  int64_t stride_, blocks_, width_, rows_, row_, paired_row_;
  std::vector<T> numbers_, pairs_;
};

// How a problem is cut into tasks: by its shape alone, and what is summed up by that of a volume.
struct Cut {
  int64_t rows, blocks;    // rows of a block, and blocks of a plane
  int64_t planes, depths;  // planes of a range, and ranges of a volume
  int64_t groups;          // groups of filters
  // `numbers`: what each part sums up by itself, of `number` bytes each.
  Cut(const Shape& s, int64_t ring_channels, int64_t tiles_of_filters, size_t number, int64_t numbers) {
    constexpr int64_t kRingBytes = 300000, kMostRows = 16, kFewestPlanes = 4, kParts = 32, kTasks = 16;
    constexpr int64_t kPartBytes = 16 << 20;  // of all parts of a volume
    const int64_t most = std::clamp<int64_t>(kPartBytes / (numbers * number), 1, kParts);
    const int64_t row = number * 4 * (s.w + 2) * ring_channels;
    cut(s.h, (s.h - 1) / (std::clamp<int64_t>(kRingBytes / row - 2, 2, kMostRows) / 2 * 2) + 1, rows, blocks);
    cut(s.d, std::clamp<int64_t>(most / blocks, 1, std::max<int64_t>(1, s.d / kFewestPlanes)), planes, depths);
    groups = std::clamp<int64_t>(kTasks / (s.n * parts()), 1, tiles_of_filters);
  }
  int64_t parts() const { return depths * blocks; }  // of a volume
  int64_t voxels(const Shape& s, int64_t part) const {
    const int64_t d = part / blocks * planes, h = part % blocks * rows;
    return std::min(planes, s.d - d) * std::min(rows, s.h - h) * s.w;
  }

 private:
  // Pieces of an even length, so that none cuts a window.
  static void cut(int64_t size, int64_t wanted, int64_t& length, int64_t& pieces) {
    length = ((size + wanted - 1) / wanted + 1) / 2 * 2;
    pieces = (size + length - 1) / length;
  }
};
struct Task {
  int64_t part, n, first_plane, end_plane, first_row, end_row, group, groups;
  Task(const Cut& cut, const Shape& s, int index)
      : part(index / cut.groups), n(part / cut.parts()),
        first_plane(part % cut.parts() / cut.blocks * cut.planes),
        end_plane(std::min(s.d, first_plane + cut.planes)), first_row(part % cut.blocks * cut.rows),
        end_row(std::min(s.h, first_row + cut.rows)), group(index % cut.groups), groups(cut.groups) {}
  // The part of `count` tiles that this task works on.
  int64_t begin(int64_t count) const { return count * group / groups; }
  int64_t end(int64_t count) const { return count * (group + 1) / groups; }
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

constexpr int kChains = 4;  // sums side by side: one addition after another would wait for each other

// Sums of z - shift and of its square over the voxels of one part, a number a filter.
template <class T>
struct Sums {
  std::vector<T> shift;
  std::vector<double> sum, square;
  explicit Sums(int64_t filters) : shift(filters), sum(filters), square(filters) {}
  void add(const T* row, const Shape& s, int64_t begin, int64_t end) {
    for (int64_t f = begin; f < end; f += 8) {
      const auto about = load<8>(shift.data() + f);
      Vector<T, 8> total[kChains] = {}, squares[kChains] = {};
      int64_t w = 0;
      auto add_voxel = [&](int chain) {
        const Vector<T, 8> apart = load<8>(row + (w + chain) * s.f + f) - about;
        total[chain] += apart;
        squares[chain] += apart * apart;
      };
      for (; w + kChains <= s.w; w += kChains)
        CONV3_UNROLL for (int chain = 0; chain < kChains; chain++) add_voxel(chain);
      for (; w < s.w; w++) add_voxel(0);
      for (int chain = 0; chain < kChains; chain++)
        for (int i = 0; i < 8; i++) sum[f + i] += total[chain][i], square[f + i] += squares[chain][i];
    }
  }
};

// Moments of each volume from the sums of its parts, without cancellation (Chan et al. 1983).
template <class T>
void write_moments(const std::vector<Sums<T>>& parts, const Cut& cut, const Forward<T>& a) {
  const Shape& s = a.s;
  for (int64_t n = 0; n < s.n; n++)
    for (int64_t f = 0; f < s.f; f++) {
      double count = 0, mean = 0, squares = 0;
      for (int64_t i = 0; i < cut.parts(); i++) {
        const Sums<T>& part = parts[n * cut.parts() + i];
        const double voxels = cut.voxels(s, i);
        const double apart = part.shift[f] + part.sum[f] / voxels - mean, all = count + voxels;
        squares += part.square[f] - part.sum[f] * part.sum[f] / voxels + apart * apart * count * voxels / all;
        mean += apart * voxels / all;
        count = all;
      }
      a.mean[n * s.f + f] = mean;
      // A negative rounding error is zero; NaN stays NaN.
      a.variance[n * s.f + f] = squares < 0 ? 0 : squares / count;
    }
}

// The first maximum of sign * z in each window of four rows; a later NaN wins, as in the plain form.
template <class T>
void select_row(const T* const rows[4], const Shape& s, const T* sign, int64_t begin, int64_t end,
                T* value, int8_t* offset) {
  typedef int8_t Bytes __attribute__((vector_size(8)));
  for (int64_t f = begin; f < end; f += 8) {
    const auto signs = load<8>(sign + f);
    for (int64_t w = 0; w < s.w / 2; w++) {
      const Vector<T, 8> first = load<8>(rows[0] + 2 * w * s.f + f);
      Vector<T, 8> chosen = first, best = first * signs;
      Vector<Integer<T>, 8> place{};
      CONV3_UNROLL for (int i = 1; i < 8; i++) {
        const Vector<T, 8> z = load<8>(rows[i / 2] + (2 * w + i % 2) * s.f + f), signed_z = z * signs;
        const auto wins = (signed_z > best) | (signed_z != signed_z);
        best = wins ? signed_z : best;
        chosen = wins ? z : chosen;
        place = wins ? Vector<Integer<T>, 8>{} + i : place;
      }
      store(value + w * s.f + f, Vector<T, 8>(signs == 0 ? first : chosen));
      store(offset + w * s.f + f, __builtin_convertvector(place, Bytes));
    }
  }
}

// The norm applied to some rows, (rows, W, C), as they lie.
template <class T>
void activate_rows(const T* x, const Norm<T>& norm, const Shape& s, int64_t rows, T* out) {
  for (int64_t c = 0; c < s.c; c += 8) {
    const Activation<T, 8> activation(norm, c);
    for (int64_t at = c; at < rows * s.w * s.c; at += s.c) store(out + at, activation(load<8>(x + at)));
  }
}

// The gradient of z in row (d, h) of a volume, into a row of the ring.
template <class T, int L>
void gradient_row(const Backward<T>& a, int64_t n, int64_t d, int64_t h, const T* z, Ring<T>& ring, T* to) {
  const Shape& s = a.s;
  const int64_t pd = s.d / 2, ph = s.h / 2, pw = s.w / 2;
  const bool pooled = a.offset && d / 2 < pd && h / 2 < ph;
  const int64_t window = (((n * pd + d / 2) * ph + h / 2) * pw) * s.f;
  const int64_t voxel = ((n * s.d + d) * s.h + h) * s.w * s.f;
  const Integer<T> place = d % 2 * 4 + h % 2 * 2;
  typedef int8_t Bytes __attribute__((vector_size(L)));
  for (int64_t f = 0; f < s.f; f += L) {
    const Vector<T, L> constant = a.slope ? load<L>(a.constant + n * s.f + f) : Vector<T, L>{};
    const Vector<T, L> slope = a.slope ? load<L>(a.slope + n * s.f + f) : Vector<T, L>{};
    T* out = to + f / L * ring.block() + L;
    auto everywhere = [&](int64_t w) -> Vector<T, L> {
      if (!a.slope) return Vector<T, L>{};
      return constant + slope * load<L>(z + w * s.f + f);
    };
    int64_t w = 0;
    if (pooled)
      for (; w < 2 * pw; w += 2) {
        Bytes bytes;
        std::memcpy(&bytes, a.offset + window + w / 2 * s.f + f, L);
        const auto offset = __builtin_convertvector(bytes, Vector<Integer<T>, L>);
        const auto g = load<L>(a.selected + window + w / 2 * s.f + f);
        store(out + w * L, Vector<T, L>(everywhere(w) + (offset == place ? g : Vector<T, L>{})));
        store(out + (w + 1) * L,
              Vector<T, L>(everywhere(w + 1) + (offset == place + 1 ? g : Vector<T, L>{})));
      }
    for (; w < s.w; w++) {
      const Vector<T, L> g = a.offset ? Vector<T, L>{} : load<L>(a.selected + voxel + w * s.f + f);
      store(out + w * L, Vector<T, L>(everywhere(w) + g));
    }
  }
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

// Back through ReLU and BatchNorm of the layer before, in one row and channels [begin, end): dx of the
// activated x becomes dx of x, and `sums` grow by what factor and bias get, (2, c).
template <class T>
void back_through_norm(const T* x, const T* activated, const Norm<T>& norm, const Shape& s, int64_t begin,
                       int64_t end, T* dx, double* sums) {
  for (int64_t c = begin; c < end; c += 8) {
    const Activation<T, 8> layer(norm, c);
    Vector<T, 8> dfactor[kChains] = {}, dbias[kChains] = {};
    int64_t w = 0;
    auto add_voxel = [&](int chain) {
      const int64_t at = (w + chain) * s.c + c;
      const Vector<T, 8> g = load<8>(activated + at) > 0 ? load<8>(dx + at) : Vector<T, 8>{};
      dfactor[chain] += g * (load<8>(x + at) - layer.mean);
      dbias[chain] += g;
      store(dx + at, Vector<T, 8>(g * layer.factor));
    };
    for (; w + kChains <= s.w; w += kChains)
      CONV3_UNROLL for (int chain = 0; chain < kChains; chain++) add_voxel(chain);
    for (; w < s.w; w++) add_voxel(0);
    for (int chain = 0; chain < kChains; chain++)
      for (int i = 0; i < 8; i++) sums[c + i] += dfactor[chain][i], sums[s.c + c + i] += dbias[chain][i];
  }
}

// What the parts of a volume add up to, in their order.
inline double sum_of_parts(const std::vector<std::vector<double>>& parts, const Cut& cut, int64_t n, int64_t i) {
  double sum = 0;
  for (int64_t part = 0; part < cut.parts(); part++) sum += parts[n * cut.parts() + part][i];
  return sum;
}

// dk from its parts: in double a volume, then volume by volume.
template <class T>
void write_kernel_gradient(const std::vector<std::vector<T>>& parts, const Cut& cut, const Backward<T>& a,
                           const Parallel& parallel) {
  const Shape& s = a.s;
  parallel(27 * s.c, [&](int tap) {
    std::vector<double> volume(s.f);
    T* dk = a.dk + tap * s.f;
    for (int64_t n = 0; n < s.n; n++) {
      std::fill(volume.begin(), volume.end(), 0);
      for (int64_t part = n * cut.parts(); part < (n + 1) * cut.parts(); part++)
        for (int64_t f = 0; f < s.f; f++) volume[f] += parts[part][tap * s.f + f];
      for (int64_t f = 0; f < s.f; f++) dk[f] = n ? dk[f] + T(volume[f]) : T(volume[f]);
    }
  });
}

// Backward for one channel: z is computed again, a row at a time. P: of pairs.
template <class T, int L, bool P>
void backward_of_one(const Backward<T>& a, const Parallel& parallel) {
  constexpr int kFilters = P ? L / 2 : L;  // of a vector
  const Shape& s = a.s;
  const Plan<T> plan(a.kernel, 1, s.f, s.w, false, parallel);
  const Cut cut(s, 1, 1, sizeof(T), 27 * s.f);
  const int64_t halo = a.dx ? 1 : 0;  // planes and rows of dz beside the task's own
  std::vector<std::vector<T>> parts(s.n * cut.parts());
  parallel(s.n * cut.parts(), [&](int index) {
    const Task task(cut, s, index);
    Ring<T> ring(1, s.w, cut.rows + 2 + 2 * halo, P), dz(s.f, s.w, cut.rows + 2 * halo, P);
    const int64_t x_top = task.first_row - 1 - halo, dz_top = task.first_row - halo;
    const int64_t first = std::max<int64_t>(0, task.first_plane - halo);
    const int64_t end = std::min(s.d, task.end_plane + halo);
    std::vector<T>& dk = parts[index];
    dk.resize(27 * s.f);
    std::vector<T> z(s.w * s.f), nothing(s.w + 5), waste(3 * s.f);
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
          for (int64_t g = 0; g < plan.groups(); g++) plan.row(taps.data(), count, g, z.data(), true);
        }
        gradient_row<T, kFilters>(a, task.n, d, h, z.data(), dz, dz.at(d, h - dz_top));
        if (!a.dk || h < task.first_row || h >= task.end_row) continue;
        if (d < task.first_plane || d >= task.end_plane) continue;
        dz.pair(d, h - dz_top);
        const T* row = P ? dz.pairs(d, h - dz_top) : dz.at(d, h - dz_top);
        const int64_t block = P ? dz.paired_block() : dz.block(), width = P ? half_of(s.w) : s.w;
        const T* x[9];
        T* to[9];
        for (int64_t f = 0; f < s.f; f += kFilters) {
          for (int64_t r = 0; r < 9; r++) {
            const T* found = around(r);
            x[r] = found ? found : nothing.data();
            to[r] = (found ? dk.data() + 3 * r * s.f : waste.data()) + f;
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
  std::vector<std::vector<T>> parts(s.n * cut.parts(), std::vector<T>(a.dk ? 27 * s.c * s.f : 0));
  std::vector<std::vector<double>> sums(s.n * cut.parts(), std::vector<double>(normed ? 2 * s.c : 0));
  parallel(s.n * cut.parts() * cut.groups, [&](int index) {
    const Task task(cut, s, index);
    const int64_t top = task.first_row - 1, row = s.w * s.c;
    Ring<T> ring(s.f, s.w, cut.rows + 2, P || plan.paired());
    std::vector<T>& dk = parts[task.part];
    std::vector<T> activated(normed ? cut.rows * row : 0), pairs(P ? cut.rows * 2 * apart : 0);
    std::vector<Tap<T>> taps(plan.most_taps());
    const int64_t g0 = task.begin(plan.groups()), g1 = task.end(plan.groups());
    auto read = [&](int64_t d) {
      if (d >= 0 && d < s.d)
        for (int64_t h = std::max<int64_t>(0, top); h < std::min(s.h, task.end_row + 1); h++) {
            const T* z = a.z ? a.z + ((task.n * s.d + d) * s.h + h) * s.w * s.f : nullptr;
          gradient_row<T, kFilters>(a, task.n, d, h, z, ring,
                                      ring.at(d, h - top));
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
            for (int64_t g = g0; g < g1; g++) plan.row(taps.data(), count, g, out, chunk == 0);
            if (normed && chunk == plan.chunks() - 1)
              back_through_norm(x + (h - task.first_row) * row, input + (h - task.first_row) * row, a.norm, s,
                                g0 * plan.wide(), g1 * plan.wide(), out, sums[task.part].data());
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
                                            dk.data() + (3 * r * s.c + c) * s.f + block * kFilters);
      }
    }
  });
  if (a.dk) write_kernel_gradient(parts, cut, a, parallel);
  if (normed && a.dx)
    for (int64_t n = 0; n < s.n; n++)
      for (int64_t c = 0; c < s.c; c++) {
        a.dfactor[n * s.c + c] = sum_of_parts(sums, cut, n, c);
        a.dbias[n * s.c + c] = sum_of_parts(sums, cut, n, s.c + c);
      }
}

}  // namespace detail

// Whether there are kernels for a layer: 8k filters, and 8k channels or a single one without norm.
inline bool supports(const Shape& s, bool normed) {
  return s.f > 0 && s.f % 8 == 0 && s.c > 0 && (s.c % 8 == 0 || (s.c == 1 && !normed));
}

template <class T>
void forward(const Forward<T>& a, const Parallel& parallel) {
  using namespace detail;
  const Shape& s = a.s;
  const Plan<T> plan(a.kernel, s.c, s.f, s.w, false, parallel);
  const Cut cut(s, s.c, plan.groups(), sizeof(T), s.f);
  std::vector<Sums<T>> parts(a.mean ? s.n * cut.parts() : 0, Sums<T>(s.f));
  parallel(s.n * cut.parts() * cut.groups, [&](int index) {
    const Task task(cut, s, index);
    const int64_t top = task.first_row - 1, plane = cut.rows * s.w * s.f;
    const int64_t g0 = task.begin(plan.groups()), g1 = task.end(plan.groups());
    const int64_t f0 = g0 * plan.wide(), f1 = g1 * plan.wide();
    // Weights that do not stay in cache are used for a block's rows, others for two rows at a time.
    const int64_t together = plan.chunks() == 1 ? 2 : cut.rows;
    Ring<T> ring(s.c, s.w, cut.rows + 2, plan.paired());
    std::vector<T> scratch(a.z ? 0 : 2 * plane);
    std::vector<Tap<T>> taps(plan.most_taps());
    auto read = [&](int64_t d) {
      if (d >= 0 && d < s.d)
        for (int64_t h = std::max<int64_t>(0, top); h < std::min(s.h, task.end_row + 1); h++) {
            ring.fill(ring.at(d, h - top), a.x + ((task.n * s.d + d) * s.h + h) * s.w * s.c, a.norm);
            ring.pair(d, h - top);
          }
    };
    Sums<T>* sums = a.mean ? &parts[task.part] : nullptr;
    bool first = true;
    read(task.first_plane - 1);
    read(task.first_plane);
    for (int64_t d = task.first_plane; d < task.end_plane; d += 2) {
      read(d + 1);
      read(d + 2);
      const int64_t planes = std::min<int64_t>(2, s.d - d);
      for (int64_t h0 = task.first_row; h0 < task.end_row; h0 += together) {
        const int64_t h1 = std::min(task.end_row, h0 + together);
        auto row = [&](int64_t p, int64_t h) {
          return a.z ? a.z + ((task.n * s.d + d + p) * s.h + h) * s.w * s.f
                     : scratch.data() + p * plane + (h - h0) * s.w * s.f;
        };
        for (int64_t chunk = 0; chunk < plan.chunks(); chunk++)
          for (int64_t p = 0; p < planes; p++)
            for (int64_t h = h0; h < h1; h++) {
              const int count =
                  plan.taps_of(chunk, rows_around(ring, plan.paired(), s, d + p, h, top), taps.data());
              for (int64_t g = g0; g < g1; g++) plan.row(taps.data(), count, g, row(p, h), chunk == 0);
            }
        if (sums) {
          // A number of the size of z keeps the sums of squares from cancelling.
          if (first) std::copy(row(0, h0) + f0, row(0, h0) + f1, sums->shift.begin() + f0);
          first = false;
          for (int64_t p = 0; p < planes; p++)
            for (int64_t h = h0; h < h1; h++) sums->add(row(p, h), s, f0, f1);
        }
        if (a.value && planes == 2)
          for (int64_t h = h0; h + 1 < h1; h += 2) {
            const T* const rows[] = {row(0, h), row(0, h + 1), row(1, h), row(1, h + 1)};
            const int64_t at = ((task.n * (s.d / 2) + d / 2) * (s.h / 2) + h / 2) * (s.w / 2) * s.f;
            select_row(rows, s, a.sign, f0, f1, a.value + at, a.offset + at);
          }
      }
    }
  });
  if (a.mean) write_moments(parts, cut, a);
}

template <class T>
void backward(const Backward<T>& a, const Parallel& parallel) {
  using namespace detail;
  auto run = [&]<int L, bool P>() {
    a.s.c == 1 ? backward_of_one<T, L, P>(a, parallel) : backward_of_many<T, L, P>(a, parallel);
  };
  if constexpr (!paired<T>(8)) run.template operator()<8, false>();
  else paired<T>(a.s.f) ? run.template operator()<16, true>() : run.template operator()<16, false>();
}

}  // namespace conv3
