// Layers of many channels and filters by minimal filtering, F(2 x 2 x 2, 3 x 3 x 3) (Winograd 1980;
// Lavin & Gray 2016): 64 products for 8 voxels, a channel and a filter, where the plain sum takes 216.
//
// A tile is 2 x 2 x 2 voxels. Its 4 x 4 x 4 inputs, its weights and its outputs are transformed along each
// axis at the points 0, 1, -1 and infinity; between them stands a matrix product for each of the 64
// places. The places along D are worked on one after the other, so that what lies between the
// transforms stays in the second-level cache. The kernel's gradient is the same with dz for the
// input and 2 x 2 x 2 voxels of x for the weights; it is transformed back once a part.
#pragma once

#include <optional>
#include <vector>

#include "rows.hpp"
#include "tile.hpp"

namespace conv3::detail {

constexpr int kPlaces = 16;  // along H and W, for one place along D

// Four inputs of an axis; three weights; two voxels that stand for weights; what they give.
template <class V>
inline void transform_input(V& a, V& b, V& c, V& d) {
  const V first = a - c, sum = b + c, apart = c - b, last = d - b;
  a = first, b = sum, c = apart, d = last;
}
template <class V>
inline void transform_weights(const V& g0, const V& g1, const V& g2, V& a, V& b, V& c, V& d) {
  const V outer = (g0 + g2) / 2, middle = g1 / 2;
  a = g0, b = outer + middle, c = outer - middle, d = g2;
}
template <class V>
inline void transform_voxels(const V& g0, const V& g1, V& a, V& b, V& c, V& d) {
  const V first = g0 / 2, second = g1 / 2;
  a = g0, b = first + second, c = first - second, d = g1;
}
template <class V>
inline void two_outputs(const V& a, const V& b, const V& c, const V& d, V& y0, V& y1) {
  y0 = a + (b + c), y1 = (b - c) + d;
}
template <class V>
inline void three_outputs(const V& a, const V& b, const V& c, const V& d, V& y0, V& y1, V& y2) {
  const V sum = b + c;
  y0 = a + sum, y1 = b - c, y2 = sum + d;
}

// A block of tiles, and how a part of a volume is cut into blocks.
struct Tiles {
  int64_t planes, rows, width;  // tiles of a block along D and H, and of a row
  int64_t count() const { return planes * rows * width; }
  Tiles(const Shape& s, const Cut& cut, int64_t channels, size_t number) {
    constexpr int64_t kBytes = 1 << 19;  // of transformed inputs
    width = (s.w + 1) / 2;
    const int64_t most = kBytes / (kPlaces * channels * number);
    rows = std::clamp<int64_t>(most / width, 1, (std::min(cut.rows, s.h) + 1) / 2);
    planes = std::clamp<int64_t>(most / (width * rows), 1, (std::min(cut.planes, s.d) + 1) / 2);
    // Blocks of about equal size.
    even(rows, (std::min(cut.rows, s.h) + 1) / 2);
    even(planes, (std::min(cut.planes, s.d) + 1) / 2);
  }

 private:
  static void even(int64_t& size, int64_t all) {
    const int64_t blocks = (all + size - 1) / size;
    size = (all + blocks - 1) / blocks;
  }
};

// The rows of a block and `halo` voxels around them, [channels / XS][2 * tiles + 2 * halo][XS] each, zero
// outside of the volume.
template <class T>
class Brick {
 public:
  Brick(const Tiles& tiles, int64_t channels, int64_t halo)
      : stride_(lanes_of<T>(channels)), halo_(halo), rows_(2 * (tiles.rows + halo)),
        planes_(2 * (tiles.planes + halo)), block_(2 * (tiles.width + halo) * stride_),
        row_(channels / stride_ * block_), numbers_(planes_ * rows_ * row_) {}
  T* at(int64_t d, int64_t h) { return numbers_.data() + (d * rows_ + h) * row_; }
  int64_t block() const { return block_; }
  int64_t first() const { return halo_ * stride_; }  // where a row's first voxel stands
  // Calls write(d, h, row) for each row of the volume around tiles from (d0, h0) on. Of the block before
  // along D, what both have is kept.
  template <class Write>
  void fill(const Shape& s, int64_t d0, int64_t h0, const Write& write) {
    const bool next = h0 == last_row_ && d0 == last_plane_ + planes_ - 2 * halo_;
    if (next) std::copy(at(planes_ - 2 * halo_, 0), at(planes_, 0), at(0, 0));
    last_plane_ = d0, last_row_ = h0;
    for (int64_t d = next ? 2 * halo_ : 0; d < planes_; d++)
      for (int64_t h = 0; h < rows_; h++) {
        const int64_t plane = d0 + d - halo_, row = h0 + h - halo_;
        const bool inside = plane >= 0 && plane < s.d && row >= 0 && row < s.h;
        if (inside) write(plane, row, at(d, h));
        else std::fill_n(at(d, h), row_, T(0));
      }
  }

