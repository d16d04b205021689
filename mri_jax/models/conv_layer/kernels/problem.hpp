// What a conv layer's kernels are given.
#pragma once

#include <cstdint>
#include <functional>

namespace conv3 {

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
  const T *kernel, *sign;       // (3, 3, 3, c, f); (f) of 1, -1 or 0
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

}  // namespace conv3
