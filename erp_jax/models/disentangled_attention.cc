// DeBERTa's attention: a pair's score is the query with the key, the query with
// the key table's row of their distance, and the key with the query table's.
// Some queries at once meet all keys of their row: no more scores are ever held.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "native.h"

#ifndef __AVX512F__
#error "XLA is faster without AVX-512"
#endif

namespace ffi = xla::ffi;

namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

constexpr int kQueries = 16;  // At once: half the registers hold their sums.
constexpr int kSums = 4;  // Registers of sums a row, and rows, of values.

// Between rows that are read down a column: an odd number of cache lines, so
// that they do not fall on the same few places of the cache.
int64_t Stride(int64_t size) {
  const int64_t lanes = Lanes(size);
  return lanes / kLanes % 2 ? lanes : lanes + kLanes;
}

// One head of one row. A token is `step` after the last in q, value and out.
struct Head {
  const float* q;          // [n, W]
  const float* value;      // [n, W]
  const float* key;        // [W, key_stride]
  const float* far_key;    // [W, far_stride]: column s - t + zero of a pair.
  const float* far_query;
  const bool* seen;        // [n]
  float* out;              // [n, W]
  int64_t n, W, step, key_stride, far_stride, zero;
};

// Scores of kLanes keys from s on with N queries from t on, before the scale.
template <int N>
void ScoreTile(const Head& a, int64_t t, int64_t s, float* score,
               int64_t stride) {
  Floats sum[N] = {};
  const float* key = a.key + s;
  const float* far_key = a.far_key + a.zero + s - t;
  const float* far_query = a.far_query + a.zero + s - t;
  const float* q = a.q + t * a.step;
  for (int64_t w = 0; w < a.W; ++w) {
    const Floats k = Load(key);
    for (int r = 0; r < N; ++r) {
      sum[r] += q[r * a.step + w] * (k + Load(far_key - r));
      sum[r] += k * Load(far_query - r);
    }
    key += a.key_stride;
    far_key += a.far_stride;
    far_query += a.far_stride;
  }
  for (int r = 0; r < N; ++r) {
    std::memcpy(score + r * stride + s, &sum[r], sizeof sum[r]);
  }
}

// Scores of a row [n] become exp(scale · (score - top)); gives their sum.
float Exponentials(const Head& a, float scale, float* row) {
  for (int64_t s = a.n; s < Lanes(a.n); ++s) row[s] = kNone;
  for (int64_t s = 0; s < a.n; ++s) row[s] = a.seen[s] ? row[s] : kNone;
  Floats top = Load(row);
  for (int64_t s = kLanes; s < a.n; s += kLanes) {
    const Floats x = Load(row + s);
    top = x > top ? x : top;
  }
  float most = top[0];
  for (int64_t i = 1; i < kLanes; ++i) most = std::max(most, top[i]);
  Floats sum = {};
  for (int64_t s = 0; s < a.n; s += kLanes) {
    const Floats weight = Exp((Load(row + s) - most) * scale);
    std::memcpy(row + s, &weight, sizeof weight);
    sum += weight;
  }
  float total = 0;
  for (int64_t i = 0; i < kLanes; ++i) total += sum[i];
  return total;
}

// Means of the values by N rows of weights, M registers of columns from w on.
template <int N, int M>
void MeanTile(const Head& a, const float* weight, int64_t stride,
              const float* total, int64_t w, float* out) {
  Floats sum[N][M] = {};
  const float* value = a.value + w;
  for (int64_t s = 0; s < a.n; ++s, value += a.step) {
    for (int m = 0; m < M; ++m) {
      const Floats v = Load(value + m * kLanes);
      for (int r = 0; r < N; ++r) sum[r][m] += weight[r * stride + s] * v;
    }
  }
  for (int r = 0; r < N; ++r) {
    for (int m = 0; m < M; ++m) {
      const Floats mean = sum[r][m] / total[r];
      std::memcpy(out + r * a.step + w + m * kLanes, &mean, sizeof mean);
    }
  }
}