 private:
  int64_t stride_, halo_, rows_, planes_, block_, row_, last_plane_ = 0, last_row_ = -1;
  Array<T> numbers_;
};

// A matrix product for each place: weights, how tiles are taken together.
template <class T>
class Products {
 public:
  // `flip` gives the transposed convolution, from the `in` filters to the `out` channels of kernel.
  Products(const T* kernel, int64_t in, int64_t out, bool flip, int64_t tiles, const Parallel& parallel)
      : in_(in), out_(out), tiles_(tiles), stride_(lanes_of<T>(in)), lanes_(lanes_of<T>(out)),
        vectors_(sizeof(T) == 4 && out % (2 * lanes_) == 0 ? 2 : 1), weights_(4 * kPlaces * in * out) {
    parallel(groups(), [&](int group) {
      if (lanes_ == 8) transform<8>(kernel, group, flip);
      else if constexpr (kLanes == 16 && sizeof(T) == 4) transform<16>(kernel, group, flip);
    });
    const int64_t most = sizeof(T) == 8 ? most_voxels<T, 8, 1, 1>() : most_voxels<T, kLanes, 2, 1>();
    pieces_ = (tiles + most - 1) / most;
    piece_ = (tiles + pieces_ - 1) / pieces_;
    large_ = tiles - (piece_ - 1) * pieces_;
    tile_ = pick(piece_), smaller_ = pick(piece_ - 1);
  }
  int64_t wide() const { return vectors_ * lanes_; }
  int64_t groups() const { return out_ / wide(); }

  // y[16][tiles][wide] of one group, for place `depth` along D, from x[16][in / XS][tiles][XS].
  void multiply(const T* x, int64_t depth, int64_t group, T* y) const {
    std::vector<Tap<T>> taps(in_ / stride_);
    for (int64_t place = 0; place < kPlaces; place++) {
      const T* weights = weights_.data() + ((group * 4 + depth) * kPlaces + place) * in_ * wide();
      for (int64_t i = 0; i < in_ / stride_; i++)
        taps[i] = {x + (place * in_ + i * stride_) * tiles_, weights + i * stride_ * wide()};
      int64_t first = 0;
      for (int64_t p = 0; p < pieces_; p++) {
        const bool large = p < large_;
        const Target<T> to{y + (place * tiles_ + first) * wide(), wide(), 0, 0};
        (large ? tile_ : smaller_)(taps.data(), taps.size(), first, to, true);
        first += large ? piece_ : piece_ - 1;
      }
    }
  }

 private:
  Tile<T> pick(int64_t v) const {
    if (v < 1) return nullptr;
    if constexpr (sizeof(T) == 8) return tile_of<T, 8, 1, 8, false, 1>(v);
    else {
      return tile_of<T, kLanes, 2, kLanes, false, 1>(v);
    }
  }
  template <int L>
  void transform(const T* kernel, int64_t group, bool flip) {
    using V = Vector<T, L>;
    for (int64_t b = 0; b < vectors_; b++)
      for (int64_t c = 0; c < in_; c++) {
        const int64_t f = (group * vectors_ + b) * L;
        V k[4][4][4];
        for (int t = 0; t < 27; t++) {
          V& to = k[t / 9][t / 3 % 3][t % 3];
          if (!flip) to = load<L>(kernel + (t * in_ + c) * out_ + f);
          else for (int i = 0; i < L; i++) to[i] = kernel[((26 - t) * out_ + f + i) * in_ + c];
        }
        for (int i = 0; i < 3; i++)
          for (int j = 0; j < 3; j++) {
            V* m = k[i][j];
            transform_weights(V(m[0]), V(m[1]), V(m[2]), m[0], m[1], m[2], m[3]);
          }
        for (int i = 0; i < 3; i++)
          for (int j = 0; j < 4; j++)
            transform_weights(V(k[i][0][j]), V(k[i][1][j]), V(k[i][2][j]), k[i][0][j], k[i][1][j], k[i][2][j],
                              k[i][3][j]);
        for (int i = 0; i < 4; i++)
          for (int j = 0; j < 4; j++)
            transform_weights(V(k[0][i][j]), V(k[1][i][j]), V(k[2][i][j]), k[0][i][j], k[1][i][j], k[2][i][j],
                              k[3][i][j]);
        for (int place = 0; place < 64; place++)
          store(weights_.data() + ((group * 64 + place) * in_ + c) * wide() + b * L,
                k[place / 16][place / 4 % 4][place % 4]);
      }
  }

