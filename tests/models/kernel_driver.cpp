// Runs the kernels on many shapes from several threads, for a sanitizer to watch: jaxlib is not
// instrumented. Buffers have exactly the size that the kernels are promised. Ends with 1 where the
// bytes of one and of four threads differ, or a layer from plain loops in double.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "conv3.hpp"

namespace {

conv3::Parallel on_threads(int threads) {
  return [threads](int tasks, const std::function<void(int)>& task) {
    std::atomic<int> next{0};
    auto work = [&] {
      for (int i; (i = next.fetch_add(1)) < tasks;) task(i);
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
  };
}

template <class T>
struct Buffer {
  std::unique_ptr<T[]> numbers;
  int64_t size;
  explicit Buffer(int64_t n) : numbers(new T[n]()), size(n) {}
  // Numbers from -1 to 1, by a linear congruential generator.
  Buffer(int64_t n, uint32_t seed) : Buffer(n) {
    for (int64_t i = 0; i < n; i++) {
      seed = seed * 1664525u + 1013904223u;
      numbers[i] = T(int32_t(seed) >> 8) / T(1 << 23);
    }
  }
  T* get() const { return size ? numbers.get() : nullptr; }
  bool operator==(const Buffer& other) const {
    return std::memcmp(numbers.get(), other.numbers.get(), size * sizeof(T)) == 0;
  }
};

// Calls use(x, z, tap) for the places of all pairs of an input and an output voxel that a tap joins.
template <class Use>
void each_tap(const conv3::Shape& s, const Use& use) {
  for (int64_t z = 0; z < s.n * s.voxels(); z++)
    for (int t = 0; t < 27; t++) {
      const int64_t d = z / (s.h * s.w) % s.d + t / 9 - 1, h = z / s.w % s.h + t / 3 % 3 - 1, w = z % s.w + t % 3 - 1;
      if (d < 0 || d >= s.d || h < 0 || h >= s.h || w < 0 || w >= s.w) continue;
      use(((z / s.voxels() * s.d + d) * s.h + h) * s.w + w, z, t);
    }
}

template <class T>
bool close(const T* found, const std::vector<double>& right) {
  double most = 1, apart = 0;
  for (size_t i = 0; i < right.size(); i++) {
    most = std::max(most, std::abs(right[i]));
    apart = std::max(apart, std::abs(found[i] - right[i]));
  }
  return apart <= (sizeof(T) == 4 ? 2e-5 : 1e-10) * most;
}

// Whether the numbers of both passes are those of plain loops; arrays that are null are not looked at.
template <class T>
bool as_plain_loops(const conv3::Forward<T>& f, const conv3::Backward<T>& b) {
  const conv3::Shape& s = f.s;
  const int64_t voxels = s.n * s.voxels();
  std::vector<double> x(f.x, f.x + voxels * s.c), z(voxels * s.f), dz(z.size()), dx(x.size()), dk(27 * s.c * s.f);
  if (f.norm.mean)
    for (size_t i = 0; i < x.size(); i++) {
      const int64_t c = i % s.c;
      x[i] = std::max(0.0, f.norm.factor[c] * (x[i] - f.norm.mean[c]) + f.norm.bias[c]);
    }
  each_tap(s, [&](int64_t from, int64_t to, int t) {
    for (int64_t c = 0; c < s.c; c++)
      for (int64_t i = 0; i < s.f; i++) z[to * s.f + i] += x[from * s.c + c] * f.kernel[(t * s.c + c) * s.f + i];
  });
  std::vector<double> value(f.value ? s.n * (s.d / 2) * (s.h / 2) * (s.w / 2) * s.f : 0);
  for (int64_t v = 0; v < voxels; v++)
    for (int64_t i = 0; i < s.f; i++) {
      const int64_t n = v / s.voxels(), d = v / (s.h * s.w) % s.d, h = v / s.w % s.h, w = v % s.w, at = v * s.f + i;
      dz[at] = b.slope ? b.constant[n * s.f + i] + b.slope[n * s.f + i] * z[at] : 0;
      if (!b.offset) dz[at] += b.selected[at];
      else if (d / 2 < s.d / 2 && h / 2 < s.h / 2 && w / 2 < s.w / 2) {
        const int64_t window = (((n * (s.d / 2) + d / 2) * (s.h / 2) + h / 2) * (s.w / 2) + w / 2) * s.f + i;
        if (b.offset[window] != 4 * (d % 2) + 2 * (h % 2) + w % 2) continue;
        dz[at] += b.selected[window];
        value[window] = z[at];
      }
    }
  each_tap(s, [&](int64_t from, int64_t to, int t) {
    for (int64_t c = 0; c < s.c; c++)
      for (int64_t i = 0; i < s.f; i++) {
        dx[from * s.c + c] += dz[to * s.f + i] * f.kernel[(t * s.c + c) * s.f + i];
        dk[(t * s.c + c) * s.f + i] += dz[to * s.f + i] * x[from * s.c + c];
      }
  });
  std::vector<double> dfactor(b.dfactor ? s.n * s.c : 0), dbias(dfactor.size());
  if (f.norm.mean)
    for (size_t i = 0; i < dx.size(); i++) {
      const int64_t c = i % s.c, n = i / (s.voxels() * s.c);
      if (x[i] <= 0) dx[i] = 0;
      if (b.dfactor) dfactor[n * s.c + c] += dx[i] * (f.x[i] - f.norm.mean[c]), dbias[n * s.c + c] += dx[i];
      dx[i] *= f.norm.factor[c];
    }
  return (!f.z || close(f.z, z)) && (!f.value || close(f.value, value)) && (!b.dx || close(b.dx, dx)) &&
         (!b.dk || close(b.dk, dk)) && close(b.dfactor, dfactor) && close(b.dbias, dbias);
}

struct Case {
  conv3::Shape s;
  bool pool, statistics, normed, dx, dk;
};

template <class T>
bool right(const Case& c) {
  const conv3::Shape& s = c.s;
  const int64_t voxels = s.n * s.voxels(), windows = s.n * (s.d / 2) * (s.h / 2) * (s.w / 2);
  const Buffer<T> x(voxels * s.c, 1), kernel(27 * s.c * s.f, 2), sign(s.f, 3);
  for (int64_t i = 0; i < s.f; i++) sign.numbers[i] = sign.numbers[i] < -0.5 ? 0 : sign.numbers[i] < 0.2 ? -1 : 1;
  const Buffer<T> constant(c.statistics ? s.n * s.f : 0, 4), slope(c.statistics ? s.n * s.f : 0, 5);
  const int64_t channels = c.normed ? s.c : 0;
  const Buffer<T> mean(channels, 7), factor(channels, 8), bias(channels, 9);
  const conv3::Norm<T> norm{mean.get(), factor.get(), bias.get()};
  bool same = true;
  std::vector<std::unique_ptr<Buffer<T>>> first;
  for (int threads : {1, 4}) {
    std::vector<std::unique_ptr<Buffer<T>>> made;
    auto make = [&](int64_t n) {
      made.push_back(std::make_unique<Buffer<T>>(n));
      return made.back()->get();
    };
    Buffer<int8_t> offset(c.pool ? windows * s.f : 0);
    const bool keeps_z = !c.pool || s.c > 1;
    const conv3::Forward<T> forward{s, x.get(), norm, kernel.get(), sign.get(),
                                    make(keeps_z ? voxels * s.f : 0), make(c.pool ? windows * s.f : 0),
                                    offset.get(), make(c.statistics ? s.n * s.f : 0),
                                    make(c.statistics ? s.n * s.f : 0)};
    conv3::forward(forward, on_threads(threads));
    if (c.pool) {  // as in inference
      conv3::Forward<T> alone = forward;
      alone.z = alone.mean = alone.variance = nullptr;
      alone.value = make(windows * s.f);
      conv3::forward(alone, on_threads(threads));
      same = same && std::memcmp(alone.value, forward.value, windows * s.f * sizeof(T)) == 0;
    }
    const bool needs_z = c.statistics && s.c > 1;
    const Buffer<T> selected(c.pool ? windows * s.f : voxels * s.f, 6);
    const conv3::Backward<T> backward{s, x.get(), norm, kernel.get(), needs_z ? forward.z : nullptr, selected.get(), offset.get(),
                                      constant.get(), slope.get(), make(c.dx ? voxels * s.c : 0),
                                      make(c.dk ? 27 * s.c * s.f : 0), make(c.dx ? s.n * channels : 0),
                                      make(c.dx ? s.n * channels : 0)};
    conv3::backward(backward, on_threads(threads));
    const bool small = voxels * s.c * s.f < 1 << 22;  // plain loops are slow
    same = same && (threads != 1 || !small || as_plain_loops(forward, backward));
    if (threads == 1) first = std::move(made);
    else
      for (size_t i = 0; i < made.size(); i++) same = same && *made[i] == *first[i];
  }
  return same;
}

}  // namespace

// An argument N tries every Nth layer alone, for an emulated processor.
int main(int arguments, char** argument) {
  int met = 0, tried = 0, wrong = 0;
  const int every = arguments > 1 ? std::stoi(argument[1]) : 1;
  const int64_t sizes[][3] = {{1, 1, 1}, {2, 3, 2}, {5, 4, 7}, {3, 21, 30}, {6, 40, 17}, {2, 3, 58}, {7, 9, 13}};
  for (const auto& size : sizes)
    for (int64_t channels : {1, 8, 16, 24, 32})
      for (int64_t filters : {8, 16, 24, 32})
        for (bool pool : {false, true})
          for (bool statistics : {false, true})
            for (bool normed : {false, true}) {
              // Both gradients, or one of them.
              const int wanted = met % 3;
              const Case c{{2, size[0], size[1], size[2], channels, filters},
                           pool, statistics, normed, wanted != 1, wanted != 2};
              if (pool && (size[0] < 2 || size[1] < 2 || size[2] < 2)) continue;
              if (!conv3::supports(c.s, normed) || met++ % every) continue;
              const bool same = right<float>(c) && right<double>(c);
              tried++;
              wrong += !same;
            }
  std::printf("%d layers, %d wrong\n", tried, wrong);
  return wrong != 0;
}
