// The kernels as targets of XLA's foreign function interface, on XLA's own threads.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>

#include "conv3.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// What the threads of one call share. A thread of the pool may begin after the call has ended.
struct Job {
  std::atomic<int> next{0}, ended{0};
  std::atomic<bool> no_memory{false};
  std::mutex mutex;
  std::condition_variable all_ended;
};

// The caller works too, and waits for tasks that were begun only: a busy pool cannot block it.
conv3::Parallel on_pool(ffi::ThreadPool& pool, std::shared_ptr<Job> job) {
  return [&pool, job](int tasks, const std::function<void(int)>& task) {
    auto work = [job, tasks, &task] {
      for (int i; (i = job->next.fetch_add(1)) < tasks;) {
        try {
          if (!job->no_memory) task(i);
        } catch (const std::bad_alloc&) {
          job->no_memory = true;
        }
        if (job->ended.fetch_add(1) + 1 == tasks) {
          std::lock_guard<std::mutex> lock(job->mutex);
          job->all_ended.notify_all();
        }
      }
    };
    const int threads = std::min<int>(pool.num_threads(), tasks);
    for (int i = 1; i < threads; i++) pool.Schedule(decltype(work)(work));
    work();
    std::unique_lock<std::mutex> lock(job->mutex);
    job->all_ended.wait(lock, [&] { return job->ended == tasks; });
  };
}

template <class Run>
ffi::Error on_threads(ffi::ThreadPool& pool, const Run& run) {
  auto job = std::make_shared<Job>();
  try {
    run(on_pool(pool, job));
  } catch (const std::bad_alloc&) {
    job->no_memory = true;
  }
  if (job->no_memory) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "conv3: no memory for its buffers");
  return ffi::Error::Success();
}

template <class X, class K>
conv3::Shape shape_of(const X& x, const K& kernel) {
  const auto d = x.dimensions();
  return {d[0], d[1], d[2], d[3], d[4], kernel.dimensions()[4]};
}
// A buffer without elements stands for one that is not wanted.
template <class B>
auto* wanted(B&& buffer) {
  return buffer.element_count() ? buffer.typed_data() : nullptr;
}

template <ffi::DataType D>
ffi::Error Forward(ffi::ThreadPool pool, ffi::Buffer<D> x, ffi::Buffer<D> kernel, ffi::Buffer<D> sign,
                   ffi::ResultBuffer<D> z, ffi::ResultBuffer<D> value, ffi::ResultBuffer<ffi::S8> offset,
                   ffi::ResultBuffer<D> mean, ffi::ResultBuffer<D> variance) {
  using T = ffi::NativeType<D>;
  const conv3::Forward<T> a{shape_of(x, kernel), x.typed_data(), kernel.typed_data(), sign.typed_data(),
                            wanted(*z), wanted(*value), wanted(*offset), wanted(*mean), wanted(*variance)};
  if (!conv3::supports(a.s)) return ffi::Error::InvalidArgument("conv3: needs 1 or 8k channels, 8k filters");
  return on_threads(pool, [&](const conv3::Parallel& parallel) { conv3::forward(a, parallel); });
}

template <ffi::DataType D>
ffi::Error Backward(ffi::ThreadPool pool, ffi::Buffer<D> x, ffi::Buffer<D> kernel, ffi::Buffer<D> z,
                    ffi::Buffer<D> selected, ffi::Buffer<ffi::S8> offset, ffi::Buffer<D> constant,
                    ffi::Buffer<D> slope, ffi::ResultBuffer<D> dx, ffi::ResultBuffer<D> dk) {
  using T = ffi::NativeType<D>;
  const conv3::Backward<T> a{shape_of(x, kernel), x.typed_data(), kernel.typed_data(), wanted(z),
                             selected.typed_data(), wanted(offset), wanted(constant), wanted(slope),
                             wanted(*dx), wanted(*dk)};
  if (!conv3::supports(a.s)) return ffi::Error::InvalidArgument("conv3: needs 1 or 8k channels, 8k filters");
  if (a.slope && !a.z && a.s.c > 1) return ffi::Error::InvalidArgument("conv3: z is needed");
  return on_threads(pool, [&](const conv3::Parallel& parallel) { conv3::backward(a, parallel); });
}

}  // namespace

#define CONV3_TARGETS(SUFFIX, D)                                                                         \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(conv3_forward_##SUFFIX, Forward<D>,                                      \
                                ffi::Ffi::Bind()                                                         \
                                    .Ctx<ffi::ThreadPool>()                                              \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Ret<ffi::Buffer<D>>()                                               \
                                    .Ret<ffi::Buffer<D>>()                                               \
                                    .Ret<ffi::Buffer<ffi::S8>>()                                         \
                                    .Ret<ffi::Buffer<D>>()                                               \
                                    .Ret<ffi::Buffer<D>>());                                             \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(conv3_backward_##SUFFIX, Backward<D>,                                    \
                                ffi::Ffi::Bind()                                                         \
                                    .Ctx<ffi::ThreadPool>()                                              \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Arg<ffi::Buffer<ffi::S8>>()                                         \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Arg<ffi::Buffer<D>>()                                               \
                                    .Ret<ffi::Buffer<D>>()                                               \
                                    .Ret<ffi::Buffer<D>>())
CONV3_TARGETS(f32, ffi::F32);
CONV3_TARGETS(f64, ffi::F64);
