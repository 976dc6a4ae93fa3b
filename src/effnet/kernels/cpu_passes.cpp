// BatchNorm, activation and depthwise convolution on a CPU, forward and backward: float32, channels last.
//
// In PyTorch's form, BatchNorm's statistics, its application, the activation, the convolution and the gate each read a
// large tensor, and most write one. Here a row is normalised and activated when the convolution needs it, in memory
// that stays in the cache, and nothing but the convolutions' outputs is kept for the backward pass, which computes the
// activations again.
//
// A task is one image and a range of its channels, so results do not depend on the number of threads. Tensors are read
// in the order of their memory; only a convolution goes through the cached rows channel by channel.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int LINE = 16;                  // floats of a cache line
constexpr long CACHED = 64 * 1024;        // floats that a task may keep in the cache

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

// Functions of a row are compiled once for all that call them.
#define ROW __attribute__((noinline))

enum Activation { NONE, SILU, RELU6, HARDSWISH };

inline Floats all(float value) { return Floats{} + value; }

template <bool FULL = true>
inline Floats load(const float* p) {
  Floats v{};
  std::memcpy(&v, p, FULL ? sizeof v : 8 * sizeof(float));
  return v;
}

template <bool FULL = true>
inline void store(float* p, Floats v) {
  std::memcpy(p, &v, FULL ? sizeof v : 8 * sizeof(float));
}

// Pixels ahead of a loop that are fetched into the cache. The processor does so by itself only for tensors that are read
// in one long row, not for several pixels at once or where what is read and what is written lie apart.
constexpr long AHEAD = 8;

inline void fetch(const float* p) { __builtin_prefetch(p); }
inline void fetch_to_write(float* p) { __builtin_prefetch(p, 1); }

template <bool FULL>
inline void add(float* p, Floats v) {
  store<FULL>(p, load<FULL>(p) + v);
}

// Call `f` with the first channel of each vector, and whether it is full: channels are a multiple of 8.
template <class F>
inline void each_vector(int channels, F f) {
  int c = 0;
  for (; c + LANES <= channels; c += LANES) f(c, std::true_type());
  if (c < channels) f(c, std::false_type());
}

inline int vectors_of(int channels) { return (channels + LANES - 1) / LANES; }

// 1 / (1 + exp(-x)), to about 1e-7.
inline Floats sigmoid(Floats x) {
  Floats t = x * -1.44269504f;
#if defined(__AVX512F__)
  t = (Floats)_mm512_min_ps((__m512)t, _mm512_set1_ps(126.0f));
  const Floats whole = (Floats)_mm512_roundscale_ps((__m512)t, 0);
#else
  t = t > 126.0f ? all(126.0f) : t;
  t = t < -126.0f ? all(-126.0f) : t;
  const Floats magic = t + 12582912.0f;  // its lowest bits are the rounded exponent
  const Floats whole = magic - 12582912.0f;
#endif
  const Floats rest = t - whole;
  Floats p = rest * 1.327646061e-3f + 9.675541244e-3f;  // 2^rest
  p = p * rest + 5.550713309e-2f;
  p = p * rest + 2.402211973e-1f;
  p = p * rest + 6.931469670e-1f;
  p = p * rest + 1.0f;
#if defined(__AVX512F__)
  const Floats sum = 1.0f + (Floats)_mm512_scalef_ps((__m512)p, (__m512)whole);
  const Floats guess = (Floats)_mm512_rcp14_ps((__m512)sum);
  return guess * (2.0f - sum * guess);
#else
  return 1.0f / (1.0f + (Floats)((Ints)p + ((Ints)magic << 23)));
#endif
}

