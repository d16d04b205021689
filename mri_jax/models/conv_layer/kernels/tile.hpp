// Sums of products in registers: a row of voxels times the weights of some filters.
#pragma once

#include <utility>

#include "vectors.hpp"

namespace conv3::detail {

// Voxels of a tile: what the registers hold beside the taps' weights and a broadcast voxel. More than 14
// gain nothing and take the compiler long.
template <class T, int L, int FB, int TAPS = 3>
constexpr int most_voxels() {
  if (sizeof(T) == 8) return 4;
  constexpr int taken = kLanes == 8 && kRegisters == 32 ? 2 : 1;
  return std::clamp((kRegisters / taken - TAPS * FB - 2) / FB, 1, 14);
}

// One row of taps: a padded input row and its weights, [XS][TAPS][FB * L].
template <class T>
struct Tap {
  const T *x, *weights;
};
// Where a tile's sums go: `stride` numbers from voxel to voxel, and what is second in pairs `second` numbers
// on, where only so many voxels are; with `second` 0 pairs stay together.
template <class T>
struct Target {
  T* out;
  int64_t stride, second, seconds;
};

// Adds rows of TAPS taps to the sums of V voxels (P: pairs) from w0 on; `first` starts the sums at zero.
template <class T, int L, int FB, int XS, bool P, int TAPS, int V>
void tile(const Tap<T>* taps, int count, int64_t w0, const Target<T>& target, bool first) {
  constexpr int kNumbers = P ? 2 : 1;
  Vector<T, L> sum[V][FB];
  T* to = target.out;
  CONV3_UNROLL for (int v = 0; v < V; v++, to += target.stride) {
    CONV3_HIDE(to);
    CONV3_UNROLL for (int b = 0; b < FB; b++) {
      if (first) sum[v][b] = Vector<T, L>{};
      else if (P && target.second) {
        if constexpr (P)
          sum[v][b] = pairs_of(load<8>(to), v < target.seconds ? load<8>(to + target.second) : Half{});
      } else sum[v][b] = load<L>(to + b * L);
    }
  }
  for (int i = 0; i < count; i++) {
    const T *row = taps[i].x + w0 * XS * kNumbers, *weights = taps[i].weights;
    for (int c = 0; c < XS; c++) {
      Vector<T, L> tap[TAPS][FB];
      const T* x = row + c * kNumbers;
      CONV3_HIDE(x);
      CONV3_UNROLL for (int t = 0; t < TAPS; t++) CONV3_UNROLL for (int b = 0; b < FB; b++)
          tap[t][b] = load<L>(weights + ((c * TAPS + t) * FB + b) * L);
      CONV3_UNROLL for (int u = 0; u < V + TAPS - 1; u++) {
        const Vector<T, L> voxel = voxel_at<L, P>(x + u * XS * kNumbers);
        CONV3_UNROLL for (int t = 0; t < TAPS; t++) if (u >= t && u - t < V)
            CONV3_UNROLL for (int b = 0; b < FB; b++) sum[u - t][b] += tap[t][b] * voxel;
      }
    }
  }
  to = target.out;
  CONV3_UNROLL for (int v = 0; v < V; v++, to += target.stride) {
    CONV3_HIDE(to);
    if (P && target.second) {
      if constexpr (P) {
        store(to, first_of(sum[v][0]));
        if (v < target.seconds) store(to + target.second, second_of(sum[v][0]));
      }
    } else CONV3_UNROLL for (int b = 0; b < FB; b++) store(to + b * L, sum[v][b]);
  }
}
template <class T>
using Tile = void (*)(const Tap<T>*, int, int64_t, const Target<T>&, bool);

template <class T, int L, int FB, int XS, bool P, int TAPS = 3>
Tile<T> tile_of(int voxels) {
  return []<int... I>(int v, std::integer_sequence<int, I...>) {
    static constexpr Tile<T> tiles[] = {tile<T, L, FB, XS, P, TAPS, I + 1>...};
    return tiles[v - 1];
  }(voxels, std::make_integer_sequence<int, most_voxels<T, L, FB, TAPS>()>());
}

}  // namespace conv3::detail
