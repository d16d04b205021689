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

// What the threads of one loop share. A thread of the pool may begin after the loop has ended.
struct Loop {
  std::atomic<int> next{0}, ended{0};
  std::atomic<bool> no_memory{false};
  std::mutex mutex;
  std::condition_variable all_ended;
};

// The caller works too, and waits for tasks that were begun only: a busy pool cannot block it.
void run_on(ffi::ThreadPool& pool, int tasks, const std::function<void(int)>& task) {
  auto loop = std::make_shared<Loop>();
  auto work = [loop, tasks, &task] {
    for (int i; (i = loop->next.fetch_add(1)) < tasks;) {
      try {
        if (!loop->no_memory) task(i);
      } catch (...) {  // nothing but memory can be short here
        loop->no_memory = true;
      }
      if (loop->ended.fetch_add(1) + 1 == tasks) {
        std::lock_guard<std::mutex> lock(loop->mutex);
        loop->all_ended.notify_all();
      }
    }
  };
  const int threads = std::min<int>(pool.num_threads(), tasks);
  try {
    for (int i = 1; i < threads; i++) pool.Schedule(decltype(work)(work));
  } catch (const std::bad_alloc&) {  // the caller does what nobody else does
  }
  work();
  std::unique_lock<std::mutex> lock(loop->mutex);
  loop->all_ended.wait(lock, [&] { return loop->ended == tasks; });
  if (loop->no_memory) throw std::bad_alloc();
}

template <class Run>
ffi::Error on_threads(ffi::ThreadPool& pool, const Run& run) {
  try {
    run([&pool](int tasks, const std::function<void(int)>& task) { run_on(pool, tasks, task); });
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "conv3: no memory for its buffers");
  }
  return ffi::Error::Success();
}

template <class X, class K>
conv3::Shape shape_of(const X& x, const K& kernel) {
  const auto d = x.dimensions();
  return {d[0], d[1], d[2], d[3], d[4], kernel.dimensions()[4]};
}
constexpr char kUnsupported[] = "conv3: needs voxels, 8k filters, and 8k channels or one without norm";

// A buffer without elements stands for one that is not wanted.
template <class B>
auto* wanted(B&& buffer) {
  return buffer.element_count() ? buffer.typed_data() : nullptr;
}

template <ffi::DataType D>
using Numbers = ffi::Buffer<D>;
template <ffi::DataType D>
using Result = ffi::ResultBuffer<D>;

template <class T, ffi::DataType D>
conv3::Norm<T> norm_of(Numbers<D>& mean, Numbers<D>& factor, Numbers<D>& bias) {
  return {wanted(mean), wanted(factor), wanted(bias)};
}

template <ffi::DataType D>
ffi::Error Forward(ffi::ThreadPool pool, Numbers<D> x, Numbers<D> norm_mean, Numbers<D> factor, Numbers<D> bias,
                   Numbers<D> kernel, Numbers<D> sign, Result<D> z, Result<D> value, Result<ffi::S8> offset,
                   Result<D> mean, Result<D> variance) {
  using T = ffi::NativeType<D>;
  const conv3::Forward<T> a{shape_of(x, kernel), x.typed_data(), norm_of<T, D>(norm_mean, factor, bias),
                            kernel.typed_data(), sign.typed_data(), wanted(*z), wanted(*value), wanted(*offset),
                            wanted(*mean), wanted(*variance)};
  if (!x.element_count() || !conv3::supports(a.s, a.norm.mean)) return ffi::Error::InvalidArgument(kUnsupported);
  return on_threads(pool, [&](const conv3::Parallel& parallel) { conv3::forward(a, parallel); });
}

template <ffi::DataType D>
ffi::Error Backward(ffi::ThreadPool pool, Numbers<D> x, Numbers<D> norm_mean, Numbers<D> factor, Numbers<D> bias,
                    Numbers<D> kernel, Numbers<D> z, Numbers<D> selected, ffi::Buffer<ffi::S8> offset,
                    Numbers<D> constant, Numbers<D> slope, Result<D> dx, Result<D> dk, Result<D> dfactor,
                    Result<D> dbias) {
  using T = ffi::NativeType<D>;
  const conv3::Backward<T> a{shape_of(x, kernel), x.typed_data(), norm_of<T, D>(norm_mean, factor, bias),
                             kernel.typed_data(), wanted(z), selected.typed_data(), wanted(offset),
                             wanted(constant), wanted(slope), wanted(*dx), wanted(*dk), wanted(*dfactor),
                             wanted(*dbias)};
  if (!x.element_count() || !conv3::supports(a.s, a.norm.mean)) return ffi::Error::InvalidArgument(kUnsupported);
  if (!a.offset && int64_t(selected.element_count()) != a.s.n * a.s.voxels() * a.s.f)
    return ffi::Error::InvalidArgument("conv3: no window of 2 x 2 x 2 voxels fits in the volume");
  if (a.slope && !a.z && a.s.c > 1) return ffi::Error::InvalidArgument("conv3: z is needed");
  return on_threads(pool, [&](const conv3::Parallel& parallel) { conv3::backward(a, parallel); });
}

// The handler of a function: its parameters are XLA's thread pool, then arguments and results.
template <class Binding, class F>
auto handler_of(F* function, Binding&& binding) {
  return std::move(binding).To(function).release();
}
template <class Next, class... Left, class Binding, class F>
auto handler_of(F* function, Binding&& binding) {
  if constexpr (requires(Next result) { *result; }) {
    using Buffer = std::remove_cvref_t<decltype(*std::declval<Next>())>;
    return handler_of<Left...>(function, std::move(binding).template Ret<Buffer>());
  } else return handler_of<Left...>(function, std::move(binding).template Arg<Next>());
}
template <class... Buffers>
auto handler_of(ffi::Error (*function)(ffi::ThreadPool, Buffers...)) {
  return handler_of<Buffers...>(function, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>());
}

}  // namespace

#define CONV3_TARGET(NAME, ...)                                  \
  extern "C" XLA_FFI_Error* NAME(XLA_FFI_CallFrame* call) {      \
    static auto* const handler = handler_of(__VA_ARGS__);        \
    return handler->Call(call);                                  \
  }
// Two translation units, compiled side by side: one for each way.
#ifdef CONV3_FORWARD
CONV3_TARGET(conv3_forward_f32, Forward<ffi::F32>)
CONV3_TARGET(conv3_forward_f64, Forward<ffi::F64>)
#endif
#ifdef CONV3_BACKWARD
CONV3_TARGET(conv3_backward_f32, Backward<ffi::F32>)
CONV3_TARGET(conv3_backward_f64, Backward<ffi::F64>)
#endif