// The activation of x and its derivative there.
template <int ACTIVATION>
inline void activate(Floats x, Floats& value, Floats& slope) {
  if (ACTIVATION == SILU) {
    const Floats s = sigmoid(x);
    value = x * s;
    slope = s + value * (1.0f - s);
  } else if (ACTIVATION == RELU6) {
    const Floats above = x < 0.0f ? all(0.0f) : x;
    value = above > 6.0f ? all(6.0f) : above;
    slope = (x > 0.0f) & (x < 6.0f) ? all(1.0f) : all(0.0f);
  } else if (ACTIVATION == HARDSWISH) {
    Floats t = x + 3.0f;
    t = t < 0.0f ? all(0.0f) : t;
    t = t > 6.0f ? all(6.0f) : t;
    value = x * t * (1.0f / 6.0f);
    slope = x < -3.0f ? all(0.0f) : (x > 3.0f ? all(1.0f) : x * (1.0f / 3.0f) + 0.5f);
  } else {
    value = x;
    slope = all(1.0f);
  }
}

struct Shape {
  int images, channels, height, width, out_height, out_width, kernel, stride, top, left;
};

// A task's images [image, last) and channels.
struct Part {
  long image, last;
  int first, channels;
};

// The tasks of a batch: as many parts of its images as asked for, by ranges of at most `widest` channels, whole lines.
struct Parts {
  int images, channels, image_parts, width, ranges;

  Parts(int images, int channels, long widest, int image_parts)
      : images(images), channels(channels), image_parts(image_parts) {
    const int most = static_cast<int>(std::max<long>(LINE, std::min<long>(channels, widest)));
    ranges = (channels + most - 1) / most;
    width = ((channels + ranges - 1) / ranges + LINE - 1) / LINE * LINE;
    ranges = (channels + width - 1) / width;
  }

  Parts(int images, int channels, long widest) : Parts(images, channels, widest, images) {}

  int count() const { return image_parts * ranges; }

  Part operator[](int task) const {
    const int first = task % ranges * width;
    const long part = task / ranges;
    return {images * part / image_parts, images * (part + 1) / image_parts, first, std::min(width, channels - first)};
  }
};

constexpr int WIDEST = 256;  // channels of a task that keeps sums alone

// Working memory of a thread, in whole vectors.
class Memory {
 public:
  // Zeros.
  float* cleared(long floats) { return taken(sums_, floats, true); }

  // Zeros at first, and from then on what the last task of the same call left.
  float* kept(long floats) { return taken(ring_, floats, false); }

 private:
  static float* taken(std::vector<Floats>& vectors, long floats, bool clear) {
    const size_t count = (floats + LANES - 1) / LANES;
    if (clear) vectors.assign(count, Floats{});
    if (vectors.size() < count) vectors.resize(count);
    return reinterpret_cast<float*>(vectors.data());
  }

  std::vector<Floats> sums_, ring_;
};

template <class F>
void each_part(const Parts& parts, F f) {
#pragma omp parallel
  {
    Memory memory;
#pragma omp for schedule(dynamic)
    for (int task = 0; task < parts.count(); task++) f(parts[task], task / parts.ranges, memory);
  }
}

// Mean and biased variance of a batch from those of its images, (images, channels): the means, and the sums of squared
// differences from them.
void batch_moments(const float* means, const float* deviations, int images, double pixels, int channels, float* mean,
                   float* variance) {
  std::vector<double> center(channels), squares(channels);
  for (int n = 0; n < images; n++)
    for (int c = 0; c < channels; c++) center[c] += means[static_cast<long>(n) * channels + c] / images;
  for (int n = 0; n < images; n++)
    for (int c = 0; c < channels; c++) {
      const double apart = means[static_cast<long>(n) * channels + c] - center[c];
      squares[c] += deviations[static_cast<long>(n) * channels + c] + pixels * apart * apart;
    }
  for (int c = 0; c < channels; c++) {
    mean[c] = static_cast<float>(center[c]);
    variance[c] = static_cast<float>(squares[c] / (images * pixels));
  }
}

// From sums of x - pivot and of its square, which do not cancel, to an image's mean and its squared differences.
inline void image_moments(Floats pivot, Floats sum, Floats squares, float count, Floats& mean, Floats& deviations) {
  mean = pivot + sum * (1 / count);
  deviations = squares - sum * sum * (1 / count);
}

