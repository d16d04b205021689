// Runs the kernels on many shapes from several threads, for a sanitizer to watch: jaxlib is not
// instrumented. Buffers have exactly the size that the kernels are promised. Ends with 1 where the
// bytes of one and of four threads differ.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
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

struct Case {
  conv3::Shape s;
  bool pool, statistics, normed, dx, dk;
};

template <class T>
bool same_for_threads(const Case& c) {
  const conv3::Shape& s = c.s;
  const int64_t voxels = s.n * s.voxels(), windows = s.n * (s.d / 2) * (s.h / 2) * (s.w / 2);
  const Buffer<T> x(voxels * s.c, 1), kernel(27 * s.c * s.f, 2), sign(s.f, 3);
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
    if (threads == 1) first = std::move(made);
    else
      for (size_t i = 0; i < made.size(); i++) same = same && *made[i] == *first[i];
  }
  return same;
}

}  // namespace

int main() {
  int tried = 0, wrong = 0;
  const int64_t sizes[][3] = {{1, 1, 1}, {2, 3, 2}, {5, 4, 7}, {3, 21, 30}, {6, 40, 17}, {2, 3, 58}};
  for (const auto& size : sizes)
    for (int64_t channels : {1, 8, 16, 24, 32})
      for (int64_t filters : {8, 16, 24, 32})
        for (bool pool : {false, true})
          for (bool statistics : {false, true})
            for (bool normed : {false, true}) {
              // Both gradients, or one of them.
              const int wanted = tried % 3;
              const Case c{{2, size[0], size[1], size[2], channels, filters},
                           pool, statistics, normed, wanted != 1, wanted != 2};
              if (pool && (size[0] < 2 || size[1] < 2 || size[2] < 2)) continue;
              if (!conv3::supports(c.s, normed)) continue;
              const bool same = same_for_threads<float>(c) && same_for_threads<double>(c);
              tried++;
              wrong += !same;
            }
  std::printf("%d layers, %d differ between one and four threads\n", tried, wrong);
  return wrong != 0;
}
