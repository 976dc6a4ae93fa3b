// Fake quantization on a CPU in one pass over memory: float32, elements in any order.

#include <algorithm>
#include <cstdint>

namespace {

struct Grid {
  float steps, low, high;  // steps in a unit; the lowest and highest level

  // The nearest level of a value; what is not a number stays so.
  inline float level(float x) const {
    // Adding and subtracting it rounds a float32 below 2^22 to the nearest even integer.
    constexpr float ROUNDS = 1.5f * 8388608.0f;
    float v = x * steps;
    v = v < low ? low : v;
    v = v > high ? high : v;
    return (v + ROUNDS) - ROUNDS;
  }
};

constexpr int64_t BLOCK = 1024;  // a thread's share at least; its indices stay in the first cache
constexpr uint32_t NOT_A_NUMBER = 256, OUTSIDE = 511;  // places in a table, after those of the levels

// Calls `work(first, last)` for blocks that cover `count`.
template <typename Work>
void in_blocks(int64_t count, const Work& work) {
#pragma omp parallel for schedule(static) if (count > 16 * BLOCK)
  for (int64_t first = 0; first < count; first += BLOCK) work(first, std::min(first + BLOCK, count));
}

// A conversion of what is not a number gives the smallest integer, which is the largest one unsigned.
inline uint32_t place(const Grid& grid, float x) {
  return std::min(static_cast<uint32_t>(static_cast<int32_t>(grid.level(x) - grid.low)), NOT_A_NUMBER);
}

}  // namespace

extern "C" {

void effnet_round(const float* x, float* y, int64_t count, float steps, float low, float high) {
  const Grid grid{steps, low, high};
  in_blocks(count, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++) y[i] = grid.level(x[i]) / steps;
  });
}

// A function of the rounded value, by a table of what it is at each level and at NaN.
void effnet_round_table(const float* x, float* y, int64_t count, float steps, float low, float high,
                        const float* table) {
  const Grid grid{steps, low, high};
  in_blocks(count, [=](int64_t first, int64_t last) {
    uint32_t places[BLOCK];
    for (int64_t i = first; i < last; i++) places[i - first] = place(grid, x[i]);
    for (int64_t i = first; i < last; i++) y[i] = table[places[i - first]];
  });
}

// Its gradient, by a table of its slopes; the last entry is the slope from `below` down and from `above` up.
void effnet_round_table_backward(const float* grad, const float* x, float* out, int64_t count, float steps,
                                 float low, float high, float below, float above, const float* slopes) {
  const Grid grid{steps, low, high};
  in_blocks(count, [=](int64_t first, int64_t last) {
    uint32_t places[BLOCK];
    for (int64_t i = first; i < last; i++) places[i - first] = place(grid, x[i]);
    for (int64_t i = first; i < last; i++)
      places[i - first] |= ((x[i] <= below) | (x[i] >= above)) * OUTSIDE;
    for (int64_t i = first; i < last; i++) out[i] = grad[i] * slopes[places[i - first]];
  });
}

}
