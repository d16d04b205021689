// What is done to whole rows: the norm of the layer before, moments and selection of what was computed, the
// gradient of the pre-activation, and what parts of a volume add up to.
#pragma once

#include <utility>
#include <vector>

#include "cut.hpp"
#include "vectors.hpp"

namespace conv3::detail {

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

// A row of the input, (W, blocks * L), with the norm applied, to voxels of L channels a block.
template <int L, class T>
void fill_row(T* to, int64_t block, const T* from, int64_t width, int64_t blocks, const Norm<T>& norm) {
  for (int64_t b = 0; b < blocks; b++, to += block, from += L)
    if (norm.mean) {
      const Activation<T, L> activation(norm, b * L);
      for (int64_t w = 0; w < width; w++) store(to + w * L, activation(load<L>(from + w * blocks * L)));
    } else for (int64_t w = 0; w < width; w++) store(to + w * L, load<L>(from + w * blocks * L));
}

constexpr int kChains = 4;  // sums side by side: one addition after another would wait for each other

// Sums of z - shift and of its square over the voxels of one part, a number a filter.
template <class T>
struct Sums {
  Array<T> shift;
  std::vector<double> sum, square;
  std::vector<char> begun;  // of a filter
  explicit Sums(int64_t filters) : shift(filters), sum(filters), square(filters), begun(filters) {}
  // row(p, h) is row h of the p-th plane, P: in pairs.
  template <bool P, class Row>
  void add_rows(const Row& row, int64_t planes, int64_t h0, int64_t h1, const Shape& s, int64_t f0, int64_t f1) {
    // A number of the size of z keeps the sums of squares from cancelling.
    if (!begun[f0])
      for (int64_t f = f0; f < f1; f++)
        shift[f] = row(0, h0)[P ? f / 8 * 16 * half_of(s.w) + f % 8 * 2 : f];
    begun[f0] = true;
    for (int64_t p = 0; p < planes; p++)
      for (int64_t h = h0; h < h1; h++) add<P>(row(p, h), s, f0, f1);
  }
  template <bool P>
  void add(const T* row, const Shape& s, int64_t begin, int64_t end) {
    constexpr int L = P ? 16 : 8;
    const int64_t whole = P ? s.w - half_of(s.w) : s.w, stride = P ? 16 : s.f;
    for (int64_t f = begin; f < end; f += 8) {
      Vector<T, L> about, total[kChains] = {}, squares[kChains] = {};
      if constexpr (P) about = twice(load<8>(shift.data() + f));
      else about = load<8>(shift.data() + f);
      const T* from = row + (P ? f * 2 * half_of(s.w) : f);
      int64_t w = 0;
      auto add_voxel = [&](int chain, bool both) {
        Vector<T, L> apart = load<L>(from + (w + chain) * stride) - about;
        if constexpr (P) {
          if (!both) apart = first_alone(apart);
        }
        total[chain] += apart;
        squares[chain] += apart * apart;
      };
      for (; w + kChains <= whole; w += kChains)
        CONV3_UNROLL for (int chain = 0; chain < kChains; chain++) add_voxel(chain, true);
      for (; w < whole; w++) add_voxel(0, true);
      if constexpr (P) for (; w < half_of(s.w); w++) add_voxel(0, false);
      for (int chain = 0; chain < kChains; chain++)
        for (int i = 0; i < L; i++)
          sum[f + i * 8 / L] += total[chain][i], square[f + i * 8 / L] += squares[chain][i];
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

// One voxel for each of L filters, or of 8 filters in two windows.
template <class T, int L>
struct Selected {
  Vector<T, L> value;
  Vector<Integer<T>, L> offset;
};
// The first maximum of sign * z in a window of four rows; a later NaN wins, as in the plain form. The window's
// first voxel is at `at` in the first row, and `next` numbers lie between two voxels of a row.
template <int L, class T>
Selected<T, L> selected_from(const T* const rows[4], int64_t at, int64_t next, Vector<T, L> sign) {
  const Vector<T, L> first = load<L>(rows[0] + at);
  Vector<T, L> best = first * sign;
  Vector<Integer<T>, L> place{};
  CONV3_UNROLL for (int i = 1; i < 8; i++) {
    const Vector<T, L> z = load<L>(rows[i / 2] + at + i % 2 * next) * sign;
    const auto wins = (z > best) | (z != z);
    best = wins ? z : best;
    place = wins ? Vector<Integer<T>, L>{} + i : place;
  }
  return {sign == 0 ? first : Vector<T, L>(best * sign), place};
}

// Selects from each window of four rows, P: in pairs.
template <bool P, class T>
void select_row(const T* const rows[4], const Shape& s, const T* sign, int64_t begin, int64_t end,
                T* value, int8_t* offset) {
  const int64_t windows = s.w / 2;
  for (int64_t f = begin; f < end; f += 8) {
    const auto signs = load<8>(sign + f);
    if constexpr (P) {
      const int64_t half = half_of(s.w) / 2;
      for (int64_t w = 0; w < std::min(half, windows); w++) {
        const auto found = selected_from<16>(rows, f * 4 * half + 32 * w, 16, twice(signs));
        const auto places = (Vector<T, 16>)found.offset;
        auto write = [&](int64_t at, Half chosen, Half place) {
          store(value + at * s.f + f, chosen);
          store(offset + at * s.f + f, resized<int8_t>((Vector<int32_t, 8>)place));
        };
        write(w, first_of(found.value), first_of(places));
        if (w + half < windows) write(w + half, second_of(found.value), second_of(places));
      }
    } else
      for (int64_t w = 0; w < windows; w++) {
        const auto found = selected_from<8>(rows, 2 * w * s.f + f, s.f, signs);
        store(value + w * s.f + f, found.value);
        store(offset + w * s.f + f, resized<int8_t>(found.offset));
      }
  }
}

// Selects from rows [h0, h1) of two planes from d on; row(p, h) is row h of the p-th.
template <bool P, class T, class Row>
void select_rows(const Forward<T>& a, const Row& row, int64_t n, int64_t d, int64_t h0, int64_t h1, int64_t f0,
                 int64_t f1) {
  const Shape& s = a.s;
  for (int64_t h = h0; h + 1 < h1; h += 2) {
    const T* const rows[] = {row(0, h), row(0, h + 1), row(1, h), row(1, h + 1)};
    const int64_t at = ((n * (s.d / 2) + d / 2) * (s.h / 2) + h / 2) * (s.w / 2) * s.f;
    select_row<P>(rows, s, a.sign, f0, f1, a.value + at, a.offset + at);
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

// The gradient of z in row (d, h) of a volume, to voxels of L filters a block.
template <class T, int L>
void gradient_row(const Backward<T>& a, int64_t n, int64_t d, int64_t h, const T* z, int64_t block, T* to) {
  const Shape& s = a.s;
  const int64_t pd = s.d / 2, ph = s.h / 2, pw = s.w / 2;
  const bool pooled = a.offset && d / 2 < pd && h / 2 < ph;
  const int64_t window = (((n * pd + d / 2) * ph + h / 2) * pw) * s.f;
  const int64_t voxel = ((n * s.d + d) * s.h + h) * s.w * s.f;
  const Integer<T> place = d % 2 * 4 + h % 2 * 2;
  for (int64_t f = 0; f < s.f; f += L) {
    const Vector<T, L> constant = a.slope ? load<L>(a.constant + n * s.f + f) : Vector<T, L>{};
    const Vector<T, L> slope = a.slope ? load<L>(a.slope + n * s.f + f) : Vector<T, L>{};
    T* out = to + f / L * block;
    auto everywhere = [&](int64_t w) -> Vector<T, L> {
      if (!a.slope) return Vector<T, L>{};
      return constant + slope * load<L>(z + w * s.f + f);
    };
    int64_t w = 0;
    if (pooled)
      for (; w < 2 * pw; w += 2) {
        const auto bytes = load<L>(a.offset + window + w / 2 * s.f + f);
        const auto offset = resized<Integer<T>>(bytes);
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

// The same in pairs, of z and of what is returned: [f / 8][half] with `block` numbers a group.
inline void gradient_pairs(const Backward<float>& a, int64_t n, int64_t d, int64_t h, const float* z, int64_t block,
                           float* to) {
  const Shape& s = a.s;
  const int64_t pd = s.d / 2, ph = s.h / 2, pw = s.w / 2, half = half_of(s.w), seconds = s.w - half;
  const bool pooled = a.offset && d / 2 < pd && h / 2 < ph;
  const int64_t window = (((n * pd + d / 2) * ph + h / 2) * pw) * s.f;
  const int64_t voxel = ((n * s.d + d) * s.h + h) * s.w * s.f;
  for (int64_t f = 0; f < s.f; f += 8, to += block, z += 16 * half) {
    Vector<float, 16> constant{}, slope{};
    if (a.slope) constant = twice(load<8>(a.constant + n * s.f + f)), slope = twice(load<8>(a.slope + n * s.f + f));
    auto write = [&](int64_t w, Vector<float, 16> own) {
      const Vector<float, 16> g = a.slope ? constant + slope * load<16>(z + w * 16) + own : own;
      store(to + w * 16, w < seconds ? g : first_alone(g));
    };
    // What stands at i and half a row on, where so many are.
    auto both = [&](const auto* from, int64_t i, int64_t apart, int64_t count) {
      using V = Vector<std::remove_cvref_t<decltype(*from)>, 8>;
      from += i * s.f + f;
      return std::pair{i < count ? load<8>(from) : V{}, i + apart < count ? load<8>(from + apart * s.f) : V{}};
    };
    for (int64_t w = 0; w < half; w += 2) {
      if (pooled) {
        const auto [g, other_g] = both(a.selected + window, w / 2, half / 2, pw);
        const auto [bytes, other_bytes] = both(a.offset + window, w / 2, half / 2, pw);
        const auto words = resized<int16_t>(bytes) | resized<int16_t>(other_bytes) << 8;
        const auto offset = resized<int32_t>((Bytes<16>)words);
        const Vector<float, 16> own = pairs_of(g, other_g);
        const int32_t place = d % 2 * 4 + h % 2 * 2;
        for (int i = 0; i < 2 && w + i < half; i++) write(w + i, offset == place + i ? own : Vector<float, 16>{});
      } else
        for (int i = 0; i < 2 && w + i < half; i++) {
          Vector<float, 16> own{};
          if (!a.offset) {
            const auto [g, other_g] = both(a.selected + voxel, w + i, half, s.w);
            own = pairs_of(g, other_g);
          }
          write(w + i, own);
        }
    }
  }
}
// A row of the gradient's pairs as voxels of 8 filters a block.
inline void unpair_row(const float* pairs, int64_t block, const Shape& s, int64_t to_block, float* to) {
  const int64_t half = half_of(s.w);
  for (int64_t f = 0; f < s.f; f += 8, pairs += block, to += to_block)
    for (int64_t w = 0; w < half; w++) {
      store(to + w * 8, first_of(load<16>(pairs + w * 16)));
      if (w + half < s.w) store(to + (w + half) * 8, second_of(load<16>(pairs + w * 16)));
    }
}

// Back through ReLU and BatchNorm of the layer before, in one row and channels [begin, end): dx of the
// activated x becomes dx of x, and `sums` grow by what factor and bias get, (2, c).
template <class T>
void back_through_norm(const T* x, const Norm<T>& norm, const Shape& s, int64_t begin,
                       int64_t end, T* dx, double* sums) {
  for (int64_t c = begin; c < end; c += 8) {
    const Activation<T, 8> layer(norm, c);
    Vector<T, 8> dfactor[kChains] = {}, dbias[kChains] = {};
    int64_t w = 0;
    auto add_voxel = [&](int chain) {
      const int64_t at = (w + chain) * s.c + c;
      const Vector<T, 8> from = load<8>(x + at);
      const Vector<T, 8> g = layer(from) > 0 ? load<8>(dx + at) : Vector<T, 8>{};
      dfactor[chain] += g * (from - layer.mean);
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

// What factor and bias get, from the sums of a volume's parts in their order.
template <class T>
void write_norm_gradient(const std::vector<std::vector<double>>& parts, const Cut& cut, const Backward<T>& a) {
  const Shape& s = a.s;
  for (int64_t n = 0; n < s.n; n++)
    for (int64_t c = 0; c < s.c; c++) {
      double factor = 0, bias = 0;
      for (int64_t part = n * cut.parts(); part < (n + 1) * cut.parts(); part++)
        factor += parts[part][c], bias += parts[part][s.c + c];
      a.dfactor[n * s.c + c] = factor;
      a.dbias[n * s.c + c] = bias;
    }
}

// dk from its parts, each as large as dk: in double a volume, then volume by volume.
template <class T>
void write_kernel_gradient(const Array<T>& parts, const Cut& cut, const Backward<T>& a,
                           const Parallel& parallel) {
  const Shape& s = a.s;
  parallel(27 * s.c, [&](int tap) {
    std::vector<double> volume(s.f);
    T* dk = a.dk + tap * s.f;
    for (int64_t n = 0; n < s.n; n++) {
      std::fill(volume.begin(), volume.end(), 0);
      for (int64_t part = n * cut.parts(); part < (n + 1) * cut.parts(); part++)
        for (int64_t f = 0; f < s.f; f++) volume[f] += parts[(part * 27 * s.c + tap) * s.f + f];
      for (int64_t f = 0; f < s.f; f++) dk[f] = n ? dk[f] + T(volume[f]) : T(volume[f]);
    }
  });
}

}  // namespace conv3::detail
