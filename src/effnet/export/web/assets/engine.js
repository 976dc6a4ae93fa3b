// The page's worker: decodes photographs and runs the models, so that the page never stops answering.

import {difference, exampleImage, logitsOf, opened, predictions} from "./classify.js";
import {pixelsOf} from "./decode.js";

const RUNTIMES = {
  wasm: ["ort.wasm.min.mjs", "ort-wasm-simd-threaded"],
  webgpu: ["ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify"],
};
const TOP = 5, MEASURED = 9;
const runtimes = new Map(), sessions = new Map();
let last = Promise.resolve();

function threads() {
  return self.crossOriginIsolated ? Math.min(8, Math.max(1, navigator.hardwareConcurrency || 1)) : 1;
}

async function hasGpu() {
  return Boolean(navigator.gpu && await navigator.gpu.requestAdapter().catch(() => null));
}

async function runtime(provider) {
  if (!runtimes.has(provider)) {
    const [script, binary] = RUNTIMES[provider], at = name => new URL(`runtime/${name}`, import.meta.url).href;
    const ort = await import(at(script));
    ort.env.wasm.numThreads = threads();
    ort.env.wasm.wasmPaths = {mjs: at(binary + ".mjs"), wasm: at(binary + ".wasm")};
    runtimes.set(provider, ort);
  }
  return runtimes.get(provider);
}

async function checkedOpen(model, provider) {
  const ort = await runtime(provider), response = await fetch(new URL(model.file, import.meta.url));
  if (!response.ok) throw new Error(`${model.file}: HTTP ${response.status}`);
  const session = await opened(ort, new Uint8Array(await response.arrayBuffer()), provider);
  const found = await difference(ort, session, model);
  if (found <= model.tolerance[provider]) return {ort, session, provider, difference: found};
  await session.release();
  throw new Error(`${model.name}: its logits on ${provider} differ from PyTorch's by ${found.toPrecision(2)}; not used`);
}

// INT8 stays on the CPU, whose integer arithmetic WebGPU does not have.
async function open(model, mayUseGpu) {
  const wanted = mayUseGpu && model.precision === "fp32" && await hasGpu() ? "webgpu" : "wasm";
  const key = `${model.name} ${wanted}`;
  if (!sessions.has(key)) {
    let warning = "";
    const session = await checkedOpen(model, wanted).catch(error => {
      if (wanted === "wasm") throw error;
      warning = `WebGPU is not used: ${error.message}`;
      return checkedOpen(model, "wasm");
    });
    sessions.set(key, {...session, warning});
  }
  return sessions.get(key);
}

function described({provider, difference, warning}) {
  return {provider, threads: threads(), difference, warning};
}

const tasks = {
  async device() {
    return {gpu: await hasGpu(), threads: threads()};
  },

  async open({model, gpu}) {
    return described(await open(model, gpu));
  },

  async classify({model, gpu, file}) {
    const session = await open(model, gpu), begun = performance.now(), image = await pixelsOf(file);
    const decoding = performance.now() - begun;
    const {logits, resizing, network} = await logitsOf(session.ort, session.session, model, image);
    const times = {preparing: decoding + resizing, network};
    return {...described(session), times, predictions: predictions(model, logits, model.thresholds.length ? Infinity : TOP)};
  },

  async measure({model, gpu}) {
    const session = await open(model, gpu), image = exampleImage(model.example), times = [];
    for (let turn = 0; turn < MEASURED; turn++) {
      times.push((await logitsOf(session.ort, session.session, model, image)).network);
    }
    return {...described(session), network: times.sort((a, b) => a - b)[MEASURED >> 1]};
  },
};

// One task at a time: a session is not made for several.
self.addEventListener("message", ({data: {id, task, ...given}}) => {
  last = last.then(() => tasks[task](given)).then(
    result => self.postMessage({id, result}),
    error => self.postMessage({id, error: error.message || String(error)}),
  );
});