  int64_t in_, out_, tiles_, stride_, lanes_, vectors_;
  Array<T> weights_;  // [groups][64][in][wide]
  int64_t pieces_ = 0, piece_ = 0, large_ = 0;
  Tile<T> tile_ = nullptr, smaller_ = nullptr;
};

// x[16][channels / L][tiles][L] for place `depth` along D, from the inputs of a block.
template <class T, int L>
void transform_inputs(Brick<T>& brick, const Tiles& tiles, int64_t channels, int64_t depth, T* x) {
  const int64_t first = depth, second = depth < 2 ? 2 : 1;
  const auto sign = all<L>(T(depth == 1 ? 1 : -1));
  int64_t tile = 0;
  for (int64_t d = 0; d < tiles.planes; d++)
    for (int64_t h = 0; h < tiles.rows; h++, tile += tiles.width)
      for (int64_t b = 0; b < channels / L; b++) {
        const T *one[4], *other[4];
        for (int i = 0; i < 4; i++) {
          one[i] = brick.at(2 * d + first, 2 * h + i) + b * brick.block();
          other[i] = brick.at(2 * d + second, 2 * h + i) + b * brick.block();
        }
        T* to = x + (b * tiles.count() + tile) * L;
        for (int64_t w = 0; w < tiles.width; w++, to += L) {
          Vector<T, L> m[4][4];
          CONV3_UNROLL for (int i = 0; i < 4; i++) {
            CONV3_UNROLL for (int j = 0; j < 4; j++) {
              const int64_t at = (2 * w + j) * L;
              m[i][j] = load<L>(one[i] + at) + sign * load<L>(other[i] + at);
            }
            transform_input(m[i][0], m[i][1], m[i][2], m[i][3]);
          }
          CONV3_UNROLL for (int j = 0; j < 4; j++) transform_input(m[0][j], m[1][j], m[2][j], m[3][j]);
          CONV3_UNROLL for (int p = 0; p < kPlaces; p++)
            store(to + p * channels * tiles.count(), m[p / 4][p % 4]);
        }
      }
}

// The same of 2 x 2 x 2 voxels that stand for weights.
template <class T, int L>
void transform_voxels(Brick<T>& brick, const Tiles& tiles, int64_t channels, int64_t depth, T* x) {
  const auto half = all<L>(T(0.5));
  int64_t tile = 0;
  for (int64_t d = 0; d < tiles.planes; d++)
    for (int64_t h = 0; h < tiles.rows; h++, tile += tiles.width)
      for (int64_t b = 0; b < channels / L; b++) {
        const T* rows[2][2];
        for (int i = 0; i < 4; i++) rows[i / 2][i % 2] = brick.at(2 * d + i / 2, 2 * h + i % 2) + b * brick.block();
        T* to = x + (b * tiles.count() + tile) * L;
        for (int64_t w = 0; w < tiles.width; w++, to += L) {
          Vector<T, L> m[4][4];
          CONV3_UNROLL for (int i = 0; i < 2; i++) {
            Vector<T, L> g[2];
            CONV3_UNROLL for (int j = 0; j < 2; j++) {
              const auto x0 = load<L>(rows[0][i] + (2 * w + j) * L), x1 = load<L>(rows[1][i] + (2 * w + j) * L);
              g[j] = depth == 0 ? x0 : depth == 1 ? half * x0 + half * x1 : depth == 2 ? half * x0 - half * x1 : x1;
            }
            transform_voxels(g[0], g[1], m[i][0], m[i][1], m[i][2], m[i][3]);
          }
          CONV3_UNROLL for (int j = 0; j < 4; j++) {
            const auto g0 = m[0][j], g1 = m[1][j];
            transform_voxels(g0, g1, m[0][j], m[1][j], m[2][j], m[3][j]);
          }
          CONV3_UNROLL for (int p = 0; p < kPlaces; p++)
            store(to + p * channels * tiles.count(), m[p / 4][p % 4]);
        }
      }
}

// Where the outputs of a block's tiles go: rows (d, h) from the block's first on, inside the volume.
template <class T>
struct Outputs {
  T* first;  // of filter 0
  int64_t plane, row, voxel;  // numbers from one to the next
  int64_t planes, rows, width;
};

// Adds what place `depth` along D gives: y[16][tiles][wide].
template <class T, int L>
void add_outputs(const T* y, const Tiles& tiles, int64_t depth, int64_t wide, int64_t f, const Outputs<T>& to) {
  int64_t tile = 0;
  for (int64_t d = 0; d < tiles.planes; d++)
    for (int64_t h = 0; h < tiles.rows; h++)
      for (int64_t w = 0; w < tiles.width; w++, tile++)
        for (int64_t b = 0; b < wide; b += L) {
          const T* from = y + tile * wide + b;
          Vector<T, L> m[2][4], out[2][2];
          CONV3_UNROLL for (int j = 0; j < 4; j++) {
            Vector<T, L> p[4];
            CONV3_UNROLL for (int i = 0; i < 4; i++) p[i] = load<L>(from + (4 * i + j) * tiles.count() * wide);
            two_outputs(p[0], p[1], p[2], p[3], m[0][j], m[1][j]);
          }
          CONV3_UNROLL for (int i = 0; i < 2; i++)
              two_outputs(m[i][0], m[i][1], m[i][2], m[i][3], out[i][0], out[i][1]);
          for (int64_t i = 0; i < 2; i++)
            for (int64_t j = 0; j < 2; j++) {
              if (2 * d >= to.planes || 2 * h + i >= to.rows || 2 * w + j >= to.width) continue;
              T* at = to.first + 2 * d * to.plane + (2 * h + i) * to.row + (2 * w + j) * to.voxel + f + b;
              if (depth == 0) store(at, out[i][j]);
              else if (depth < 3) store(at, Vector<T, L>(load<L>(at) + out[i][j]));
              if (2 * d + 1 >= to.planes) continue;
              T* next = at + to.plane;
              if (depth == 1) store(next, out[i][j]);
              else if (depth == 2) store(next, Vector<T, L>(load<L>(next) - out[i][j]));
              else if (depth == 3) store(next, Vector<T, L>(load<L>(next) + out[i][j]));
            }
        }
}

// Adds to m[c][f], XC channels and FB * L filters, what all tiles give: the sum of x[tile][c] * g[tile][f],
// both with L numbers a tile.
template <class T, int L, int XC, int FB>
void gradient_tile(const T* x, const T* g, int64_t tiles, int64_t filters, T* m) {
  Vector<T, L> sum[XC][FB];
  CONV3_UNROLL for (int c = 0; c < XC; c++) CONV3_UNROLL for (int b = 0; b < FB; b++)
      sum[c][b] = load<L>(m + c * filters + b * L);
  for (int64_t t = 0; t < tiles; t++, x += L, g += L) {
    Vector<T, L> dz[FB];
    CONV3_UNROLL for (int b = 0; b < FB; b++) dz[b] = load<L>(g + b * tiles * L);
    CONV3_UNROLL for (int c = 0; c < XC; c++) {
      const auto voxel = all<L>(x[c]);
      CONV3_UNROLL for (int b = 0; b < FB; b++) sum[c][b] += voxel * dz[b];
    }
  }
  CONV3_UNROLL for (int c = 0; c < XC; c++) CONV3_UNROLL for (int b = 0; b < FB; b++)
      store(m + c * filters + b * L, sum[c][b]);
}

// dk of filters [f0, f1) from its 64 places, m[64][c][f1 - f0].
template <class T, int L>
void gradient_of_weights(const T* m, const Shape& s, int64_t f0, int64_t f1, T* dk) {
  using V = Vector<T, L>;
  for (int64_t c = 0; c < s.c; c++)
    for (int64_t f = f0; f < f1; f += L) {
      V k[4][4][4];
      for (int p = 0; p < 64; p++) k[p / 16][p / 4 % 4][p % 4] = load<L>(m + (p * s.c + c) * (f1 - f0) + f - f0);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
          V* a = k[i][j];
          three_outputs(V(a[0]), V(a[1]), V(a[2]), V(a[3]), a[0], a[1], a[2]);
        }
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 3; j++)
          three_outputs(V(k[i][0][j]), V(k[i][1][j]), V(k[i][2][j]), V(k[i][3][j]), k[i][0][j], k[i][1][j],
                        k[i][2][j]);
      for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
          three_outputs(V(k[0][i][j]), V(k[1][i][j]), V(k[2][i][j]), V(k[3][i][j]), k[0][i][j], k[1][i][j],
                        k[2][i][j]);
      // dz stood for the input, so that the taps come in the opposite order.
      for (int t = 0; t < 27; t++)
        store(dk + (t * s.c + c) * s.f + f, k[2 - t / 9][2 - t / 3 % 3][2 - t % 3]);
    }
}

