// Attention of one new token per sequence to its prompt's keys, to its own, and
// to itself: one softmax over all three. Each key and value is read once, where
// it lies in the cache of all layers, and only from the first to the last entry
// that is seen. Sums and probabilities are float32.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

inline float Value(float x) { return x; }

inline float Value(uint16_t bits) {  // Of bfloat16.
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, sizeof x);
  return x;
}

// exp(x) for x <= 0, within 2e-7 of it; zero below -87. Cephes' polynomial.
inline float Exp(float x) {
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < -87.0f ? 0.0f : p * scale;
}

// One layer's keys [W, S] and values [S, W] of one head, and which are seen.
template <typename T>
struct Part {
  const T* key;
  const T* value;
  const bool* seen;
  int64_t size;
  int64_t first;  // Entries before it, and from `end` on, are not seen.
  int64_t end;

  void Trim() {
    first = 0;
    end = size;
    while (end > 0 && !seen[end - 1]) --end;
    while (first < end && !seen[first]) ++first;
  }
};

struct Sizes {
  int64_t R, W;
  float scale, softcap;
};

// Scores [R, stride] of the seen entries, -inf of others, after the scale.
template <typename T>
void Score(const float* q, const Part<T>& part, const Sizes& n, int64_t stride,
           float* score) {
  for (int64_t r = 0; r < n.R; ++r) {
    float* row = score + r * stride;
    std::fill(row + part.first, row + part.end, 0.0f);
    for (int64_t w = 0; w < n.W; ++w) {
      const T* key = part.key + w * part.size;
      const float x = q[r * n.W + w];
      for (int64_t s = part.first; s < part.end; ++s) {
        row[s] += x * Value(key[s]);
      }
    }
    for (int64_t s = part.first; s < part.end; ++s) {
      float x = row[s] * n.scale;
      if (n.softcap != 0) x = n.softcap * std::tanh(x / n.softcap);
      row[s] = part.seen[s] ? x : kNone;
    }
  }
}

// Adds the values, weighted by exp(score - top), to out [R, W], and the weights
// to total [R].
template <typename T>
void Add(float* score, const float* top, const Part<T>& part, const Sizes& n,
         int64_t stride, float* total, float* out) {
  for (int64_t r = 0; r < n.R; ++r) {
    float* row = score + r * stride;
    float sum = 0;
    for (int64_t s = part.first; s < part.end; ++s) {
      row[s] = Exp(row[s] - top[r]);
    }
    for (int64_t s = part.first; s < part.end; ++s) sum += row[s];
    total[r] += sum;
  }
  for (int64_t s = part.first; s < part.end; ++s) {
    const T* value = part.value + s * n.W;
    for (int64_t r = 0; r < n.R; ++r) {
      const float weight = score[r * stride + s];
      float* sum = out + r * n.W;
      for (int64_t w = 0; w < n.W; ++w) sum[w] += weight * Value(value[w]);
    }
  }
}

// Attention of the R queries [R, W] of one head; `room` holds R (A + B) floats.
template <typename T>
void Attend(const float* q, const float* key, const float* value, bool sees_it,
            const Part<T>& shared, const Part<T>& own, const Sizes& n,
            float* room, float* out) {
  float* shared_score = room;
  float* own_score = room + n.R * shared.size;
  float* top = own_score + n.R * own.size;
  float* total = top + n.R;
  Score(q, shared, n, shared.size, shared_score);
  Score(q, own, n, own.size, own_score);
  for (int64_t r = 0; r < n.R; ++r) {
    float x = 0;
    for (int64_t w = 0; w < n.W; ++w) x += q[r * n.W + w] * key[w];
    x *= n.scale;
    if (n.softcap != 0) x = n.softcap * std::tanh(x / n.softcap);
    // The finite floor keeps a row that sees nothing at zeros.
    float most = sees_it ? x : std::numeric_limits<float>::lowest();
    for (int64_t s = shared.first; s < shared.end; ++s) {
      most = std::max(most, shared_score[r * shared.size + s]);
    }
    for (int64_t s = own.first; s < own.end; ++s) {
      most = std::max(most, own_score[r * own.size + s]);
    }
    const float weight = sees_it ? Exp(x - most) : 0.0f;
    top[r] = most;
    total[r] = weight;
    for (int64_t w = 0; w < n.W; ++w) out[r * n.W + w] = weight * value[w];
  }
  Add(shared_score, top, shared, n, shared.size, total, out);
  Add(own_score, top, own, n, own.size, total, out);
  for (int64_t r = 0; r < n.R; ++r) {
    const float sum = std::max(total[r], std::numeric_limits<float>::min());
    for (int64_t w = 0; w < n.W; ++w) out[r * n.W + w] /= sum;
  }
}

