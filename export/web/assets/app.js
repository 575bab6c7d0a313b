// The page: reads model.json, classifies images with the chosen file, shows the result.

import { Classifier, obstacle, refusal } from "./classifier.js";
import { decode, overlay, ranked } from "./decode.js";
import { imageFile, paint, pixelsOf, startCamera, stopCamera } from "./images.js";
import { announce, fail, showAgreement, showClasses, showFiles, showLatency, sizeText } from "./view.js";

const PROCESSORS = { wasm: "CPU (WebAssembly)", webgpu: "GPU (WebGPU)" };
const RUNS = { most: 10, least: 3, milliseconds: 1000 };

const element = (id) => document.getElementById(id);
const at = (name) => encodeURIComponent(name);

let model; // model.json
let labels;
let classifier = null;
let last = null; // the pixels of the last image, to classify again with another file
let pending = Promise.resolve(); // one thing after the other: the runtime does not run two at a time

async function fetched(name) {
  const response = await fetch(at(name)).catch(() => null);
  if (!response?.ok) throw new Error(`${name} cannot be loaded. Is the page still being served?`);
  return response;
}

/** Do one thing after those before it; an error is told on the page. */
function queue(task) {
  pending = pending.then(async () => {
    document.body.setAttribute("aria-busy", "true");
    fail("");
    try {
      await task();
    } catch (error) {
      announce("");
      fail(error.message || String(error));
    } finally {
      document.body.removeAttribute("aria-busy");
    }
  });
  return pending;
}

const chosen = () => model.files[element("file").selectedIndex];

async function openModel() {
  const file = chosen();
  const accelerator = element("accelerator").value;
  announce(`Loading ${file.file} …`);
  classifier?.close();
  classifier = null;
  const content = new Uint8Array(await (await fetched(file.file)).arrayBuffer());
  try {
    classifier = await Classifier.open(file, content, accelerator);
    await classifier.run(new Float32Array(model.image.height * model.image.width * 3)); // the first run takes longer
  } catch (error) {
    const others = model.files.filter((each) => each !== file && !refusal(each)).map((each) => each.file);
    throw new Error(`${error.message} ${others.length ? `Choose another file: ${others.join(", ")}.` : ""}`);
  }
  announce(`${file.file} is ready. Choose an image.`);
}

async function classify(pixels) {
  if (!classifier) await openModel();
  last = pixels;
  announce("Classifying …");
  const { shape } = chosen().outputs[0];
  const { scores, answers, mask } = decode((await classifier.run(pixels)).scores, labels, model, shape);
  paint(element("seen"), mask ? overlay(pixels, mask, model.image, shape) : pixels, model.image);
  showClasses(answers);
  showLatency("");
  element("agreement").hidden = true;
  announce(`${answers[0].label}, ${answers[0].text}.`);
  showLatency(`${await latency(pixels)} on ${PROCESSORS[element("accelerator").value]}.${partly()}`);
  return scores;
}

function partly() {
  return classifier.accelerated === false ? " Part of this file ran on the CPU: the GPU does not take all of it." : "";
}

/** Median time of some runs. */
async function latency(pixels) {
  const times = [];
  const end = performance.now() + RUNS.milliseconds;
  while (times.length < RUNS.least || (times.length < RUNS.most && performance.now() < end)) {
    times.push((await classifier.run(pixels)).milliseconds);
  }
  const middle = times.toSorted((a, b) => a - b)[times.length >> 1];
  return `${middle.toFixed(1)} ms for each image, median of ${times.length} runs`;
}

async function compare() {
  const image = await (await fetched(model.test_image)).blob();
  const scores = await classify(await pixelsOf(image, model.image));
  showAgreement(scores, chosen().expected_top5, ranked(model));
}

const classifyFile = (file) => queue(async () => classify(await pixelsOf(file, model.image)));

function changed() {
  element("test").hidden = !model.test_image || !chosen().expected_top5;
  queue(async () => {
    await openModel();
    if (last) await classify(last);
  });
}

function listen() {
  element("choose").addEventListener("change", ({ target }) => {
    if (target.files.length) classifyFile(target.files[0]);
    target.value = ""; // the same file can be chosen again
  });
  document.addEventListener("paste", ({ clipboardData }) => queue(async () => {
    await classify(await pixelsOf(imageFile(clipboardData), model.image));
  }));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const { dataTransfer } = event;
    const files = { files: [...dataTransfer.files] }; // the event is over when the task begins
    queue(async () => classify(await pixelsOf(imageFile(files), model.image)));
  });
  element("file").addEventListener("change", changed);
  element("accelerator").addEventListener("change", changed);
  element("test").addEventListener("click", () => queue(compare));
  element("camera").addEventListener("click", () => queue(async () => {
    await startCamera(element("video"));
    element("viewfinder").hidden = false;
    element("capture").focus();
  }));
  element("capture").addEventListener("click", () => classifyFile(element("video")));
  element("stop").addEventListener("click", () => {
    stopCamera(element("video"));
    element("viewfinder").hidden = true;
    element("camera").focus();
  });
}

/** Offer the files, the recommended one first chosen, and the processors that this browser has. */
async function offer() {
  document.title = `${model.name}: image ${model.task === "classification" ? "classifier" : model.task ?? "classifier"}`;
  element("name").textContent = model.name;
  element("about").textContent = model.description || `${labels.length} classes, ${model.image.width}x${model.image.height} pixels.`;
  const runnable = model.files.filter((file) => !refusal(file));
  const first = runnable.find((file) => file.file === model.recommended) ?? runnable[0] ?? model.files[0];
  for (const file of model.files) {
    const title = `${file.file} (${file.precision}, ${sizeText(file.bytes)})`;
    element("file").append(new Option(title, file.file, false, file === first));
  }
  const notes = [];
  for (const [name, title] of Object.entries(PROCESSORS)) {
    const reason = await obstacle(name);
    const option = new Option(title, name);
    option.disabled = Boolean(reason);
    if (reason) notes.push(`${title}: ${reason}`);
    element("accelerator").append(option);
  }
  element("accelerator-note").textContent = notes.join(" ");
  element("file").disabled = element("accelerator").disabled = false;
  showFiles(model.files, refusal);
}

queue(async () => {
  model = await (await fetched("model.json")).json();
  labels = (await (await fetched(model.labels)).text()).replace(/\n$/, "").split("\n");
  await offer();
  listen();
  changed();
});
