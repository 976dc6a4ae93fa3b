// A model in onnxruntime-web: its session, its answers, and the comparison with PyTorch's.
// Runs in the page's worker, and in Node.js when the folder is written.

import {normalised, prepared} from "./preprocess.js";

const INPUT = "images", OUTPUT = "logits";

/**
 * Open a model.
 *
 * @param ort - onnxruntime-web.
 * @param {Uint8Array} bytes - of the ONNX file.
 * @param {string} provider - "wasm" or "webgpu".
 */
export function opened(ort, bytes, provider) {
  return ort.InferenceSession.create(bytes, {executionProviders: [provider], graphOptimizationLevel: "all"});
}

/** Return the logits of an image of `preprocess.js`, and the milliseconds of its two steps. */
export async function logitsOf(ort, session, model, image) {
  const begun = performance.now(), side = model.preprocessing.image_size;
  const bytes = prepared(image, model.preprocessing);
  const input = model.takes_bytes
    ? new ort.Tensor("uint8", bytes, [1, side, side, 3])
    : new ort.Tensor("float32", normalised(bytes, model.preprocessing), [1, 3, side, side]);
  const resized = performance.now();
  const output = (await session.run({[INPUT]: input}))[OUTPUT];
  return {logits: await output.getData(), resizing: resized - begun, network: performance.now() - resized};
}

/** Return the classes to show, the most probable first: [{name, probability}]. */
export function predictions(model, logits, most) {
  const scaled = Array.from(logits, each => each / model.temperature);
  let probabilities;
  if (model.thresholds.length) {
    probabilities = scaled.map(each => 1 / (1 + Math.exp(-each)));
  } else {
    const largest = scaled.reduce((a, b) => Math.max(a, b)), powers = scaled.map(each => Math.exp(each - largest));
    const sum = powers.reduce((a, b) => a + b);
    probabilities = powers.map(each => each / sum);
  }
  return probabilities
    .map((probability, at) => ({name: model.classes[at] ?? `class ${at}`, probability, at}))
    .filter(each => !model.thresholds.length || each.probability >= model.thresholds[each.at])
    .sort((a, b) => b.probability - a.probability || a.at - b.at)
    .slice(0, most)
    .map(({name, probability}) => ({name, probability}));
}

/** Return an image that is the same everywhere, for which `models.json` holds PyTorch's logits. */
export function exampleImage({width, height}) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) {
        data[at++] = (x * (3 + channel) + y * (5 - channel) + ((x * y >> 4) + channel)) & 255;
      }
    }
  }
  return {data, width, height};
}

/** Return the largest difference of a logit to PyTorch's, for `exampleImage`; NaN if a logit is none. */
export async function difference(ort, session, model) {
  const {logits} = await logitsOf(ort, session, model, exampleImage(model.example));
  if (logits.length !== model.example.logits.length) return NaN;
  return model.example.logits.reduce((most, each, at) => Math.max(most, Math.abs(each - logits[at])), 0);
}
