// Prints how many GFLOP a second the threads given reach together in multiply-adds that wait for
// nothing: float32, 24 sums of 16 lanes a thread, or 12 of 8, for about a tenth of a second.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
typedef float Vector __attribute__((vector_size(64)));
#else
typedef float Vector __attribute__((vector_size(32)));
#endif
constexpr int kSums = sizeof(Vector) == 64 ? 24 : 12, kRounds = 20000000;

static void multiply_and_add(std::atomic<float>* out) {
  Vector sum[kSums], factor, term;
  for (auto& s : sum) s = Vector{} + 1;
  volatile float known_at_run_time = 0.999f;  // GCC for AVX2 did away with the loop otherwise.
  factor = Vector{} + known_at_run_time;
  term = Vector{} + 1e-3f;
  for (int i = 0; i < kRounds; i++)
    _Pragma("GCC unroll 24") for (int j = 0; j < kSums; j++) sum[j] = sum[j] * factor + term;
  Vector total{};
  for (auto& s : sum) total += s;
  float all = 0;
  for (unsigned i = 0; i < sizeof(Vector) / 4; i++) all += total[i];
  out->store(all);
}

int main(int, char** arguments) {
  const int threads = std::atoi(arguments[1]);
  std::atomic<float> out;
  std::vector<std::thread> running;
  const auto start = std::chrono::steady_clock::now();
  for (int t = 0; t < threads; t++) running.emplace_back(multiply_and_add, &out);
  for (auto& thread : running) thread.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (out.load() < 0) return 1;  // never; it is read so that it has to be computed
  std::printf("%.1f\n", 2.0 * kSums * kRounds * threads * (sizeof(Vector) / 4) / seconds.count() / 1e9);
}
