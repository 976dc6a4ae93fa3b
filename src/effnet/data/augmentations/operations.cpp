// Operations of AutoAugment on RGB images, to the last bit what Pillow computes: uint8, (height, width, 3), dense.
// To be compiled without fused multiply-adds, which round once where Pillow rounds twice.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t CHANNELS = 3;
constexpr int64_t BLOCK = 64;  // pixels of a row at a time
constexpr int64_t BYTES = CHANNELS * BLOCK;

// Pixels of a row, each with the four of its column that it lies among.
struct Block {
  int64_t row[BLOCK];  // of the first of the four
  uint8_t from[4][BYTES], result[BYTES];
  double place[BYTES];  // between the second and the third, from 0 to 1

  void locate(int64_t y, int64_t x, int64_t count, double slope) {
    for (int64_t i = 0; i < count; i++) {
      const double centre = slope * (x + i + 0.5) + (y + 0.5) - 0.5, whole = std::floor(centre);
      row[i] = static_cast<int64_t>(whole) - 1;
      for (int64_t c = 0; c < CHANNELS; c++) place[CHANNELS * i + c] = centre - whole;
    }
  }

  // Neighbouring columns mostly start in the same row and are copied together. `in` is the first one's pixel in row 0.
  void fetch(const uint8_t* in, int64_t height, int64_t stride, int64_t count) {
    for (int64_t first = 0, end; first < count; first = end) {
      for (end = first + 1; end < count && row[end] == row[first];) end++;
      for (int64_t k = 0; k < 4; k++) {
        const int64_t y = std::clamp<int64_t>(row[first] + k, 0, height - 1);
        std::memcpy(from[k] + CHANNELS * first, in + y * stride + CHANNELS * first, CHANNELS * (end - first));
      }
    }
  }

  void interpolate() {
    for (int64_t i = 0; i < BYTES; i++) {
      const int a = from[0][i], b = from[1][i], c = from[2][i], d = from[3][i];
      const double linear = c - a, square = 2 * (a - b) + c - d, cube = b - a + d - c, t = place[i];
      double value = b + t * (linear + t * (square + t * cube));
      value = value > 0 ? value : 0;
      value = value < 255 ? value : 255;
      result[i] = static_cast<uint8_t>(static_cast<int>(value));
    }
  }
};

using Table = std::array<std::array<uint8_t, 256>, CHANNELS>;  // new value of each value, by channel

void look_up(const uint8_t* in, uint8_t* out, int64_t pixels, const Table& table) {
  for (int64_t i = 0; i < CHANNELS * pixels; i += CHANNELS)
    for (int64_t c = 0; c < CHANNELS; c++) out[i + c] = table[c][in[i + c]];
}

// A table made from a channel's histogram by `fill(counts, row)`; one that changes nothing to begin with.
template <typename Fill>
void look_up_by_histogram(const uint8_t* in, uint8_t* out, int64_t pixels, const Fill& fill) {
  std::array<std::array<int64_t, 256>, CHANNELS> counts = {};
  for (int64_t i = 0; i < CHANNELS * pixels; i += CHANNELS)
    for (int64_t c = 0; c < CHANNELS; c++) counts[c][in[i + c]]++;
  Table table;
  for (int64_t c = 0; c < CHANNELS; c++) {
    for (int64_t value = 0; value < 256; value++) table[c][value] = static_cast<uint8_t>(value);
    fill(counts[c], table[c]);
  }
  look_up(in, out, pixels, table);
}

}  // namespace

extern "C" {

// `table`: (3, 256)
void effnet_look_up(const uint8_t* in, uint8_t* out, int64_t pixels, const Table* table) {
  look_up(in, out, pixels, *table);
}

// Spreads the shares of darker pixels evenly.
void effnet_equalize(const uint8_t* in, uint8_t* out, int64_t pixels) {
  look_up_by_histogram(in, out, pixels, [=](const auto& counts, auto& row) {
    const auto last = std::find_if(counts.rbegin(), counts.rend(), [](int64_t count) { return count > 0; });
    const int64_t step = (pixels - *last) / 255;
    if (step == 0) return;
    int64_t darker = step / 2;
    for (int64_t value = 0; value < 256; value++) {
      row[value] = static_cast<uint8_t>(std::min<int64_t>(darker / step, 255));
      darker += counts[value];
    }
  });
}

// Spreads the range from the darkest to the brightest value.
void effnet_auto_contrast(const uint8_t* in, uint8_t* out, int64_t pixels) {
  look_up_by_histogram(in, out, pixels, [](const auto& counts, auto& row) {
    int64_t low = 0, high = 255;
    while (low < 255 && counts[low] == 0) low++;
    while (high > 0 && counts[high] == 0) high--;
    if (high <= low) return;
    const double scale = 255.0 / static_cast<double>(high - low), offset = -static_cast<double>(low) * scale;
    for (int64_t value = 0; value < 256; value++) {
      const double stretched = static_cast<double>(value) * scale + offset;
      row[value] = static_cast<uint8_t>(std::clamp(static_cast<int>(stretched), 0, 255));
    }
  });
}

// Moves each colour away from its grey, or towards it with a factor below 1.
void effnet_color(const uint8_t* in, uint8_t* out, int64_t pixels, float factor) {
  for (int64_t i = 0; i < CHANNELS * pixels; i += CHANNELS) {
    const int grey = (in[i] * 19595 + in[i + 1] * 38470 + in[i + 2] * 7471 + 0x8000) >> 16;
    for (int64_t c = 0; c < CHANNELS; c++) {
      const float value = static_cast<float>(grey) + factor * static_cast<float>(in[i + c] - grey);
      out[i + c] = static_cast<uint8_t>(static_cast<int>(std::min(std::max(value, 0.0f), 255.0f)));
    }
  }
}

// Pixel (x, y) of `out` is that at y + `slope` x of column x of `in`, both (height, width, 3), or `fill` where that is
// outside. Coordinates are those of the pixels' centres.
void effnet_shear_y(const uint8_t* in, uint8_t* out, int64_t height, int64_t width, double slope,
                    const uint8_t* fill) {
  const int64_t stride = CHANNELS * width;
  Block block = {};
  for (int64_t y = 0; y < height; y++)
    for (int64_t x = 0; x < width; x += BLOCK) {
      const int64_t count = std::min(BLOCK, width - x);
      block.locate(y, x, count, slope);
      block.fetch(in + CHANNELS * x, height, stride, count);
      block.interpolate();
      for (int64_t i = 0; i < count; i++) {
        const double from = slope * (x + i + 0.5) + (y + 0.5);
        if (from < 0 || from >= height) std::memcpy(block.result + CHANNELS * i, fill, CHANNELS);
      }
      std::memcpy(out + y * stride + CHANNELS * x, block.result, CHANNELS * count);
    }
}

}
