// A region of a baseline JPEG (ISO 10918-1), with the pixels that libjpeg-turbo computes by default: exact integer
// transform, smooth enlargement of colours. Blocks outside the region are skipped and those below it not even read.
// Whatever is unusual or damaged is refused, for a library to decode or to complain about.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

constexpr int BLOCK = 8, COEFFICIENTS = 64, LARGEST_CODE = 16, MOST_COMPONENTS = 3, TABLES = 2;
constexpr int WINDOW = 11;             // bits that are looked up at once
constexpr int STEPS = 4;               // windows between two readings of bits, which give at least 56
constexpr int END = 128;               // how far the end of a block goes on in it
constexpr int64_t LONGEST_UNIT = 4096;  // bytes; a minimum coded unit is 6 blocks of 64 x 31 bits at most
constexpr int SMALLEST_SIDE = 16;      // libjpeg enlarges the colours of narrow images otherwise

struct Refused {};

constexpr uint8_t ZIGZAG[COEFFICIENTS] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

// Positions in a block by zigzag index. All those that no block has are the one behind the block.
constexpr auto POSITIONS = [] {
  std::array<uint8_t, COEFFICIENTS + END> positions = {};
  for (int k = 0; k < COEFFICIENTS + END; k++) positions[k] = k < COEFFICIENTS ? ZIGZAG[k] : COEFFICIENTS;
  return positions;
}();

// A number whose first bit tells its sign (F.2.2.1, EXTEND).
inline int extended(int number, int bits) {
  return bits && number < 1 << (bits - 1) ? number - (1 << bits) + 1 : number;
}

// Bits of a scan, from the highest of each byte on. Whoever reads has to see to it that there are some.
class Bits {
 public:
  explicit Bits(const uint8_t* data) : next_(data) {}

  // Makes at least 56 bits valid; it reads 8 bytes, and those not counted as valid again.
  void refill() {
    uint64_t word;
    std::memcpy(&word, next_, sizeof word);
    bits_ |= __builtin_bswap64(word) >> count_;
    next_ += (63 - count_) >> 3;
    count_ |= 56;
  }
  uint32_t peek(int bits) const { return static_cast<uint32_t>(bits_ >> (64 - bits)); }
  void drop(int bits) {
    bits_ <<= bits;
    count_ -= bits;
  }
  // `bits` is from 1 to 15.
  int number(int bits) {
    const int value = extended(static_cast<int>(peek(bits)), bits);
    drop(bits);
    return value;
  }
  // Bytes that have been begun.
  int64_t used(const uint8_t* data) const { return next_ - data - (count_ >> 3); }

 private:
  const uint8_t* next_;
  uint64_t bits_ = 0;
  int count_ = 0;  // valid bits
};

// A Huffman table. A symbol's upper four bits are a number of zeros, the lower ones the bits of the number after it.
class Huffman {
 public:
  // The one or two symbols with their numbers that a window begins with; `bits` is 0 where it does not hold a whole one.
  // Instead of a second there may be the first again, which then advances by 0.
  struct Entry {
    int16_t value, second_value;
    uint8_t advance, second_advance;  // how far the symbol goes on in the block
    uint8_t bits, all_bits;
  };

  bool defined = false;

  // Reads a table's definition (B.2.4.2) and returns its length.
  int64_t define(const uint8_t* in, const uint8_t* end, bool is_ac) {
    if (end - in < LARGEST_CODE) throw Refused();
    int count = 0, code = 0;
    for (int length = 1; length <= LARGEST_CODE; length++) {
      first_[length] = code - count;
      count += in[length - 1];
      code += in[length - 1];
      if (code > 1 << length) throw Refused();
      limit_[length] = code << (LARGEST_CODE - length);
      code <<= 1;
    }
    if (count > 256 || end - in < LARGEST_CODE + count) throw Refused();
    std::fill(std::begin(symbols_), std::end(symbols_), 0);
    std::copy_n(in + LARGEST_CODE, count, symbols_);
    for (int i = 0; !is_ac && i < count; i++)
      if (symbols_[i] > 11) throw Refused();
    count_ = count;
    fill(is_ac);
    defined = true;
    return LARGEST_CODE + count;
  }

