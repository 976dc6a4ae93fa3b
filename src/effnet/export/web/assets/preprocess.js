// From an image's pixels to the network's input as validation prepares it: resize of the shorter side, antialiased,
// and centre crop, with PyTorch's own fixed-point arithmetic, so that the bytes are the same.

const MAX_ASPECT = 4; // as in effnet.data.transforms

const FILTERS = {
  bilinear: [1, x => Math.max(0, 1 - Math.abs(x))],
  triangular: [1, x => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, cubic],
};

function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

function roundHalfEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

function limited(length, longest) {
  return length <= longest ? length : longest - (length - longest) % 2;
}

// The weights of each output pixel along one axis, as integers: {first, weights, bits}, weights of `taps` each.
function table(from, to, interpolation) {
  const scale = from / to;
  if (interpolation === "nearest") {
    const single = Math.fround(scale), nearest = at => Math.floor(Math.fround(Math.fround(at + 0.5) * single));
    const first = Int32Array.from({length: to}, (_, at) => Math.min(from - 1, nearest(at)));
    return {first, count: new Int32Array(to).fill(1), weights: new Int32Array(to).fill(1), taps: 1, bits: 0};
  }
  const [radius, filter] = FILTERS[interpolation], stretch = Math.max(1, scale), support = radius * stretch;
  const taps = 2 * Math.ceil(support) + 1, first = new Int32Array(to), count = new Int32Array(to);
  const exact = new Float64Array(to * taps);
  let largest = 0;
  for (let at = 0; at < to; at++) {
    const centre = scale * (at + 0.5), begin = Math.max(0, Math.trunc(centre - support + 0.5));
    const length = Math.min(taps, Math.min(from, Math.trunc(centre + support + 0.5)) - begin);
    let sum = 0;
    for (let tap = 0; tap < length; tap++) {
      sum += exact[at * taps + tap] = filter((tap + begin - centre + 0.5) / stretch);
    }
    for (let tap = 0; tap < length; tap++) {
      if (sum) exact[at * taps + tap] /= sum;
      largest = Math.max(largest, exact[at * taps + tap]);
    }
    first[at] = begin;
    count[at] = length;
  }
  // As many bits as the largest weight leaves in 16.
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  const weights = Int32Array.from(exact, each => Math.trunc(each * 2 ** bits + (each < 0 ? -0.5 : 0.5)));
  return {first, count, weights, taps, bits};
}

function clipped(value) {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

// Columns `left` to `left + side` of rows `top` to `bottom`: RGB bytes, from pixels of `step` bytes.
function acrossRows(data, step, width, at, top, bottom, left, side, {first, count, weights, taps, bits}) {
  const out = new Uint8Array((bottom - top) * side * 3), half = bits ? 1 << (bits - 1) : 0;
  let to = 0;
  for (let row = top; row < bottom; row++) {
    const start = ((row + at.top) * width + at.left) * step;
    for (let column = left; column < left + side; column++) {
      let from = start + first[column] * step, red = half, green = half, blue = half;
      for (let tap = column * taps, end = tap + count[column]; tap < end; tap++, from += step) {
        const weight = weights[tap];
        red += weight * data[from];
        green += weight * data[from + 1];
        blue += weight * data[from + 2];
      }
      out[to++] = clipped(red >> bits);
      out[to++] = clipped(green >> bits);
      out[to++] = clipped(blue >> bits);
    }
  }
  return out;
}

function downColumns(data, side, top, begin, {first, count, weights, taps, bits}) {
  const line = side * 3, out = new Uint8Array(side * line), half = bits ? 1 << (bits - 1) : 0;
  const sums = new Int32Array(line);
  for (let row = 0; row < side; row++) {
    sums.fill(half);
    for (let tap = 0; tap < count[top + row]; tap++) {
      const weight = weights[(top + row) * taps + tap];
      const from = (first[top + row] + tap - begin) * line;
      for (let at = 0; at < line; at++) sums[at] += weight * data[from + at];
    }
    for (let at = 0; at < line; at++) out[row * line + at] = clipped(sums[at] >> bits);
  }
  return out;
}

/**
 * Return the network's input, RGB bytes (side, side, 3).
 *
 * @param {{data: Uint8Array | Uint8ClampedArray, width: number, height: number}} image - RGBA, or RGB, row by row.
 * @param {{image_size: number, resize: number, interpolation: string}} preprocessing - of the model.
 */
export function prepared({data, width, height}, {image_size: side, resize, interpolation}) {
  const step = data.length / (width * height), shorter = Math.min(width, height);
  // The ends of a very long image are left out before the resize.
  const inner = {width: limited(width, MAX_ASPECT * shorter), height: limited(height, MAX_ASPECT * shorter)};
  const at = {left: roundHalfEven((width - inner.width) / 2), top: roundHalfEven((height - inner.height) / 2)};
  const wide = Math.floor(resize * Math.min(width, MAX_ASPECT * shorter) / shorter);
  const high = Math.floor(resize * Math.min(height, MAX_ASPECT * shorter) / shorter);
  const left = roundHalfEven((wide - side) / 2), top = roundHalfEven((high - side) / 2);
  const kind = inner.width === wide && inner.height === high ? "nearest" : interpolation;
  const down = table(inner.height, high, kind);
  const begin = down.first[top], last = top + side - 1, end = down.first[last] + down.count[last];
  const rows = acrossRows(data, step, width, at, begin, end, left, side, table(inner.width, wide, kind));
  return downColumns(rows, side, top, begin, down);
}

/** Return what a graph without the normalisation takes, float32 (3, side, side), for the bytes of `prepared`. */
export function normalised(bytes, {image_size: side, mean, std}) {
  const area = side * side, out = new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const scale = 1 / (255 * std[channel]), shift = mean[channel] / std[channel];
    for (let at = 0; at < area; at++) out[channel * area + at] = bytes[3 * at + channel] * scale - shift;
  }
  return out;
}