// Whether a layer is worked on in tiles: its weights are transformed anew in each call, which pays where
// a volume has many of them.
inline bool tiled(const Shape& s) {
  return s.c % 32 == 0 && s.f % 32 == 0 && (s.d + 1) / 2 * ((s.h + 1) / 2) * ((s.w + 1) / 2) >= 128;
}

template <class T, int L>
void forward_of_tiles(const Forward<T>& a, const Parallel& parallel) {
  const Shape& s = a.s;
  const Cut cut(s, 1, s.f / 32, sizeof(T), s.f);
  const Tiles tiles(s, cut, s.c, sizeof(T));
  const Products<T> products(a.kernel, s.c, s.f, false, tiles.count(), parallel);
  std::vector<Sums<T>> parts(a.mean ? s.n * cut.parts() : 0, Sums<T>(s.f));
  parallel(s.n * cut.parts() * cut.groups, [&](int index) {
    const Task task(cut, s, index);
    const int64_t g0 = task.begin(products.groups()), g1 = task.end(products.groups()), wide = products.wide();
    Brick<T> brick(tiles, s.c, 1);
    Array<T> x(kPlaces * s.c * tiles.count()), y(kPlaces * wide * tiles.count());
    Array<T> scratch(a.z ? 0 : 4 * tiles.planes * tiles.rows * s.w * s.f);
    Sums<T>* sums = a.mean ? &parts[task.part] : nullptr;
    for (int64_t h0 = task.first_row; h0 < task.end_row; h0 += 2 * tiles.rows)
      for (int64_t d0 = task.first_plane; d0 < task.end_plane; d0 += 2 * tiles.planes) {
        brick.fill(s, d0, h0, [&](int64_t d, int64_t h, T* to) {
          const T* from = a.x + ((task.n * s.d + d) * s.h + h) * s.w * s.c;
          fill_row<L>(to + brick.first(), brick.block(), from, s.w, s.c / L, a.norm);
        });
        const int64_t d1 = std::min(task.end_plane, d0 + 2 * tiles.planes);
        const int64_t h1 = std::min(task.end_row, h0 + 2 * tiles.rows);
        const int64_t rows = a.z ? s.h : h1 - h0;  // of a plane of what is written
        T* const first = a.z ? a.z + ((task.n * s.d + d0) * s.h + h0) * s.w * s.f : scratch.data();
        const Outputs<T> outputs{first, rows * s.w * s.f, s.w * s.f, s.f, d1 - d0, h1 - h0, s.w};
        for (int64_t depth = 0; depth < 4; depth++) {
          transform_inputs<T, L>(brick, tiles, s.c, depth, x.data());
          for (int64_t g = g0; g < g1; g++) {
            products.multiply(x.data(), depth, g, y.data());
            add_outputs<T, L>(y.data(), tiles, depth, wide, g * wide, outputs);
          }
        }
        for (int64_t d = d0; d < d1; d += 2) {
          const auto row = [&](int64_t p, int64_t h) {
            return first + (d - d0 + p) * outputs.plane + (h - h0) * outputs.row;
          };
          const int64_t planes = std::min<int64_t>(2, d1 - d);
          if (sums) sums->template add_rows<false>(row, planes, h0, h1, s, g0 * wide, g1 * wide);
          if (a.value && planes == 2) select_rows<false>(a, row, task.n, d, h0, h1, g0 * wide, g1 * wide);
        }
      }
  });
  if (a.mean) write_moments(parts, cut, a);
}

