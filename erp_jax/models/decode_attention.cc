// Attention of one new token per sequence to its prompt's keys, to its own, and
// to itself: one softmax over all three. Each key and value is read once, where
// it lies in the cache of all layers, and only from the first to the last entry
// that is seen. Sums and probabilities are float32.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "native.h"

namespace ffi = xla::ffi;

namespace {

using ::Exp;  // Beside those of other types.
using ::Load;

constexpr float kNone = -std::numeric_limits<float>::infinity();

typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t))));

inline Floats Load(const uint16_t* from) {  // The bits of bfloat16.
  Halves bits;
  std::memcpy(&bits, from, sizeof bits);
  return (Floats)(__builtin_convertvector(bits, Words) << 16);
}

inline float Value(float x) { return x; }

inline float Value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, sizeof x);
  return x;
}

inline float Exp(float x) { return Exp(Floats{} + x)[0]; }

// One layer's keys [W, S] and values [S, W] of one head, and which are seen.
template <typename T>
struct Part {
  const T* key;
  const T* value;
  const bool* seen;
  int64_t size;
  int64_t known;  // Entries that `seen` tells of; later ones are not seen.
  int64_t first;  // Entries before it, and from `end` on, are not seen.
  int64_t end;

  // Between rows of scores.
  int64_t Stride() const { return Lanes(size); }
  // The registers that hold the entries from `first` to `end`.
  int64_t From() const { return first / kLanes * kLanes; }
  int64_t To() const { return Lanes(end); }

  void Trim() {
    first = 0;
    end = known;
    while (end > 0 && !seen[end - 1]) --end;
    while (first < end && !seen[first]) ++first;
  }
};

struct Sizes {
  int64_t R, W;
  float scale, softcap;
};

// Rows fetched before they are read: each begins far from the last one's end.
constexpr int64_t kAhead = 16;

// out[n][i] = Σ_t x[n * x_stride + t] y[t * y_stride + i] for N rows and M
// registers of columns, t in [first, end). M is as large as registers allow: then
// y is read along its rows.
template <int N, int M, typename T>
void Multiply(const float* x, int64_t x_stride, const T* y, int64_t y_stride,
              int64_t first, int64_t end, float (&out)[N][M * kLanes]) {
  Floats sum[N][M] = {};
  for (int64_t t = first; t < end; ++t) {
    for (int m = 0; m < M; ++m) {
      __builtin_prefetch(y + (t + kAhead) * y_stride + m * kLanes);
      const Floats value = Load(y + t * y_stride + m * kLanes);
      for (int n = 0; n < N; ++n) sum[n][m] += x[n * x_stride + t] * value;
    }
  }
  std::memcpy(out, sum, sizeof out);
}

// The same of fewer columns than a register holds.
template <int N, typename T>
void MultiplyFew(const float* x, int64_t x_stride, const T* y, int64_t y_stride,
                 int64_t first, int64_t end, int64_t count,
                 float (&out)[N][kLanes]) {
  for (int n = 0; n < N; ++n) {
    for (int64_t i = 0; i < count; ++i) {
      out[n][i] = 0;
      for (int64_t t = first; t < end; ++t) {
        out[n][i] += x[n * x_stride + t] * Value(y[t * y_stride + i]);
      }
    }
  }
}

// What scores become before the softmax: `count` columns of N rows from s on.
template <int N, int M, typename T>
void Keep(const float (&sum)[N][M], int64_t s, int64_t count,
          const Part<T>& part, const Sizes& n, float* score) {
  const int64_t end = std::min(s + count, part.end);
  for (int r = 0; r < N; ++r) {
    float* row = score + r * part.Stride();
    for (int64_t at = std::max(s, part.first); at < end; ++at) {
      float x = sum[r][at - s] * n.scale;
      if (n.softcap != 0) x = n.softcap * std::tanh(x / n.softcap);
      row[at] = part.seen[at] ? x : kNone;
    }
  }
}

// Scores from entry s on in steps of M registers; gives the entry after them. The
// last step ends with the row, and may begin among entries already done.
template <int N, int M, typename T>
int64_t ScoreColumns(const float* q, int64_t s, const Part<T>& part,
                     const Sizes& n, float* score) {
  constexpr int64_t count = M * kLanes;
  for (; s < part.end && part.size >= count; s += count) {
    s = std::min(s, part.size - count);
    float sum[N][count];
    Multiply<N, M>(q, n.W, part.key + s, part.size, 0, n.W, sum);
    Keep(sum, s, count, part, n, score);
  }
  return s;
}

// Scores [N, stride] of the seen entries after the scale, -inf of others.
template <int N, typename T>
void ScoreRows(const float* q, const Part<T>& part, const Sizes& n,
               float* score) {
  for (int r = 0; r < N; ++r) {
    float* row = score + r * part.Stride();
    std::fill(row + part.From(), row + part.To(), kNone);
  }
  int64_t s = ScoreColumns<N, 8>(q, part.first, part, n, score);
  s = ScoreColumns<N, 1>(q, s, part, n, score);
  if (s < part.end) {
    float sum[N][kLanes];
    MultiplyFew(q, n.W, part.key + s, part.size, 0, n.W, part.size - s, sum);
    Keep(sum, s, part.size - s, part, n, score);
  }
}