// Sums over an image, by rows: a row's sums are added to the image's, so no sum is of more than a few hundred terms.
// `f(c, pixel, full, sums)` adds what pixel `pixel` has at channel `first + c` to sums[0], sums[1], ...
// Returns (COUNT, width), the width in whole vectors.
template <int COUNT, class F>
const float* image_sums(const Part& part, int rows, int columns, Memory& memory, F f) {
  constexpr int AT_ONCE = 2;  // pixels, whose sums stay in registers
  const int width = vectors_of(part.channels) * LANES;
  float *totals = memory.cleared(2L * COUNT * width), *row = totals + COUNT * width;
  for (int i = 0; i < rows; i++) {
    std::fill(row, row + COUNT * width, 0.0f);
    for (int j = 0; j < columns; j += AT_ONCE) {
      const long first = (part.image * rows + i) * columns + j, last = first + std::min(AT_ONCE, columns - j);
      each_vector(part.channels, [&](int c, auto full) {
        Floats sums[COUNT] = {};
        for (long pixel = first; pixel < last; pixel++) f(c, pixel, full, sums);
        for (int k = 0; k < COUNT; k++) add<true>(row + k * width + c, sums[k]);
      });
    }
    for (int c = 0; c < COUNT * width; c += LANES) add<true>(totals + c, load(row + c));
  }
  return totals;
}

// Weights (taps, channels) as (vectors, taps, LANES).
std::vector<Floats> arranged(const float* weight, int taps, int channels) {
  std::vector<Floats> out(static_cast<size_t>(vectors_of(channels)) * taps);
  each_vector(channels, [&](int c, auto full) {
    for (int t = 0; t < taps; t++)
      out[c / LANES * taps + t] = load<full()>(weight + static_cast<long>(t) * channels + c);
  });
  return out;
}

// ---- forward ----

// A row of the convolution's input; vectors of channels are `group` apart in `to`.
template <int ACTIVATION>
ROW void activated_row(const Shape& s, const Part& part, const float* from, const float* scale, const float* shift,
                       float* to, long group) {
  for (int j = 0; j < s.width; j++)
    each_vector(part.channels, [&](int c, auto full) {
      fetch(from + (j + AHEAD) * s.channels + c);
      Floats value = load<full()>(from + static_cast<long>(j) * s.channels + c), slope;
      if (ACTIVATION != NONE)
        activate<ACTIVATION>(value * load<full()>(scale + part.first + c) + load<full()>(shift + part.first + c), value,
                             slope);
      store(to + c / LANES * group + static_cast<long>(j) * LANES, value);
    });
}

using ActivatedRow = decltype(&activated_row<NONE>);

// Write a row of the convolution's output, and add to its sums.
ROW void written_row(const Shape& s, const Part& part, const float* from, long group, const float* pivots, float* sums,
                     float* squares, float* to) {
  for (int j = 0; j < s.out_width; j++)
    each_vector(part.channels, [&](int c, auto full) {
      const Floats value = load(from + c / LANES * group + static_cast<long>(j) * LANES);
      fetch_to_write(to + (j + AHEAD) * s.channels + c);
      store<full()>(to + static_cast<long>(j) * s.channels + c, value);
      const Floats apart = value - load(pivots + c);
      add<true>(sums + c, apart);
      add<true>(squares + c, apart * apart);
    });
}

template <int K, int S>
ROW void convolved_row(const float* const* given, const Floats* weight, int columns, float* out) {
  const float* rows[K];
  Floats taps[K * K];
#pragma GCC unroll 8
  for (int kh = 0; kh < K; kh++) rows[kh] = given[kh];
#pragma GCC unroll 32
  for (int t = 0; t < K * K; t++) taps[t] = weight[t];
  for (int j = 0; j < columns; j++) {
    Floats y{};
#pragma GCC unroll 8
    for (int kh = 0; kh < K; kh++) {
      const float* from = rows[kh] + static_cast<long>(j) * S * LANES;
      Floats part = taps[kh * K] * load(from);
#pragma GCC unroll 8
      for (int kw = 1; kw < K; kw++) part += taps[kh * K + kw] * load(from + kw * LANES);
      y += part;
    }
    store(out + static_cast<long>(j) * LANES, y);
  }
}

