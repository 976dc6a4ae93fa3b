// Weight gradient of a depthwise convolution on a CPU: float32, channels last.
//
// dw[c][kh][kw] = sum over n, i, j of g[n][i][j][c] * x[n][i * stride + kh - padding][j * stride + kw - padding][c]
//
// A block of channels fills a vector, and the sums of all taps stay in registers while the images go by, so x and g
// are read from memory once. The images are cut in a fixed number of parts whose sums are added in order: the
// result does not depend on the number of threads.

#include <algorithm>
#include <cstring>

namespace {

struct Shape {
  int images, height, width, channels, out_height, out_width, stride, padding;
};

template <int LANES>
struct Vector {
  typedef float type __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
};

#if defined(__AVX512F__)
constexpr int ROWS_AT_ONCE = 5;  // of the kernel: 25 sums fit in 32 registers
#else
constexpr int ROWS_AT_ONCE = 1;
#endif

// Sums for one block of channels, over images [first, last), for the kernel's rows from `row` on.
template <int K, int ROWS, int LANES>
void accumulate(const Shape& s, const float* x, const float* g, int first, int last, int row, float* sums) {
  using V = typename Vector<LANES>::type;
  V acc[ROWS][K] = {};
  for (int n = first; n < last; n++) {
    for (int i = 0; i < s.out_height; i++) {
      const float* rows[ROWS];
      for (int r = 0; r < ROWS; r++) {
        const int ih = i * s.stride + row + r - s.padding;
        rows[r] = row + r < K && ih >= 0 && ih < s.height
                      ? x + (static_cast<long>(n) * s.height + ih) * s.width * s.channels
                      : nullptr;
      }
      const float* g_row = g + (static_cast<long>(n) * s.out_height + i) * s.out_width * s.channels;
      for (int j = 0; j < s.out_width; j++) {
        const V gv = *reinterpret_cast<const V*>(g_row + static_cast<long>(j) * s.channels);
        const int left = j * s.stride - s.padding;
        const bool inside = left >= 0 && left + K <= s.width;
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
          if (rows[r] == nullptr) continue;
          const float* p = rows[r] + static_cast<long>(left) * s.channels;
#pragma GCC unroll 8
          for (int kw = 0; kw < K; kw++) {
            if (inside || (left + kw >= 0 && left + kw < s.width))
              acc[r][kw] += gv * *reinterpret_cast<const V*>(p + static_cast<long>(kw) * s.channels);
          }
        }
      }
    }
  }
  for (int r = 0; r < ROWS && row + r < K; r++)
    for (int kw = 0; kw < K; kw++)
      std::memcpy(sums + (static_cast<long>(row + r) * K + kw) * s.channels, &acc[r][kw], 4 * LANES);
}

template <int K>
void block(const Shape& s, const float* x, const float* g, int channel, int first, int last, float* sums) {
  constexpr int ROWS = ROWS_AT_ONCE < K ? ROWS_AT_ONCE : K;
  for (int row = 0; row < K; row += ROWS) {
    if (channel + 16 <= s.channels)
      accumulate<K, ROWS, 16>(s, x + channel, g + channel, first, last, row, sums + channel);
    else
      accumulate<K, ROWS, 8>(s, x + channel, g + channel, first, last, row, sums + channel);
  }
}

template <int K>
void weight_gradient(const Shape& s, const float* x, const float* g, float* partial, int parts, float* dw) {
  const int blocks = (s.channels + 15) / 16;
  const long taps = static_cast<long>(K) * K * s.channels;
#pragma omp parallel for schedule(dynamic)
  for (int task = 0; task < blocks * parts; task++) {
    const int part = task / blocks, channel = task % blocks * 16;
    const int first = static_cast<long>(s.images) * part / parts;
    const int last = static_cast<long>(s.images) * (part + 1) / parts;
    block<K>(s, x, g, channel, first, last, partial + part * taps);
  }
#pragma omp parallel for
  for (int block = 0; block < blocks; block++)
    for (int tap = 0; tap < K * K; tap++)
      for (int c = block * 16; c < std::min(block * 16 + 16, s.channels); c++) {
        float sum = 0;
        for (int part = 0; part < parts; part++)
          sum += partial[part * taps + static_cast<long>(tap) * s.channels + c];
        dw[static_cast<long>(c) * K * K + tap] = sum;
      }
}

}  // namespace

// The channels are a multiple of 8, the kernel is 3 or 5 wide; `partial` holds parts * kernel * kernel * channels.
extern "C" void effnet_depthwise_weight_gradient(const float* x, const float* g, float* partial, float* dw, int parts,
                                                 int images, int height, int width, int channels, int out_height,
                                                 int out_width, int kernel, int stride, int padding) {
  const Shape s{images, height, width, channels, out_height, out_width, stride, padding};
  if (kernel == 3)
    weight_gradient<3>(s, x, g, partial, parts, dw);
  else
    weight_gradient<5>(s, x, g, partial, parts, dw);
}
