// node check.mjs FOLDER: open each model of a folder in onnxruntime-web, compare it with PyTorch, print JSON.

import {readFile} from "node:fs/promises";
import {join, resolve} from "node:path";
import {pathToFileURL} from "node:url";

const folder = resolve(process.argv[2]);
const at = (...names) => pathToFileURL(join(folder, ...names)).href;
const {opened, difference} = await import(at("classify.js"));
const ort = await import(at("runtime", "ort.wasm.min.mjs"));
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = {
  mjs: at("runtime", "ort-wasm-simd-threaded.mjs"),
  wasm: at("runtime", "ort-wasm-simd-threaded.wasm"),
};
ort.env.wasm.wasmBinary = await readFile(join(folder, "runtime", "ort-wasm-simd-threaded.wasm"));
const {models} = JSON.parse(await readFile(join(folder, "models.json"), "utf8"));
const found = [];
for (const model of models) {
  const session = await opened(ort, await readFile(join(folder, model.file)), "wasm");
  found.push(await difference(ort, session, model));
  await session.release();
}
console.log(JSON.stringify(found));
process.exit(0);