// The largest of the scores of a row, and `most`.
template <typename T>
float Top(const float* row, const Part<T>& part, float most) {
  Floats top = Floats{} + most;
  for (int64_t s = part.From(); s < part.To(); s += kLanes) {
    const Floats x = Load(row + s);
    top = x > top ? x : top;
  }
  for (int64_t i = 0; i < kLanes; ++i) most = std::max(most, top[i]);
  return most;
}

// Adds weighted values from column w on in steps of M registers, while whole ones
// are left; gives the column after them.
template <int N, int M, typename T>
int64_t AddColumns(const float* weight, int64_t w, const Part<T>& part,
                   const Sizes& n, float* out) {
  constexpr int64_t count = M * kLanes;
  for (; w + count <= n.W; w += count) {
    float sum[N][count];
    Multiply<N, M>(weight, part.Stride(), part.value + w, n.W, part.first,
                   part.end, sum);
    for (int r = 0; r < N; ++r) {
      for (int64_t i = 0; i < count; ++i) out[r * n.W + w + i] += sum[r][i];
    }
  }
  return w;
}

// Adds the values, weighted by exp(score - top), to out [R, W], and the weights
// to total [R].
template <int N, typename T>
void AddRows(float* score, const float* top, const Part<T>& part,
             const Sizes& n, float* total, float* out) {
  for (int r = 0; r < N; ++r) {
    float* row = score + r * part.Stride();
    Floats sum = {};
    for (int64_t s = part.From(); s < part.To(); s += kLanes) {
      const Floats weight = Exp(Load(row + s) - top[r]);
      std::memcpy(row + s, &weight, sizeof weight);
      sum += weight;
    }
    for (int64_t i = 0; i < kLanes; ++i) total[r] += sum[i];
  }
  int64_t w = AddColumns<N, 4>(score, 0, part, n, out);
  w = AddColumns<N, 1>(score, w, part, n, out);
  if (w < n.W) {
    float sum[N][kLanes];
    MultiplyFew(score, part.Stride(), part.value + w, n.W, part.first, part.end,
                n.W - w, sum);
    for (int r = 0; r < N; ++r) {
      for (int64_t i = 0; w + i < n.W; ++i) out[r * n.W + w + i] += sum[r][i];
    }
  }
}

// Calls rows(std::integral_constant<int, N>, r) for up to four rows at a time.
template <typename Rows>
void ForRows(int64_t R, const Rows& rows) {
  for (int64_t r = 0; r < R; r += 4) {
    switch (std::min<int64_t>(4, R - r)) {
      case 1: rows(std::integral_constant<int, 1>(), r); break;
      case 2: rows(std::integral_constant<int, 2>(), r); break;
      case 3: rows(std::integral_constant<int, 3>(), r); break;
      default: rows(std::integral_constant<int, 4>(), r);
    }
  }
}

template <typename T>
void Score(const float* q, const Part<T>& part, const Sizes& n, float* score) {
  ForRows(n.R, [&](auto num, int64_t r) {
    ScoreRows<num.value>(q + r * n.W, part, n, score + r * part.Stride());
  });
}

template <typename T>
void Add(float* score, const float* top, const Part<T>& part, const Sizes& n,
         float* total, float* out) {
  ForRows(n.R, [&](auto num, int64_t r) {
    AddRows<num.value>(score + r * part.Stride(), top + r, part, n, total + r,
                       out + r * n.W);
  });
}

// Attention of the R queries [R, W] of one head; `room` is for their scores.
template <typename T>
void Attend(const float* q, const float* key, const float* value, bool sees_it,
            const Part<T>& shared, const Part<T>& own, const Sizes& n,
            float* room, float* out) {
  float* shared_score = room;
  float* own_score = room + n.R * shared.Stride();
  float* top = own_score + n.R * own.Stride();
  float* total = top + n.R;
  Score(q, shared, n, shared_score);
  Score(q, own, n, own_score);
  for (int64_t r = 0; r < n.R; ++r) {
    float x = 0;
    for (int64_t w = 0; w < n.W; ++w) x += q[r * n.W + w] * key[w];
    x *= n.scale;
    if (n.softcap != 0) x = n.softcap * std::tanh(x / n.softcap);
    // The finite floor keeps a row that sees nothing at zeros.
    float most = sees_it ? x : std::numeric_limits<float>::lowest();
    most = Top(shared_score + r * shared.Stride(), shared, most);
    most = Top(own_score + r * own.Stride(), own, most);
    const float weight = sees_it ? Exp(x - most) : 0.0f;
    top[r] = most;
    total[r] = weight;
    for (int64_t w = 0; w < n.W; ++w) out[r * n.W + w] = weight * value[w];
  }
  Add(shared_score, top, shared, n, total, out);
  Add(own_score, top, own, n, total, out);
  for (int64_t r = 0; r < n.R; ++r) {
    const float sum = std::max(total[r], std::numeric_limits<float>::min());
    for (int64_t w = 0; w < n.W; ++w) out[r * n.W + w] /= sum;
  }
}

// q [P, K, G, R, W]; new key and value [P, K, G, W]; caches [L, ≥P, (K,) G,
// W, S] and [L, ≥P, (K,) G, S, W]; what is seen [P, K, A] and [P, K, 1 + S], the
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
    std::vector<float> room(n.R * (Lanes(A) + Lanes(S) + 2));
    Part<T> shared{nullptr, nullptr, see_shared + i * A, A, A, 0, 0};
    Part<T> own{nullptr, nullptr, seen + 1, S, seen_S, 0, 0};
    shared.Trim();
    own.Trim();
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