  Entry entry(const Bits& bits) const { return entries_[bits.peek(WINDOW)]; }

  // The next symbol.
  uint8_t symbol(Bits& bits) const {
    const int code = static_cast<int>(bits.peek(LARGEST_CODE));
    int length = 1;
    while (length <= LARGEST_CODE && code >= limit_[length]) length++;
    if (length > LARGEST_CODE) throw Refused();
    const int at = (code >> (LARGEST_CODE - length)) - first_[length];
    if (at < 0 || at >= count_) throw Refused();
    bits.drop(length);
    return symbols_[at];
  }

 private:
  void fill(bool is_ac) {
    std::fill(entries_.begin(), entries_.end(), Entry{});
    int code = 0, at = 0;
    for (int length = 1; length <= WINDOW; length++) {
      for (; at < count_ && code << (LARGEST_CODE - length) < limit_[length]; at++, code++)
        fill(is_ac, symbols_[at], code, length);
      code <<= 1;
    }
    if (is_ac) pair();
  }

  void fill(bool is_ac, int symbol, int code, int length) {
    const int zeros = symbol >> 4, size = symbol & 15, rest = WINDOW - length - size;
    const bool ends = is_ac && size == 0 && zeros < 15;
    if (rest < 0 || (ends && zeros > 0)) return;  // the latter are of progressive images
    const uint8_t advance = static_cast<uint8_t>(ends ? END : zeros + 1), bits = static_cast<uint8_t>(length + size);
    for (int number = 0; number < 1 << size; number++) {
      const int16_t value = static_cast<int16_t>(extended(number, size));
      const Entry entry = {value, value, advance, 0, bits, bits};
      std::fill_n(entries_.begin() + (((code << size) + number) << rest), 1 << rest, entry);
    }
  }

  // Adds second symbols.
  void pair() {
    for (int window = (1 << WINDOW) - 1; window >= 0; window--) {
      Entry& entry = entries_[window];
      if (entry.bits == 0 || entry.advance == END) continue;
      const Entry& second = entries_[(window << entry.bits) & ((1 << WINDOW) - 1)];
      if (second.bits == 0 || entry.bits + second.bits > WINDOW) continue;
      entry.second_value = second.value;
      entry.second_advance = second.advance;
      entry.all_bits = static_cast<uint8_t>(entry.bits + second.bits);
    }
  }

  int count_ = 0;
  int first_[LARGEST_CODE + 1] = {};  // code minus position in `symbols_`, by length
  int limit_[LARGEST_CODE + 1] = {};  // the code after the last one of a length, followed by zeros
  uint8_t symbols_[256] = {};
  std::array<Entry, 1 << WINDOW> entries_ = {};
};

using Quantization = std::array<int16_t, COEFFICIENTS + END>;  // by zigzag index; 0 behind the block

typedef int32_t Eight __attribute__((vector_size(32)));
typedef int16_t EightShorts __attribute__((vector_size(16)));  // a step between the two: GCC converts by twos well
typedef uint8_t EightBytes __attribute__((vector_size(8)));

// The inverse cosine transform in one direction (Loeffler, Ligtenberg, Moschytz 1989), in fixed point with 13 bits.
template <int SHIFT>
inline void transform(Eight (&v)[BLOCK]) {
  const Eight even = (v[2] + v[6]) * 4433, low = even - v[6] * 15137, high = even + v[2] * 6270;
  const Eight sum = (v[0] + v[4]) << 13, difference = (v[0] - v[4]) << 13;
  const Eight rounded_sum = sum + (1 << (SHIFT - 1)), rounded_difference = difference + (1 << (SHIFT - 1));
  const Eight a = rounded_sum + high, d = rounded_sum - high, b = rounded_difference + low, c = rounded_difference - low;
  const Eight turn = (v[7] + v[3] + v[5] + v[1]) * 9633;
  const Eight z1 = (v[7] + v[1]) * -7373, z2 = (v[5] + v[3]) * -20995;
  const Eight z3 = (v[7] + v[3]) * -16069 + turn, z4 = (v[5] + v[1]) * -3196 + turn;
  const Eight t0 = v[7] * 2446 + z1 + z3, t1 = v[5] * 16819 + z2 + z4;
  const Eight t2 = v[3] * 25172 + z2 + z3, t3 = v[1] * 12299 + z1 + z4;
  v[0] = (a + t3) >> SHIFT, v[7] = (a - t3) >> SHIFT;
  v[1] = (b + t2) >> SHIFT, v[6] = (b - t2) >> SHIFT;
  v[2] = (c + t1) >> SHIFT, v[5] = (c - t1) >> SHIFT;
  v[3] = (d + t0) >> SHIFT, v[4] = (d - t0) >> SHIFT;
}

