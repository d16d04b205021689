// A 3 x 3 x 3 convolution with stride 1 and zero padding on one CPU, channels last (N, D, H, W, C),
// with what a conv layer needs beside it: BatchNorm and ReLU of the layer before, moments of the
// result a volume, the maximum of each 2 x 2 x 2 window (forward), and the way back through all of it
// (backward).
//
//   problem.hpp   what is given
//   vectors.hpp   vectors of registers; tile.hpp: sums of products in them
//   cut.hpp       tasks and parts; rows.hpp: what is done to rows
//   direct.hpp    the plain sum over 27 taps
//   winograd.hpp  fewer products, for many channels and filters
//
// What is exact. Work and partial sums are cut by shape alone, never by the number of threads: equal
// inputs give equal bytes. In the plain sum every voxel adds its taps in one order, so that equal
// neighbourhoods tie to the last bit; in tiles those do that stand beside each other along an axis. What
// is not finite reaches the same voxels, in tiles as NaN. Sums over voxels are taken in float a row (of
// the kernel's gradient: a part), then in double.
#pragma once

#include "direct.hpp"
#include "winograd.hpp"

namespace conv3 {

// Whether there are kernels for a layer: 8k filters, and 8k channels or a single one without norm.
inline bool supports(const Shape& s, bool normed) {
  return s.f > 0 && s.f % 8 == 0 && s.c > 0 && (s.c % 8 == 0 || (s.c == 1 && !normed));
}

template <class T>
void forward(const Forward<T>& a, const Parallel& parallel) {
  using namespace detail;
  tiled(a.s) ? forward_of_tiles<T, lanes_of<T>(32)>(a, parallel) : forward_of_rows(a, parallel);
}

template <class T>
void backward(const Backward<T>& a, const Parallel& parallel) {
  using namespace detail;
  tiled(a.s) ? backward_of_tiles<T, lanes_of<T>(32)>(a, parallel) : backward_of_rows(a, parallel);
}

}  // namespace conv3
