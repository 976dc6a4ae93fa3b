// RMSprop's update on a CPU in one pass over memory: float32, contiguous.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t BLOCK = 4096;  // elements of a thread's share at least

struct Rates {
  float lr, weight_decay, alpha, rest, eps, momentum;  // rest: 1 - alpha, rounded once
};

// The order of operations, and what is rounded once with a sum, are those of torch.optim.RMSprop.
template <bool MOMENTUM>
void update(float* parameter, const float* gradient, float* square_avg, float* momentum_buffer, int64_t count,
            const Rates& r) {
#pragma omp parallel for schedule(static) if (count > 4 * BLOCK)
  for (int64_t first = 0; first < count; first += BLOCK) {
    const int64_t last = std::min(first + BLOCK, count);
#pragma omp simd
    for (int64_t i = first; i < last; i++) {
      const float slope = std::fma(r.weight_decay, parameter[i], gradient[i]);
      const float square = std::fma(r.rest * slope, slope, r.alpha * square_avg[i]);
      const float root = std::sqrt(square) + r.eps;
      square_avg[i] = square;
      if (MOMENTUM) {
        const float kept = r.momentum * momentum_buffer[i], move = kept + slope / root;
        momentum_buffer[i] = move;
        parameter[i] = std::fma(-r.lr, move, parameter[i]);
      } else {
        parameter[i] += -r.lr * slope / root;
      }
    }
  }
}

}  // namespace

extern "C" {

void effnet_rmsprop(float* parameter, const float* gradient, float* square_avg, float* momentum_buffer, int64_t count,
                    float lr, float weight_decay, float alpha, float rest, float eps, float momentum) {
  const Rates rates{lr, weight_decay, alpha, rest, eps, momentum};
  if (momentum_buffer == nullptr)
    update<false>(parameter, gradient, square_avg, nullptr, count, rates);
  else
    update<true>(parameter, gradient, square_avg, momentum_buffer, count, rates);
}
}
