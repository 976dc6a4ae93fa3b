// Decodes parts of a JPEG file after damaging it in many ways; for a compiler that checks each access to memory.
// Arguments: the file, how many damaged ones. Prints how many of them were decoded, and how many refused.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "../../../src/effnet/data/baseline_jpeg.cpp"

int main(int, char** arguments) {
  std::ifstream file(arguments[1], std::ios::binary);
  const std::vector<uint8_t> whole((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::mt19937 random(0);
  int decoded[2] = {};
  for (int round = 0; round < std::atoi(arguments[2]); round++) {
    std::vector<uint8_t> data = whole;
    // Half of them in the first 700 bytes, where the headers are.
    const size_t end = round % 2 ? data.size() : std::min<size_t>(data.size(), 700);
    for (uint32_t change = random() % 8; change > 0; change--) data[2 + random() % (end - 2)] = random() % 256;
    if (round % 16 == 0) data.resize(random() % data.size());
    if (round % 8 == 1) data.erase(data.begin() + 2 + random() % (end / 2), data.begin() + 2 + random() % 16 + end / 2);
    // Allocated to the byte, so that reading beyond the end is seen.
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[data.size()]);
    std::copy(data.begin(), data.end(), exact.get());
    const int64_t height = 1 + random() % 64, width = 1 + random() % 64, top = random() % 32, left = random() % 32;
    const std::unique_ptr<uint8_t[]> out(new uint8_t[3 * height * width]);
    decoded[effnet_jpeg_region(exact.get(), data.size(), top, left, height, width, out.get())]++;
  }
  std::printf("%d %d\n", decoded[0], decoded[1]);
}