template <class T, int L>
void backward_of_tiles(const Backward<T>& a, const Parallel& parallel) {
  constexpr int kChannels = kRegisters == 32 && sizeof(T) == 4 ? 8 : 4, kVectors = sizeof(T) == 4 ? 2 : 1;
  const Shape& s = a.s;
  const Cut cut(s, 1, s.f / 32, sizeof(T), 27 * s.c * s.f);
  const Tiles tiles(s, cut, s.f, sizeof(T));
  std::optional<Products<T>> products;
  if (a.dx) products.emplace(a.kernel, s.f, s.c, true, tiles.count(), parallel);
  const int64_t wide = a.dx ? products->wide() : 1, groups = a.dx ? products->groups() : 0;
  const bool normed = a.norm.mean && a.dx;
  const int64_t size = a.dk ? 27 * s.c * s.f : 0;
  Array<T> parts(s.n * cut.parts() * size);
  std::vector<std::vector<double>> sums(s.n * cut.parts(), std::vector<double>(normed ? 2 * s.c : 0));
  parallel(s.n * cut.parts() * cut.groups, [&](int index) {
    const Task task(cut, s, index);
    const int64_t g0 = task.begin(groups), g1 = task.end(groups);
    const int64_t f0 = task.begin(s.f / 32) * 32, f1 = task.end(s.f / 32) * 32, filters = f1 - f0;
    Brick<T> dz(tiles, s.f, 1), x(tiles, s.c, 0);
    const int64_t count = tiles.count();
    Array<T> dzs(kPlaces * s.f * count), xs(a.dk ? kPlaces * s.c * count : 0), y(kPlaces * wide * count);
    Array<T> places(a.dk ? 64 * s.c * filters : 0);
    for (int64_t h0 = task.first_row; h0 < task.end_row; h0 += 2 * tiles.rows)
      for (int64_t d0 = task.first_plane; d0 < task.end_plane; d0 += 2 * tiles.planes) {
        const int64_t d1 = std::min(task.end_plane, d0 + 2 * tiles.planes);
        const int64_t h1 = std::min(task.end_row, h0 + 2 * tiles.rows);
        const auto voxel = [&](int64_t d, int64_t h) { return ((task.n * s.d + d) * s.h + h) * s.w; };
        dz.fill(s, d0, h0, [&](int64_t d, int64_t h, T* to) {
          const T* z = a.z ? a.z + voxel(d, h) * s.f : nullptr;
          gradient_row<T, L>(a, task.n, d, h, z, dz.block(), to + dz.first());
        });
        if (a.dk)
          x.fill(s, d0, h0, [&](int64_t d, int64_t h, T* to) {
            if (d >= d1 || h >= h1) std::fill_n(to, s.c / L * x.block(), T(0));
            else fill_row<L>(to, x.block(), a.x + voxel(d, h) * s.c, s.w, s.c / L, a.norm);
          });
        T* const dx = a.dx ? a.dx + voxel(d0, h0) * s.c : nullptr;
        const Outputs<T> outputs{dx, s.h * s.w * s.c, s.w * s.c, s.c, d1 - d0, h1 - h0, s.w};
        for (int64_t depth = 0; depth < 4; depth++) {
          transform_inputs<T, L>(dz, tiles, s.f, depth, dzs.data());
          for (int64_t g = g0; g < g1; g++) {
            products->multiply(dzs.data(), depth, g, y.data());
            add_outputs<T, L>(y.data(), tiles, depth, wide, g * wide, outputs);
          }
          if (!a.dk) continue;
          transform_voxels<T, L>(x, tiles, s.c, depth, xs.data());
          for (int64_t place = 0; place < kPlaces; place++)
            for (int64_t f = f0; f < f1; f += kVectors * L)
              for (int64_t c = 0; c < s.c; c += kChannels)
                gradient_tile<T, L, kChannels, kVectors>(
                    xs.data() + (place * s.c + c / L * L) * count + c % L,
                    dzs.data() + (place * s.f + f) * count, count, filters,
                    places.data() + ((depth * kPlaces + place) * s.c + c) * filters + f - f0);
        }
        if (normed)
          for (int64_t d = d0; d < d1; d++)
            for (int64_t h = h0; h < h1; h++)
              back_through_norm(a.x + voxel(d, h) * s.c, a.norm, s, g0 * wide, g1 * wide, a.dx + voxel(d, h) * s.c,
                                sums[task.part].data());
      }
    if (a.dk) gradient_of_weights<T, L>(places.data(), s, f0, f1, parts.data() + task.part * size);
  });
  if (a.dk) write_kernel_gradient(parts, cut, a, parallel);
  if (normed) write_norm_gradient(sums, cut, a);
}

}  // namespace conv3::detail