template <int K, int S>
void filter_part(const Shape& s, const Part& part, ActivatedRow activated, const float* x, const Floats* weight,
                 const float* scale, const float* shift, float* y, float* mean, float* deviations, Memory& memory) {
  const long row = static_cast<long>(std::max((s.out_width - 1) * S + K, s.left + s.width)) * LANES;
  const long out_row = static_cast<long>(s.out_width) * LANES;
  const long group = row * (K + 1) + out_row;  // one row of zeros stands for those outside
  const int vectors = vectors_of(part.channels);
  float *ring = memory.kept(vectors * group), *pivots = memory.cleared(3L * vectors * LANES);
  float *sums = pivots + vectors * LANES, *squares = sums + vectors * LANES;
  int next = 0;
  for (int o = 0; o < s.out_height; o++) {
    const int first = o * S - s.top, last = std::min(first + K, s.height);
    for (; next < last; next++)
      activated(s, part, x + (part.image * s.height + next) * s.width * s.channels + part.first, scale, shift,
                ring + next % K * row + s.left * LANES, group);
    for (int v = 0; v < vectors; v++) {
      const float* rows[K];
      for (int kh = 0; kh < K; kh++) {
        const int i = first + kh;
        rows[kh] = ring + v * group + (i >= 0 && i < s.height ? i % K : K) * row;
      }
      convolved_row<K, S>(rows, weight + (part.first / LANES + v) * K * K, s.out_width,
                          ring + v * group + (K + 1) * row);
    }
    const float* out = ring + (K + 1) * row;
    if (o == 0)  // any value of the channel will do
      for (int v = 0; v < vectors; v++) store(pivots + v * LANES, load(out + v * group));
    written_row(s, part, out, group, pivots, sums, squares,
                y + (part.image * s.out_height + o) * s.out_width * s.channels + part.first);
  }
  each_vector(part.channels, [&](int c, auto full) {
    Floats found, apart;
    const long at = part.image * s.channels + part.first + c;
    image_moments(load(pivots + c), load(sums + c), load(squares + c), static_cast<float>(s.out_height) * s.out_width,
                  found, apart);
    store<full()>(mean + at, found);
    store<full()>(deviations + at, apart);
  });
}

// ---- backward ----

struct Backward {
  const float *x, *weight, *scale, *shift, *mean;                                     // before the convolution
  const float *y, *grad, *out_scale, *out_shift, *gate, *pooled, *constant, *linear;  // after it
  float *grad_x, *weight_grad, *sums;  // weight_grad: (image_parts, K * K, channels); sums: (2, images, channels)
};

// One row of the kernel: what an output row `d` gives to an input row `grad`, and, with the input row `x`, to the
// weights. Pixel q of `d` lies at q + K - 1; zeros surround it.
template <int K, int S, int PHASE>
inline void backward_columns(const float* d, const float* x, const Floats* taps, Floats* sums, int columns, int left,
                             float* grad) {
  for (int j = (PHASE + left) % S; j < columns; j += S) {
    const float* from = d + static_cast<long>((j + left) / S + K - 1) * LANES;
    Floats total = load(grad + static_cast<long>(j) * LANES);
    const Floats input = load(x + static_cast<long>(j) * LANES);
#pragma GCC unroll 8
    for (int kw = PHASE; kw < K; kw += S) {
      const Floats v = load(from - kw / S * LANES);
      total += taps[kw] * v;
      sums[kw] += input * v;
    }
    store(grad + static_cast<long>(j) * LANES, total);
  }
}

template <int K, int S>
ROW void backward_row(const float* d, const float* x, const Floats* weight, float* weight_grad, int columns, int left,
                  float* grad) {
  Floats taps[K], sums[K] = {};
#pragma GCC unroll 8
  for (int kw = 0; kw < K; kw++) taps[kw] = weight[kw];
  backward_columns<K, S, 0>(d, x, taps, sums, columns, left, grad);
  if (S == 2) backward_columns<K, S, S - 1>(d, x, taps, sums, columns, left, grad);
#pragma GCC unroll 8
  for (int kw = 0; kw < K; kw++) add<true>(weight_grad + kw * LANES, sums[kw]);
}