inline void transpose(Eight (&v)[BLOCK]) {
  const Eight low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
  const Eight first = {0, 1, 8, 9, 4, 5, 12, 13}, second = {2, 3, 10, 11, 6, 7, 14, 15};
  const Eight upper = {0, 1, 2, 3, 8, 9, 10, 11}, lower = {4, 5, 6, 7, 12, 13, 14, 15};
  Eight pairs[BLOCK], fours[BLOCK];
  for (int i = 0; i < BLOCK; i += 2) {
    pairs[i] = __builtin_shuffle(v[i], v[i + 1], low);
    pairs[i + 1] = __builtin_shuffle(v[i], v[i + 1], high);
  }
  for (int i = 0; i < BLOCK; i += 4)
    for (int j = 0; j < 2; j++) {
      fours[i + 2 * j] = __builtin_shuffle(pairs[i + j], pairs[i + j + 2], first);
      fours[i + 2 * j + 1] = __builtin_shuffle(pairs[i + j], pairs[i + j + 2], second);
    }
  for (int i = 0; i < 4; i++) {
    v[i] = __builtin_shuffle(fours[i], fours[i + 4], upper);
    v[i + 4] = __builtin_shuffle(fours[i], fours[i + 4], lower);
  }
}

// A block's pixels from its coefficients.
void write_block(const int16_t* coefficients, uint8_t* out, int64_t stride) {
  Eight v[BLOCK];
  for (int i = 0; i < BLOCK; i++) {
    EightShorts row;
    std::memcpy(&row, coefficients + BLOCK * i, sizeof row);
    v[i] = __builtin_convertvector(row, Eight);
  }
  transform<11>(v);
  transpose(v);
  transform<18>(v);
  transpose(v);
  for (int i = 0; i < BLOCK; i++) {
    Eight row = v[i] + 128;
    row = row > 0 ? row : 0;
    row = row < 255 ? row : 255;
    const EightBytes bytes = __builtin_convertvector(__builtin_convertvector(row, EightShorts), EightBytes);
    std::memcpy(out + i * stride, &bytes, sizeof bytes);
  }
}

void write_flat_block(int dc, uint8_t* out, int64_t stride) {
  const int value = std::clamp(((dc * 4 + 16) >> 5) + 128, 0, 255);
  for (int i = 0; i < BLOCK; i++) std::memset(out + i * stride, value, BLOCK);
}

// Some neighbouring pixels in RGB, of brightness and two colours (JFIF 1.02, in fixed point with 16 bits).
struct Rgb {
  static constexpr int PIXELS = 64;
  uint8_t light[PIXELS], blue[PIXELS], red[PIXELS], r[PIXELS], g[PIXELS], b[PIXELS], out[3 * PIXELS];