template <int N>
void Means(const Head& a, const float* weight, int64_t stride,
           const float* total, float* out) {
  constexpr int64_t count = kSums * kLanes;
  int64_t w = 0;
  for (; w + count <= a.W; w += count) {
    MeanTile<N, kSums>(a, weight, stride, total, w, out);
  }
  for (; w + kLanes <= a.W; w += kLanes) {
    MeanTile<N, 1>(a, weight, stride, total, w, out);
  }
  for (int r = 0; r < N; ++r) {
    for (int64_t i = w; i < a.W; ++i) {
      float sum = 0;
      for (int64_t s = 0; s < a.n; ++s) {
        sum += weight[r * stride + s] * a.value[s * a.step + i];
      }
      out[r * a.step + i] = sum / total[r];
    }
  }
}

// N queries from t on; `score` has room for [N, stride].
template <int N>
void AttendSome(const Head& a, float scale, int64_t t, float* score,
                int64_t stride) {
  for (int64_t s = 0; s < a.n; s += kLanes) {
    ScoreTile<N>(a, t, s, score, stride);
  }
  float total[N];
  for (int r = 0; r < N; ++r) {
    total[r] = Exponentials(a, scale, score + r * stride);
  }
  constexpr int num = N < kSums ? N : kSums;
  for (int r = 0; r < N; r += num) {
    Means<num>(a, score + r * stride, stride, total + r,
               a.out + (t + r) * a.step);
  }
}

void Attend(const Head& a, float scale) {
  const int64_t stride = Stride(a.n);
  std::vector<float> score(kQueries * stride);
  int64_t t = 0;
  for (; t + kQueries <= a.n; t += kQueries) {
    AttendSome<kQueries>(a, scale, t, score.data(), stride);
  }
  for (; t + 4 <= a.n; t += 4) AttendSome<4>(a, scale, t, score.data(), stride);
  for (; t < a.n; ++t) AttendSome<1>(a, scale, t, score.data(), stride);
}

// q, key, value [B, T, H, W]; tables [H, W, R]; row [2T - 1], of the distances
// T - 1 down to 1 - T; seen [B, T]. Gives [B, T, H, W], zeros before a row's
// first seen token and after its last.
ffi::Error Run(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> q,
               ffi::Buffer<ffi::F32> key, ffi::Buffer<ffi::F32> value,
               ffi::Buffer<ffi::F32> key_table,
               ffi::Buffer<ffi::F32> query_table, ffi::Buffer<ffi::S32> row,
               ffi::Buffer<ffi::PRED> seen, ffi::ResultBuffer<ffi::F32> out,
               float scale) {
  const auto dims = q.dimensions();
  const int64_t B = dims[0], T = dims[1], H = dims[2], W = dims[3];
  const int64_t R = key_table.dimensions()[2];
  const int32_t* rows = row.typed_data();
  // Tables by distance, T - 1 first: what lies past the last is read, not used.
  const int64_t far_stride = Stride(2 * T + kLanes);
  std::vector<float> far(2 * H * W * far_stride);
  ForEach(pool, 2 * H, [&](int64_t i) {
    const auto& table = i < H ? key_table : query_table;
    const float* from = table.typed_data() + i % H * W * R;
    float* to = far.data() + i * W * far_stride;
    for (int64_t w = 0; w < W; ++w, from += R, to += far_stride) {
      for (int64_t x = 0; x < 2 * T - 1; ++x) to[x] = from[rows[x]];
    }
  });
  ForEach(pool, B * H, [&](int64_t i) {
    const int64_t b = i / H, h = i % H;
    const bool* sees = seen.typed_data() + b * T;
    int64_t first = 0, end = T;
    while (end > 0 && !sees[end - 1]) --end;
    while (first < end && !sees[first]) ++first;
    const int64_t n = end - first, step = H * W;
    const int64_t at = (b * T * H + h) * W;  // Of the head's first token.
    float* to = out->typed_data() + at;
    for (int64_t t = 0; t < T; ++t) {
      if (t < first || t >= end) std::fill_n(to + t * step, W, 0.0f);
    }
    if (n == 0) return;
    const int64_t key_stride = Stride(n);
    std::vector<float> keys(W * key_stride);
    const float* from = key.typed_data() + at + first * step;
    for (int64_t s = 0; s < n; ++s, from += step) {
      for (int64_t w = 0; w < W; ++w) keys[w * key_stride + s] = from[w];
    }
    const float* tables = far.data() + h * W * far_stride;
    Attend({q.typed_data() + at + first * step,
            value.typed_data() + at + first * step, keys.data(), tables,
            tables + H * W * far_stride, sees + first, to + first * step, n, W,
            step, key_stride, far_stride, T - 1},
           scale);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DisentangledAttention, Run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<float>("scale"));