// Constants of each vector of channels, in the order in which a row needs them.
enum Constant { SCALE, SHIFT, MEAN, OUT_SCALE, OUT_SHIFT, GATE, POOLED, CONSTANT, LINEAR, CONSTANTS };

void gather_constants(const Shape& s, const Part& part, long image, const Backward& t, float* constants) {
  const float* from[CONSTANTS] = {t.scale, t.shift, t.mean, t.out_scale, t.out_shift, t.gate, t.pooled,
                                  t.constant, t.linear};
  if (t.gate != nullptr) from[GATE] += image * s.channels;
  if (t.pooled != nullptr) from[POOLED] += image * s.channels;
  each_vector(part.channels, [&](int c, auto full) {
    float* to = constants + static_cast<long>(c) * CONSTANTS;
    for (int k = 0; k < CONSTANTS; k++)
      store(to + k * LANES, from[k] != nullptr ? load<full()>(from[k] + part.first + c) : all(k == GATE ? 1 : 0));
    store(to + GATE * LANES, load(to + GATE * LANES) * load(to + OUT_SCALE * LANES));
    store(to + POOLED * LANES, load(to + POOLED * LANES) * load(to + OUT_SCALE * LANES));
  });
}

// Gradient of a row of the convolution's output, from that of what follows; vectors of channels are `group` apart.
template <int ACTIVATION>
ROW void output_gradient_row(const Shape& s, const Part& part, const Backward& t, long first, const float* constants,
                         float* to, long group) {
  for (int j = 0; j < s.out_width; j++)
    each_vector(part.channels, [&](int c, auto full) {
      const float* k = constants + static_cast<long>(c) * CONSTANTS;
      const long pixel = first + static_cast<long>(j) * s.channels + c;
      fetch(t.y + pixel + AHEAD * s.channels);
      fetch(t.grad + pixel + AHEAD * s.channels);
      const Floats v = load<full()>(t.y + pixel), arriving = load<full()>(t.grad + pixel);
      Floats value, slope;
      activate<ACTIVATION>(v * load(k + OUT_SCALE * LANES) + load(k + OUT_SHIFT * LANES), value, slope);
      const Floats through = arriving * load(k + GATE * LANES) + load(k + POOLED * LANES);
      store(to + c / LANES * group + static_cast<long>(j) * LANES,
            through * slope + load(k + CONSTANT * LANES) + load(k + LINEAR * LANES) * v);
    });
}

// A row of the convolution's input, its slope, and zeros for its gradient: `flat` apart.
template <int ACTIVATION>
ROW void input_row(const Shape& s, const Part& part, const Backward& t, long first, const float* constants, float* to,
               long group, long flat) {
  for (int j = 0; j < s.width; j++)
    each_vector(part.channels, [&](int c, auto full) {
      const float* k = constants + static_cast<long>(c) * CONSTANTS;
      float* at = to + c / LANES * group + static_cast<long>(j) * LANES;
      fetch(t.x + first + (j + AHEAD) * s.channels + c);
      Floats value = load<full()>(t.x + first + static_cast<long>(j) * s.channels + c), slope;
      if (ACTIVATION != NONE) {
        activate<ACTIVATION>(value * load(k + SCALE * LANES) + load(k + SHIFT * LANES), value, slope);
        store(at + flat, slope);
      }
      store(at, value);
      store(at + 2 * flat, Floats{});
    });
}

// Write a row of the input's gradient, and add to its sums.
template <int ACTIVATION>
ROW void finished_row(const Shape& s, const Part& part, const Backward& t, long first, const float* constants,
                  const float* from, long group, long flat, float* sums) {
  for (int j = 0; j < s.width; j++)
    each_vector(part.channels, [&](int c, auto full) {
      const float* at = from + c / LANES * group + static_cast<long>(j) * LANES;
      const long pixel = first + static_cast<long>(j) * s.channels + c;
      fetch_to_write(t.grad_x + pixel + AHEAD * s.channels);
      Floats d = load(at + 2 * flat);
      if (ACTIVATION != NONE) {
        d *= load(at + flat);
        const Floats mean = load(constants + static_cast<long>(c) * CONSTANTS + MEAN * LANES);
        add<true>(sums + 2 * c, d);
        add<true>(sums + 2 * c + LANES, d * (load<full()>(t.x + pixel) - mean));
      }
      store<full()>(t.grad_x + pixel, d);
    });
}