  void compute(const uint8_t* lights, const uint8_t* blues, const uint8_t* reds, int64_t count) {
    std::memcpy(light, lights, count);
    std::memcpy(blue, blues, count);
    std::memcpy(red, reds, count);
    for (int i = 0; i < PIXELS; i++) {
      const int y = light[i], cb = blue[i] - 128, cr = red[i] - 128;
      r[i] = limited(y + ((91881 * cr + 32768) >> 16));
      g[i] = limited(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
      b[i] = limited(y + ((116130 * cb + 32768) >> 16));
    }
  }

  const uint8_t* interleaved() {
    for (int i = 0; i < PIXELS; i += 16) {
      const Sixteen reds = load(r + i), greens = load(g + i), blues = load(b + i);
      for (int j = 0; j < 48; j += 16) {
        const Sixteen two = __builtin_shuffle(reds, greens, load(ORDER.two.data() + j));
        const Sixteen all = __builtin_shuffle(two, blues, load(ORDER.all.data() + j));
        std::memcpy(out + 3 * i + j, &all, 16);
      }
    }
    return out;
  }

 private:
  typedef uint8_t Sixteen __attribute__((vector_size(16)));
  static Sixteen load(const uint8_t* in) {
    Sixteen bytes;
    std::memcpy(&bytes, in, sizeof bytes);
    return bytes;
  }
  static uint8_t limited(int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

  // Where each byte of 16 pixels comes from: first red and green are mixed, then these and blue.
  struct Order {
    std::array<uint8_t, 48> two, all;
  };
  static constexpr Order ORDER = [] {
    Order order = {};
    for (int i = 0; i < 48; i++) {
      order.two[i] = static_cast<uint8_t>(i / 3 + (i % 3 == 1 ? 16 : 0));
      order.all[i] = static_cast<uint8_t>(i % 3 == 2 ? i / 3 + 16 : i % 16);
    }
    return order;
  }();
};

struct Component {
  int id, across, down;  // sampling factors
  int quantization, dc_table = 0, ac_table = 0;
  int last_dc = 0;
  // The blocks that the region needs, from the first to behind the last, and their pixels
  int64_t top = 0, bottom = 0, left = 0, right = 0;
  std::unique_ptr<uint8_t[]> plane;

  int64_t stride() const { return BLOCK * (right - left); }
  void choose(int64_t first_row, int64_t last_row, int64_t first_column, int64_t last_column) {
    top = first_row / BLOCK, bottom = last_row / BLOCK + 1;
    left = first_column / BLOCK, right = last_column / BLOCK + 1;
    plane.reset(new uint8_t[BLOCK * (bottom - top) * stride()]);
  }
  bool needs(int64_t row, int64_t column) const {
    return row >= top && row < bottom && column >= left && column < right;
  }
  uint8_t* block(int64_t row, int64_t column) const {
    return plane.get() + BLOCK * ((row - top) * stride() + column - left);
  }
  // A row of pixels, of which those of the blocks chosen may be read
  const uint8_t* row(int64_t y) const { return plane.get() + (y - BLOCK * top) * stride() - BLOCK * left; }
};

struct Region {
  int64_t top, left, height, width;
  int64_t bottom() const { return top + height; }
  int64_t right() const { return left + width; }
};

inline int64_t over(int64_t amount, int64_t divisor) { return (amount + divisor - 1) / divisor; }

class Decoder {
 public:
  Decoder(const uint8_t* data, int64_t size) : in_(data), end_(data + size) {}

  void decode(const Region& region, uint8_t* out) {
    read_header();
    if (region.top < 0 || region.left < 0 || region.height < 1 || region.width < 1 || region.bottom() > height_ ||
        region.right() > width_)
      throw Refused();
    choose_blocks(region);
    read_scan();
    decode_scan();
    for (int64_t y = region.top; y < region.bottom(); y++)
      write_row(y, region, out + 3 * region.width * (y - region.top));
  }

 private:
  int byte() {
    if (in_ == end_) throw Refused();
    return *in_++;
  }
  int word() {
    const int high = byte();
    return high << 8 | byte();
  }

  // Reads all up to the scan.
  void read_header() {
    if (word() != 0xFFD8) throw Refused();
    for (;;) {
      if (byte() != 0xFF) throw Refused();
      int marker = byte();
      while (marker == 0xFF) marker = byte();
      const int64_t length = word() - 2;
      if (length < 0 || length > end_ - in_) throw Refused();
      const uint8_t* after = in_ + length;
      read_segment(marker, after);
      in_ = after;
      if (marker == 0xDA) return;
    }
  }

  void read_segment(int marker, const uint8_t* after) {
    if (marker == 0xC0 || marker == 0xC1) {
      read_frame(after);
    } else if (marker == 0xC4) {
      while (in_ < after) {
        const int kind = byte(), at = kind & 15;
        if (kind >> 5 || at >= TABLES) throw Refused();
        in_ += (kind >> 4 ? ac_ : dc_)[at].define(in_, after, kind >> 4);
      }
    } else if (marker == 0xDB) {
      while (in_ < after) read_quantization(after);
    } else if (marker == 0xDD) {
      restart_interval_ = word();
    } else if (marker == 0xDA) {
      read_scan_header(after);
    } else if (marker == 0xEE && after - in_ >= 12 && std::memcmp(in_, "Adobe", 5) == 0) {
      if (in_[11] != 1) throw Refused();  // not YCbCr
    } else if (!(marker == 0xFE || (marker >= 0xE0 && marker <= 0xEF))) {
      throw Refused();
    }
    if (in_ > after) throw Refused();
  }

  void read_frame(const uint8_t* after) {
    if (!components_.empty() || byte() != 8) throw Refused();
    height_ = word();
    width_ = word();
    const int count = byte();
    if ((count != 1 && count != MOST_COMPONENTS) || after - in_ != 3 * count) throw Refused();
    if (height_ < SMALLEST_SIDE || width_ < SMALLEST_SIDE) throw Refused();
    for (int i = 0; i < count; i++) {
      Component component;
      component.id = byte();
      const int sampling = byte();
      component.across = sampling >> 4, component.down = sampling & 15;
      component.quantization = byte();
      if (component.quantization > 3 || (count > 1 && component.id != i + 1)) throw Refused();
      components_.push_back(std::move(component));
    }
    if (count == 1) components_[0].across = components_[0].down = 1;  // then they mean nothing
    across_ = components_[0].across, down_ = components_[0].down;
    for (int i = 1; i < count; i++)
      if (components_[i].across != 1 || components_[i].down != 1) throw Refused();
    if (across_ < 1 || across_ > 2 || down_ < 1 || down_ > across_) throw Refused();
  }

  void read_quantization(const uint8_t* after) {
    const int kind = byte(), at = kind & 15;
    if (kind >> 5 || at > 3 || after - in_ < COEFFICIENTS * (1 + (kind >> 4))) throw Refused();
    quantizations_[at] = {};
    for (int k = 0; k < COEFFICIENTS; k++)
      quantizations_[at][k] = static_cast<int16_t>(kind >> 4 ? word() : byte());
    has_quantization_[at] = true;
  }

  void read_scan_header(const uint8_t* after) {
    const size_t count = byte();
    if (components_.empty() || count != components_.size() || after - in_ != 2 * static_cast<int64_t>(count) + 3)
      throw Refused();
    for (Component& component : components_) {
      if (byte() != component.id) throw Refused();
      const int tables = byte();
      component.dc_table = tables >> 4, component.ac_table = tables & 15;
      if (component.dc_table >= TABLES || component.ac_table >= TABLES || !dc_[component.dc_table].defined ||
          !ac_[component.ac_table].defined || !has_quantization_[component.quantization])
        throw Refused();
    }
    const int first = byte(), last = byte();
    if (first != 0 || last != COEFFICIENTS - 1 || byte() != 0) throw Refused();
  }

  // Colours are interpolated between neighbours, also those outside the region.
  void choose_blocks(const Region& region) {
    components_[0].choose(region.top, region.bottom() - 1, region.left, region.right() - 1);
    for (size_t i = 1; i < components_.size(); i++) {
      const int64_t rows = over(height_, down_), columns = over(width_, across_);
      const int64_t around = across_ - 1, above = down_ - 1;
      components_[i].choose(std::max<int64_t>(region.top / down_ - above, 0),
                            std::min((region.bottom() - 1) / down_ + above, rows - 1),
                            std::max<int64_t>(region.left / across_ - around, 0),
                            std::min((region.right() - 1) / across_ + around, columns - 1));
    }
  }

  // Takes out what is not part of the numbers: zeros after 0xFF, and restart markers, whose places are kept.
  void read_scan() {
    scan_.reset(new uint8_t[end_ - in_ + LONGEST_UNIT]);
    uint8_t* out = scan_.get();
    for (int restarts = 0;;) {
      const void* found = std::memchr(in_, 0xFF, end_ - in_);
      if (found == nullptr) throw Refused();
      const int64_t length = static_cast<const uint8_t*>(found) - in_;
      std::memcpy(out, in_, length);
      out += length;
      in_ += length + 1;
      int marker = byte();
      while (marker == 0xFF) marker = byte();
      if (marker == 0) {
        *out++ = 0xFF;
        continue;
      }
      segments_.push_back(out - scan_.get());
      if (marker == 0xD9) break;
      if (marker != 0xD0 + restarts++ % 8 || restart_interval_ == 0) throw Refused();
    }
    std::memset(out, 0, LONGEST_UNIT);
  }

  void decode_scan() {
    int64_t last_row = 0;
    for (const Component& component : components_) last_row = std::max(last_row, over(component.bottom, component.down));
    const int64_t across = over(width_, BLOCK * across_);
    Bits bits(scan_.get());
    int64_t left = restart_interval_;
    size_t segment = 0;
    for (int64_t row = 0; row < last_row; row++)
      for (int64_t column = 0; column < across; column++) {
        if (restart_interval_ && left-- == 0) {
          if (bits.used(scan_.get()) != segments_[segment] || segment + 1 == segments_.size()) throw Refused();
          bits = Bits(scan_.get() + segments_[segment++]);
          for (Component& component : components_) component.last_dc = 0;
          left = restart_interval_ - 1;
        }
        for (Component& component : components_)
          for (int i = 0; i < component.down; i++)
            for (int j = 0; j < component.across; j++)
              decode_block(bits, component, row * component.down + i, column * component.across + j);
        if (bits.used(scan_.get()) > segments_[segment]) throw Refused();
      }
  }

  void decode_block(Bits& bits, Component& component, int64_t row, int64_t column) const {
    const Huffman& dc = dc_[component.dc_table];
    bits.refill();
    if (const Huffman::Entry entry = dc.entry(bits); entry.bits) {
      bits.drop(entry.bits);
      component.last_dc += entry.value;
    } else if (const int size = dc.symbol(bits); size) {
      component.last_dc += bits.number(size);
    }
    const Huffman& ac = ac_[component.ac_table];
    if (!component.needs(row, column)) {
      read_coefficients(bits, ac, [](int, int) {});
      return;
    }
    const Quantization& steps = quantizations_[component.quantization];
    const int16_t first = static_cast<int16_t>(component.last_dc * steps[0]);
    alignas(16) int16_t coefficients[COEFFICIENTS + 1] = {first};
    uint8_t* out = component.block(row, column);
    const int end = read_coefficients(bits, ac, [&](int k, int value) {
      coefficients[POSITIONS[k - 1]] = static_cast<int16_t>(value * steps[k - 1]);
    });
    if (end == 1 + END)
      write_flat_block(first, out, component.stride());
    else
      write_block(coefficients, out, component.stride());
  }

  // Calls `set` with the zigzag index behind each coefficient and its value, and returns the last index.
  template <typename Set>
  static int read_coefficients(Bits& bits, const Huffman& table, const Set& set) {
    int k = 1;
    while (k < COEFFICIENTS) {
      bits.refill();
      for (int i = 0; i < STEPS && k < COEFFICIENTS; i++) {
        const Huffman::Entry entry = table.entry(bits);
        if (entry.bits == 0) {
          bits.refill();
          const int symbol = table.symbol(bits), size = symbol & 15;
          k += end_or_zeros(symbol);
          if (size) set(k, bits.number(size));
          break;
        }
        k += entry.advance;
        set(k, entry.value);
        if (k >= COEFFICIENTS) {
          bits.drop(entry.bits);
          break;
        }
        k += entry.second_advance;
        set(k, entry.second_value);
        bits.drop(entry.all_bits);
      }
    }
    // A block ends by its mark or with its last coefficient.
    if (k > COEFFICIENTS && k <= END) throw Refused();
    return k;
  }

  // How far a symbol goes on in the block (F.1.2.2.1).
  static int end_or_zeros(int symbol) {
    const int zeros = symbol >> 4;
    if ((symbol & 15) || zeros == 15) return zeros + 1;
    if (zeros) throw Refused();
    return END;
  }

  // A row of RGB from brightness and the two colours.
  void write_row(int64_t y, const Region& region, uint8_t* out) {
    const uint8_t* bright = components_[0].row(y) + region.left;
    if (components_.size() == 1) {
      for (int64_t x = 0; x < region.width; x++) out[3 * x] = out[3 * x + 1] = out[3 * x + 2] = bright[x];
      return;
    }
    colours_.resize(2 * region.width);
    uint8_t *blue = colours_.data(), *red = blue + region.width;
    enlarge_row(components_[1], y, region, blue);
    enlarge_row(components_[2], y, region, red);
    Rgb rgb = {};
    for (int64_t x = 0; x < region.width; x += Rgb::PIXELS) {
      const int64_t count = std::min<int64_t>(Rgb::PIXELS, region.width - x);
      rgb.compute(bright + x, blue + x, red + x, count);
      std::memcpy(out + 3 * x, rgb.interleaved(), 3 * count);
    }
  }

  // A row of a colour at the size of the image: three quarters of the nearest value and a quarter of the next one.
  void enlarge_row(const Component& colour, int64_t y, const Region& region, uint8_t* out) {
    if (across_ == 1) {
      std::memcpy(out, colour.row(y) + region.left, region.width);
      return;
    }
    const int64_t columns = over(width_, 2), first = region.left / 2, last = (region.right() - 1) / 2;
    sums_.resize(last - first + 3);
    uint16_t* sums = sums_.data() + 1;  // of two rows, by column from `first`, with a neighbour on both sides
    const int64_t start = std::max<int64_t>(first - 1, 0), end = std::min(last + 1, columns - 1);
    const int64_t near = y / down_, rows = over(height_, down_);
    const int64_t far = std::clamp<int64_t>(y % 2 ? near + 1 : near - 1, 0, rows - 1);
    const uint8_t *upper = colour.row(near), *lower = down_ == 1 ? nullptr : colour.row(far);
    for (int64_t i = start; i <= end; i++)
      sums[i - first] = static_cast<uint16_t>(lower == nullptr ? upper[i] : 3 * upper[i] + lower[i]);
    if (start == first) sums[-1] = sums[0];
    if (end == last) sums[last - first + 1] = sums[last - first];
    // Halves are rounded up and down by turns.
    const int shift = down_ == 1 ? 2 : 4, even = down_ == 1 ? 1 : 8, odd = down_ == 1 ? 2 : 7;
    wide_.resize(2 * (last - first + 1));
    for (int64_t i = 0; i <= last - first; i++) {
      wide_[2 * i] = static_cast<uint8_t>((3 * sums[i] + sums[i - 1] + even) >> shift);
      wide_[2 * i + 1] = static_cast<uint8_t>((3 * sums[i] + sums[i + 1] + odd) >> shift);
    }
    std::memcpy(out, wide_.data() + region.left % 2, region.width);
  }

  const uint8_t *in_, *end_;
  int64_t height_ = 0, width_ = 0, restart_interval_ = 0;
  int across_ = 1, down_ = 1;  // pixels for each of a colour
  std::vector<Component> components_;
  Huffman dc_[TABLES], ac_[TABLES];
  Quantization quantizations_[4] = {};
  bool has_quantization_[4] = {};
  std::unique_ptr<uint8_t[]> scan_;
  std::vector<int64_t> segments_;  // ends of what lies between restart markers, in bytes
  std::vector<uint8_t> colours_, wide_;
  std::vector<uint16_t> sums_;
};

}  // namespace

// Writes a region's pixels, uint8 (height, width, 3), RGB; returns 0, or 1 for a file that it refuses.
extern "C" int effnet_jpeg_region(const uint8_t* data, int64_t size, int64_t top, int64_t left, int64_t height,
                                  int64_t width, uint8_t* out) {
  try {
    std::make_unique<Decoder>(data, size)->decode({top, left, height, width}, out);
    return 0;
  } catch (const Refused&) {
    return 1;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
