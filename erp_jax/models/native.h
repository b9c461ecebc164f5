// What our CPU kernels share: registers of floats, exp, work over threads.

#ifndef ERP_JAX_MODELS_NATIVE_H_
#define ERP_JAX_MODELS_NATIVE_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

// Sixteen at once: one register with AVX-512, two or four without.
constexpr int64_t kLanes = 16;
typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint32_t Words __attribute__((vector_size(kLanes * sizeof(uint32_t))));
typedef int32_t Signed __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Floats Load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

// exp(x) for x <= 0, within 2e-7 of it, by Cephes' polynomial. Zero below -40,
// 4e-18: not to be seen in a float32 sum that holds a one, and its products
// with values could be subnormal, which take a hundred times as long.
inline Floats Exp(Floats x) {
  x = x < -41.0f ? Floats{} - 41.0f : x;
  const Floats rounder = Floats{} + 12582912.0f;  // 1.5 · 2^23.
  const Floats n = (x * 1.44269504f + rounder) - rounder;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = Floats{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Words bits = (Words)(__builtin_convertvector(n, Signed) + 127) << 23;
  return x < -40.0f ? Floats{} : p * (Floats)bits;
}

inline int64_t Lanes(int64_t size) {  // Rounded up to whole registers.
  return (size + kLanes - 1) / kLanes * kLanes;
}

// Runs task(i) for i < num on this thread and the pool's, and waits for all.
// A worker that the pool starts late finds nothing left and touches no task.
template <typename Task>
void ForEach(xla::ffi::ThreadPool pool, int64_t num, const Task& task) {
  struct State {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable all_done;
    int64_t done = 0;
  };
  const auto state = std::make_shared<State>();
  const auto work = [state, num, &task] {
    int64_t mine = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < num; ++mine) task(i);
    if (mine == 0) return;
    std::lock_guard<std::mutex> lock(state->mutex);
    if ((state->done += mine) == num) state->all_done.notify_all();
  };
  for (int64_t t = 1; t < std::min<int64_t>(num, pool.num_threads()); ++t) {
    pool.Schedule([work] { work(); });
  }
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == num; });
}

#endif  // ERP_JAX_MODELS_NATIVE_H_