// What of the backward pass depends on the activations.
struct BackwardRows {
  decltype(&output_gradient_row<NONE>) output_gradient;
  decltype(&input_row<NONE>) input;
  decltype(&finished_row<NONE>) finished;
};

template <int K, int S>
void backward_image(const Shape& s, const Part& part, long image, const BackwardRows& rows, const Floats* taps,
                    const Backward& t, float* ring, const float* constants, float* taps_grad, float* sums) {
  const long row = (s.out_width + 2L * (K - 1)) * LANES, flat = static_cast<long>(s.width) * LANES;
  const long group = row * K + 3 * flat;
  const int vectors = vectors_of(part.channels);
  int next = 0;
  for (int i = 0; i < s.height; i++) {
    const int last = std::min(s.out_height, (i + s.top) / S + 1);
    for (; next < last; next++)
      rows.output_gradient(s, part, t, (image * s.out_height + next) * s.out_width * s.channels + part.first,
                           constants, ring + next % K * row + (K - 1) * LANES, group);
    const long first = (image * s.height + i) * s.width * s.channels + part.first;
    rows.input(s, part, t, first, constants, ring + K * row, group, flat);
    for (int v = 0; v < vectors; v++) {
      float* values = ring + v * group + K * row;
      for (int kh = 0; kh < K; kh++) {
        const int from = i + s.top - kh;
        if (from < 0 || from % S != 0 || from / S >= s.out_height) continue;
        backward_row<K, S>(ring + v * group + from / S % K * row, values,
                           taps + (part.first / LANES + v) * K * K + kh * K, taps_grad + (v * K + kh) * K * LANES,
                           s.width, s.left, values + 2 * flat);
      }
    }
    rows.finished(s, part, t, first, constants, ring + K * row, group, flat, sums);
  }
}

template <int K, int S>
void backward_part(const Shape& s, const Part& part, int number, const BackwardRows& rows, const Floats* taps,
                   const Backward& t, Memory& memory) {
  const long group = (s.out_width + 2L * (K - 1)) * LANES * K + 3L * s.width * LANES;
  const int vectors = vectors_of(part.channels);
  float* ring = memory.kept(vectors * group);  // output rows; the input row's values, slopes and gradient
  float *constants = memory.cleared(vectors * (K * K + CONSTANTS + 2L) * LANES);
  float *taps_grad = constants + vectors * CONSTANTS * LANES, *sums = taps_grad + vectors * K * K * LANES;
  for (long image = part.image; image < part.last; image++) {
    gather_constants(s, part, image, t, constants);
    std::fill(sums, sums + 2 * vectors * LANES, 0.0f);
    backward_image<K, S>(s, part, image, rows, taps, t, ring, constants, taps_grad, sums);
    each_vector(part.channels, [&](int c, auto full) {
      const long at = image * s.channels + part.first + c, all_images = static_cast<long>(s.images) * s.channels;
      store<full()>(t.sums + at, load(sums + 2 * c));
      store<full()>(t.sums + all_images + at, load(sums + 2 * c + LANES));
    });
  }
  each_vector(part.channels, [&](int c, auto full) {
    for (int k = 0; k < K * K; k++)
      store<full()>(t.weight_grad + (static_cast<long>(number) * K * K + k) * s.channels + part.first + c,
                    load(taps_grad + static_cast<long>(c) * K * K + k * LANES));
  });
}

// Call `f` with the activation as a constant.
template <class F>
void with_activation(int activation, F f) {
  switch (activation) {
    case SILU:
      return f(std::integral_constant<int, SILU>());
    case RELU6:
      return f(std::integral_constant<int, RELU6>());
    case HARDSWISH:
      return f(std::integral_constant<int, HARDSWISH>());
    default:
      return f(std::integral_constant<int, NONE>());
  }
}

