// What the page shows; `engine.js` computes.

const at = id => document.getElementById(id);
const MOST_SHOWN = 100;
const asked = new Map();
let engine, models = [], waiting = [], running = false, count = 0;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function ask(task, given) {
  const id = count++;
  return new Promise((resolve, reject) => {
    asked.set(id, {resolve, reject});
    engine.postMessage({id, task, ...given});
  });
}

function start() {
  engine = new Worker("engine.js", {type: "module"});
  engine.addEventListener("message", ({data: {id, result, error}}) => {
    const {resolve, reject} = asked.get(id);
    asked.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  });
  engine.addEventListener("error", event => tell(event.message || "This browser can't run the page's worker.", true));
}

function tell(text, isBad = false) {
  at("state").textContent = text;
  at("state").classList.toggle("bad", isBad);
}

const megabytes = bytes => (bytes / 1e6).toFixed(1) + " MB";
const milliseconds = time => (time < 10 ? time.toFixed(1) : Math.round(time)) + " ms";
const processor = ({provider, threads}) =>
  provider === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`;

function chosen() {
  return models[Number(document.querySelector("input[name=model]:checked").value)];
}

function showModels() {
  at("models").replaceChildren(...models.map((model, index) => {
    const row = element("tr"), first = element("td"), label = element("label"), radio = element("input");
    Object.assign(radio, {type: "radio", name: "model", value: index, checked: index === 0});
    radio.addEventListener("change", openChosen);
    label.append(radio, model.name.replace(/-(fp32|int8)(?=$|-)/, ""));
    first.append(label);
    row.append(first, element("td", model.precision.toUpperCase()), element("td", megabytes(model.bytes)),
      element("td", "–"));
    return row;
  }));
  at("choice").hidden = false;
}

function showTime(model, time) {
  at("models").children[models.indexOf(model)].lastElementChild.textContent = milliseconds(time);
}

function showOpened(model, opened) {
  const size = model.preprocessing.image_size;
  at("where").textContent = `${size} × ${size} px on ${processor(opened)}. Logits differ from PyTorch's by `
    + `${opened.difference.toExponential(1)} at most, on an example that was computed just now. ${opened.warning}`;
}

async function openChosen() {
  const model = chosen();
  tell(`loads ${model.name}, ${megabytes(model.bytes)}`);
  try {
    showOpened(model, await ask("open", {model, gpu: at("webgpu").checked}));
    tell(running ? "" : "ready");
  } catch (error) {
    tell(error.message, true);
  }
}

async function measure() {
  at("measure").disabled = true;
  try {
    for (const model of models) {
      tell(`measures ${model.name}`);
      showTime(model, (await ask("measure", {model, gpu: at("webgpu").checked})).network);
    }
    tell("measured: the median of nine runs of each network");
  } catch (error) {
    tell(error.message, true);
  }
  at("measure").disabled = false;
}

function card(file) {
  const item = element("li"), article = element("article"), body = element("div"), picture = element("img");
  picture.alt = "the photograph " + file.name;
  picture.src = URL.createObjectURL(file);
  picture.onerror = () => { picture.hidden = true; };
  body.append(element("h3", file.name || "pasted"), element("p", "waits", "facts"));
  article.append(picture, body);
  item.append(article);
  at("answers").prepend(item);
  while (at("answers").children.length > MOST_SHOWN) {
    URL.revokeObjectURL(at("answers").lastElementChild.querySelector("img").src);
    at("answers").lastElementChild.remove();
  }
  return body;
}

function show(body, model, answer) {
  const {preparing, network} = answer.times;
  body.querySelector(".facts").textContent = `${model.name}: ${milliseconds(network)} on `
    + `${processor(answer)}; decoded and resized in ${milliseconds(preparing)}`;
  showTime(model, network);
  if (!answer.predictions.length) body.append(element("p", "no label reaches its threshold"));
  const list = element("ol");
  for (const {name, probability} of answer.predictions) {
    const percent = 100 * probability, item = element("li"), row = element("div", undefined, "row");
    const track = element("div", undefined, "track"), bar = element("i");
    bar.style.width = percent + "%";
    row.append(element("span", name), element("span", percent.toFixed(1) + " %"));
    track.append(bar);
    item.append(row, track);
    list.append(item);
  }
  body.append(list);
}

async function work() {
  if (running) return;
  running = true;
  while (waiting.length) {
    tell(`${waiting.length} left`);
    const {file, body} = waiting.shift(), model = chosen();
    try {
      show(body, model, await ask("classify", {model, gpu: at("webgpu").checked, file}));
    } catch (error) {
      body.querySelector(".facts").textContent = "no answer";
      body.append(element("p", error.message, "bad"));
    }
  }
  running = false;
  tell("done");
}

function add(files) {
  for (const file of files) waiting.push({file, body: card(file)});
  if (models.length) work();
}

async function openCamera() {
  try {
    at("video").srcObject = await navigator.mediaDevices.getUserMedia(
      {video: {facingMode: "environment", width: {ideal: 1280}}});
  } catch (error) {
    tell(`The camera can't be used: ${error.message}`, true);
    return;
  }
  at("viewfinder").showModal();
  await at("video").play();
}

function closeCamera() {
  for (const track of at("video").srcObject?.getTracks() ?? []) track.stop();
  at("video").srcObject = null;
}

function shoot() {
  const video = at("video"), canvas = element("canvas");
  Object.assign(canvas, {width: video.videoWidth, height: video.videoHeight});
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(blob => add([new File([blob], `camera ${new Date().toLocaleTimeString()}`)]), "image/png");
  at("viewfinder").close();
}

at("files").addEventListener("change", () => { add(at("files").files); at("files").value = ""; });
at("measure").addEventListener("click", measure);
at("webgpu").addEventListener("change", openChosen);
at("camera").addEventListener("click", openCamera);
at("shoot").addEventListener("click", shoot);
at("stop").addEventListener("click", () => at("viewfinder").close());
at("viewfinder").addEventListener("close", closeCamera);
document.addEventListener("paste", event => add(event.clipboardData.files));
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, event => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", event => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
document.addEventListener("drop", event => {
  event.preventDefault();
  at("drop").classList.remove("over");
  add(event.dataTransfer.files);
});

// The service worker keeps the files for use without a network, and isolates the page, without which browsers refuse
// threads. It takes effect when the page is loaded once more.
async function isolate() {
  if (crossOriginIsolated || !navigator.serviceWorker || sessionStorage.isolating) return false;
  try {
    sessionStorage.isolating = "tried";
    await navigator.serviceWorker.register("offline.js");
    await navigator.serviceWorker.ready;
    location.reload();
    return true;
  } catch {
    return false; // the page works without: one thread, and online
  }
}

async function begin() {
  if (await isolate()) return;
  sessionStorage.removeItem("isolating");
  start();
  const facts = await (await fetch("models.json")).json();
  at("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  const {gpu} = await ask("device", {});
  at("processor").hidden = !(gpu && facts.webgpu);
  at("webgpu").checked = gpu && facts.webgpu;
  models = facts.models;
  showModels();
  await openChosen();
  if (waiting.length) work();
}

begin().catch(error => tell(error.message, true));