// Runs task(i) for i < num on this thread and the pool's, and waits for all.
// A worker that the pool starts late finds nothing left and touches no task.
template <typename Task>
void ForEach(ffi::ThreadPool pool, int64_t num, const Task& task) {
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

// q [P, K, G, R, W]; new key and value [P, K, G, W]; caches [L, ≥P, (K,) G,
// W, S] and [L, ≥P, (K,) G, S, W]; what is seen [P, A] and [P, K, 1 + S], the
// new token's key first. Gives [P, K, G, R, W].
template <typename T>
ffi::Error Run(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> q,
               ffi::Buffer<ffi::F32> key, ffi::Buffer<ffi::F32> value,
               ffi::AnyBuffer shared_key, ffi::AnyBuffer shared_value,
               ffi::AnyBuffer own_key, ffi::AnyBuffer own_value,
               ffi::Buffer<ffi::PRED> shared_seen,
               ffi::Buffer<ffi::PRED> own_seen, ffi::Buffer<ffi::S32> layer,
               ffi::ResultBuffer<ffi::F32> out, float scale, float softcap) {
  const auto dims = q.dimensions();
  const int64_t P = dims[0], K = dims[1], G = dims[2];
  const Sizes n{dims[3], dims[4], scale, softcap};
  const int64_t all_P = own_key.dimensions()[1];
  const int64_t A = shared_key.dimensions()[4], S = own_key.dimensions()[5];
  const int64_t seen_S = own_seen.dimensions()[2] - 1;
  const int64_t at = layer.typed_data()[0];
  const auto* shared_keys = static_cast<const T*>(shared_key.untyped_data());
  const auto* shared_values = static_cast<const T*>(shared_value.untyped_data());
  const auto* own_keys = static_cast<const T*>(own_key.untyped_data());
  const auto* own_values = static_cast<const T*>(own_value.untyped_data());
  const bool* see_shared = shared_seen.typed_data();
  const bool* see_own = own_seen.typed_data();
  ForEach(pool, P * K, [&](int64_t i) {
    const int64_t p = i / K;
    const bool* seen = see_own + i * (1 + seen_S);
    std::vector<float> room(n.R * (A + S + 2));
    Part<T> shared{nullptr, nullptr, see_shared + p * A, A, 0, 0};
    Part<T> own{nullptr, nullptr, seen + 1, seen_S, 0, 0};
    shared.Trim();
    own.Trim();
    own.size = S;
    for (int64_t g = 0; g < G; ++g) {
      const int64_t head = i * G + g;
      const int64_t at_shared = ((at * all_P + p) * G + g) * A * n.W;
      const int64_t at_own = ((at * all_P * K + i) * G + g) * S * n.W;
      shared.key = shared_keys + at_shared;
      shared.value = shared_values + at_shared;
      own.key = own_keys + at_own;
      own.value = own_values + at_own;
      Attend(q.typed_data() + head * n.R * n.W, key.typed_data() + head * n.W,
             value.typed_data() + head * n.W, seen[0], shared, own, n,
             room.data(), out->typed_data() + head * n.R * n.W);
    }
  });
  return ffi::Error::Success();
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::Buffer<ffi::PRED>>()
      .Arg<ffi::Buffer<ffi::PRED>>()
      .Arg<ffi::Buffer<ffi::S32>>()
      .Ret<ffi::Buffer<ffi::F32>>()
      .Attr<float>("scale")
      .Attr<float>("softcap");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DecodeAttentionFloat32, Run<float>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(DecodeAttentionBfloat16, Run<uint16_t>,
                              Binding());