// Call `f` with kernel and stride as constants.
template <class F>
void with_geometry(const Shape& s, F f) {
  using std::integral_constant;
  if (s.kernel == 3 && s.stride == 1) return f(integral_constant<int, 3>(), integral_constant<int, 1>());
  if (s.kernel == 3) return f(integral_constant<int, 3>(), integral_constant<int, 2>());
  if (s.stride == 1) return f(integral_constant<int, 5>(), integral_constant<int, 1>());
  return f(integral_constant<int, 5>(), integral_constant<int, 2>());
}

}  // namespace

// Channels are a multiple of 8, kernels 3 or 5 wide, strides 1 or 2. Weights are (kernel, kernel, channels).
extern "C" {

void effnet_moments(const float* x, int images, int rows, int columns, int channels, float* mean, float* variance) {
  std::vector<float> means(static_cast<size_t>(images) * channels), deviations(means.size());
  each_part(Parts(images, channels, WIDEST), [&](const Part& part, int, Memory& memory) {
    const float* first = x + part.image * rows * columns * channels + part.first;
    const float* sums = image_sums<2>(
        part, rows, columns, memory, [&](int c, long pixel, auto full, Floats* to) {
          fetch(x + (pixel + AHEAD) * channels + part.first + c);
          const Floats v = load<full()>(x + pixel * channels + part.first + c) - load<full()>(first + c);
          to[0] += v;
          to[1] += v * v;
        });
    const int width = vectors_of(part.channels) * LANES;
    each_vector(part.channels, [&](int c, auto full) {
      Floats found, apart;
      image_moments(load<full()>(first + c), load(sums + c), load(sums + width + c),
                    static_cast<float>(rows) * columns, found, apart);
      store<full()>(means.data() + part.image * channels + part.first + c, found);
      store<full()>(deviations.data() + part.image * channels + part.first + c, apart);
    });
  });
  batch_moments(means.data(), deviations.data(), images, static_cast<double>(rows) * columns, channels, mean, variance);
}

void effnet_filter(const Shape* s, int activation, const float* x, const float* weight, const float* scale,
                   const float* shift, float* y, float* mean, float* variance) {
  std::vector<float> means(static_cast<size_t>(s->images) * s->channels), deviations(means.size());
  const long width = std::max((s->out_width - 1) * s->stride + s->kernel, s->left + s->width);
  const Parts parts(s->images, s->channels, CACHED / (width * (s->kernel + 1) + s->out_width));
  const std::vector<Floats> taps = arranged(weight, s->kernel * s->kernel, s->channels);
  ActivatedRow activated = nullptr;
  with_activation(activation, [&](auto act) { activated = activated_row<act()>; });
  with_geometry(*s, [&](auto kernel, auto stride) {
    each_part(parts, [&](const Part& part, int, Memory& memory) {
      filter_part<kernel(), stride()>(*s, part, activated, x, taps.data(), scale, shift, y, means.data(),
                                      deviations.data(), memory);
    });
  });
  batch_moments(means.data(), deviations.data(), s->images, static_cast<double>(s->out_height) * s->out_width,
                s->channels, mean, variance);
}

void effnet_filter_backward(const Shape* s, int before, int after, int image_parts, const Backward* tensors) {
  const long width = (s->out_width + 2L * (s->kernel - 1)) * s->kernel + 3L * s->width;
  const Parts parts(s->images, s->channels, CACHED / width, image_parts);
  const std::vector<Floats> taps = arranged(tensors->weight, s->kernel * s->kernel, s->channels);
  BackwardRows rows{};
  with_activation(after, [&](auto act) {
    rows.output_gradient = output_gradient_row<act()>;
    // Before the convolution stands the same activation, or none.
    rows.input = before == NONE ? input_row<NONE> : input_row<act()>;
    rows.finished = before == NONE ? finished_row<NONE> : finished_row<act()>;
  });
  with_geometry(*s, [&](auto kernel, auto stride) {
    each_part(parts, [&](const Part& part, int number, Memory& memory) {
      backward_part<kernel(), stride()>(*s, part, number, rows, taps.data(), *tensors, memory);
    });
  });
}

void effnet_apply(int activation, const float* x, const float* scale, const float* shift, const float* gate, int images,
                  long pixels, int channels, float* out) {
  with_activation(activation, [&](auto act) {
#pragma omp parallel for
    for (long pixel = 0; pixel < images * pixels; pixel++) {
      const float* by = gate == nullptr ? nullptr : gate + pixel / pixels * channels;
      each_vector(channels, [&](int c, auto full) {
        Floats value, slope;
        activate<act()>(load<full()>(x + pixel * channels + c) * load<full()>(scale + c) + load<full()>(shift + c),
                        value, slope);
        store<full()>(out + pixel * channels + c, by == nullptr ? value : value * load<full()>(by + c));
      });
    }
  });
}

void effnet_pool(int activation, const float* x, const float* scale, const float* shift, int images, int rows,
                 int columns, int channels, float* out) {
  with_activation(activation, [&](auto act) {
    each_part(Parts(images, channels, WIDEST), [&](const Part& part, int, Memory& memory) {
      const float *a = scale + part.first, *b = shift + part.first;
      const float* sums =
          image_sums<1>(part, rows, columns, memory, [&](int c, long pixel, auto full, Floats* to) {
            fetch(x + (pixel + AHEAD) * channels + part.first + c);
            const Floats v = load<full()>(x + pixel * channels + part.first + c);
            Floats value, slope;
            activate<act()>(v * load<full()>(a + c) + load<full()>(b + c), value, slope);
            to[0] += value;
          });
      each_vector(part.channels, [&](int c, auto full) {
        store<full()>(out + part.image * channels + part.first + c,
                      load(sums + c) * (1.0f / (static_cast<float>(rows) * columns)));
      });
    });
  });
}

// Per image and channel, (5, images, channels), the sums from which all gradients of gate and BatchNorm follow: with d
// the arriving gradient, f the activation, f' its slope and z = x - mean, those of d f, d f', f', d f' z and f' z.
void effnet_gradient_sums(int activation, const float* grad, const float* x, const float* mean, const float* scale,
                          const float* shift, int images, int rows, int columns, int channels, float* out) {
  constexpr int SUMS = 5;
  with_activation(activation, [&](auto act) {
    each_part(Parts(images, channels, WIDEST), [&](const Part& part, int, Memory& memory) {
      const float* sums =
          image_sums<SUMS>(part, rows, columns, memory, [&](int c, long pixel, auto full, Floats* to) {
            const long at = pixel * channels + part.first + c;
            const int channel = part.first + c;
            fetch(x + at + AHEAD * channels);
            fetch(grad + at + AHEAD * channels);
            const Floats v = load<full()>(x + at), d = load<full()>(grad + at), z = v - load<full()>(mean + channel);
            Floats value, slope;
            activate<act()>(v * load<full()>(scale + channel) + load<full()>(shift + channel), value, slope);
            const Floats through = d * slope;
            to[0] += d * value;
            to[1] += through;
            to[2] += slope;
            to[3] += through * z;
            to[4] += slope * z;
          });
      const int width = vectors_of(part.channels) * LANES;
      each_vector(part.channels, [&](int c, auto full) {
        for (int k = 0; k < SUMS; k++)
          store<full()>(out + (static_cast<long>(k) * images + part.image) * channels + part.first + c,
                        load(sums + k * width + c));
      });
    });
  });
}

// scale * grad * f'(scale * x + shift) + constant + linear * x; `out` may be `grad`.
void effnet_apply_backward(int activation, const float* grad, const float* x, const float* scale, const float* shift,
                           const float* constant, const float* linear, int images, long pixels, int channels,
                           float* out) {
  with_activation(activation, [&](auto act) {
#pragma omp parallel for
    for (long pixel = 0; pixel < images * pixels; pixel++)
      each_vector(channels, [&](int c, auto full) {
        const long at = pixel * channels + c;
        const Floats v = load<full()>(x + at), a = load<full()>(scale + c);
        Floats value, slope;
        activate<act()>(v * a + load<full()>(shift + c), value, slope);
        store<full()>(out + at, load<full()>(grad + at) * slope * a + load<full()>(constant + c) +
                                    load<full()>(linear + c) * v);
      });
  });
}
}
