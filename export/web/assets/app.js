// The page: reads model.json, runs the chosen file on images, shows the result.

import { Classifier, obstacle, refusal } from "./classifier.js";
import { decode, overlay, ranked, titleOf } from "./decode.js";
import { drawBoxes } from "./drawing.js";
import { decoded, imageFile, paint, startCamera, stopCamera } from "./images.js";
import { networkInput } from "./resample.js";
import {
  announce, fail, showAgreement, showBoxAgreement, showBoxes, showClasses, showFiles, showLatency, sizeText,
} from "./view.js";

const PROCESSORS = { wasm: "CPU (WebAssembly)", webgpu: "GPU (WebGPU)" };
const RUNS = { most: 10, least: 3, milliseconds: 1000 };

const element = (id) => document.getElementById(id);
const at = (name) => encodeURIComponent(name);

let model; // model.json
let labels;
let anchors = null; // of a detector
let classifier = null;
let last = null; // the last image, its pixels and outputs, for another file or another score
let pending = Promise.resolve(); // one thing after the other: the runtime does not run two at a time

async function fetched(name) {
  const response = await fetch(at(name)).catch(() => null);
  if (!response?.ok) throw new Error(`${name} cannot be loaded. Is the page still being served?`);
  return response;
}

/** Do one thing after those before it; an error is told on the page. Resolves to whether there was none. */
function queue(task) {
  pending = pending.then(async () => {
    document.body.setAttribute("aria-busy", "true");
    fail("");
    try {
      await task();
      return true;
    } catch (error) {
      announce("");
      fail(error.message || String(error));
      return false;
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

/** Take an image or a frame of a video in place of the last one. */
async function look(source) {
  const bitmap = await decoded(source);
  last?.bitmap.close();
  last = { bitmap, outputs: null, ...networkInput(bitmap, model.image) };
}

async function classify() {
  if (!classifier) await openModel();
  announce("Classifying …");
  showLatency("");
  last.outputs = (await classifier.run(last.pixels)).outputs;
  const found = show();
  element("agreement").hidden = true;
  announce(summary(found));
  showLatency(`${await latency()} on ${PROCESSORS[element("accelerator").value]}.${partly()}`);
  return found;
}

/** Show what was found in the last image. */
function show(follow = true) {
  const { shape } = chosen().outputs[0];
  const threshold = model.boxes && Number(element("threshold").value);
  const found = decode(last.outputs, labels, model, { shape, anchors, scale: last.scale, threshold });
  showClasses(found.answers, follow);
  if (found.boxes) {
    drawBoxes(element("seen"), element("seen").closest(".answer").clientWidth, last.bitmap, found.boxes, labels);
    showBoxes(found.boxes, labels);
    element("threshold-text").textContent = `${Math.round(100 * threshold)}%`;
  } else {
    paint(element("seen"), found.mask ? overlay(last.pixels, found.mask, model.image, shape) : last.pixels, model.image);
  }
  return found;
}

function summary({ answers }) {
  if (model.boxes) return answers.length ? `${answers.map(({ label, text }) => `${label}: ${text}`).join("; ")}.` : "No boxes found.";
  return `${answers[0].label}, ${answers[0].text}.`;
}

/** Draw what was found again, with another score or in another width. */
function redraw() {
  if (!model.boxes || !last?.outputs) return;
  const found = show(false);
  if (!element("video").srcObject) announce(summary(found)); // not of each frame
}

/** Boxes on the camera's frames, one after the other, until it is stopped. */
async function live() {
  const video = element("video");
  const frame = async () => {
    if (!video.srcObject) return;
    await look(video);
    if (!classifier) await openModel();
    const { outputs, milliseconds } = await classifier.run(last.pixels);
    last.outputs = outputs;
    show(false);
    showLatency(`${milliseconds.toFixed(0)} ms for this frame on ${PROCESSORS[element("accelerator").value]}.${partly()}`);
  };
  while (video.srcObject && (await queue(frame))) await new Promise(requestAnimationFrame);
  if (video.srcObject) closeCamera();
}

function closeCamera() {
  stopCamera(element("video"));
  element("viewfinder").hidden = true;
  element("camera").focus();
}

function partly() {
  return classifier.accelerated === false ? " Part of this file ran on the CPU: the GPU does not take all of it." : "";
}

/** Median time of some runs on the last image. */
async function latency() {
  const times = [];
  const end = performance.now() + RUNS.milliseconds;
  while (times.length < RUNS.least || (times.length < RUNS.most && performance.now() < end)) {
    times.push((await classifier.run(last.pixels)).milliseconds);
  }
  const middle = times.toSorted((a, b) => a - b)[times.length >> 1];
  return `${middle.toFixed(1)} ms for each image, median of ${times.length} runs`;
}

async function compare() {
  const image = await (await fetched(model.test_image)).blob();
  await look(image);
  const { scores, boxes } = await classify();
  const expected = chosen().expected_top5;
  if (boxes) showBoxAgreement(boxes, expected);
  else showAgreement(scores, expected, ranked(model));
}

const classifyFile = (file) => queue(async () => {
  await look(file);
  await classify();
});

function changed() {
  element("test").hidden = !model.test_image || !chosen().expected_top5;
  queue(async () => {
    await openModel();
    if (last) await classify();
  });
}

function listen() {
  element("choose").addEventListener("change", ({ target }) => {
    if (target.files.length) classifyFile(target.files[0]);
    target.value = ""; // the same file can be chosen again
  });
  document.addEventListener("paste", ({ clipboardData }) => queue(async () => {
    await look(imageFile(clipboardData));
    await classify();
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
    queue(async () => {
      await look(imageFile(files));
      await classify();
    });
  });
  element("file").addEventListener("change", changed);
  element("accelerator").addEventListener("change", changed);
  element("test").addEventListener("click", () => queue(compare));
  element("camera").addEventListener("click", () => queue(async () => {
    await startCamera(element("video"));
    element("viewfinder").hidden = false;
    element(model.boxes ? "stop" : "capture").focus();
    if (!model.boxes) return;
    announce("Boxes are drawn on the frames of the camera.");
    live(); // not awaited: it queues its frames
  }));
  element("capture").addEventListener("click", () => classifyFile(element("video")));
  element("stop").addEventListener("click", closeCamera);
  element("threshold").addEventListener("input", redraw);
  addEventListener("resize", redraw);
}

/** What is otherwise on the page of a detector: whole images with boxes, and the camera without a picture of its own. */
async function offerBoxes() {
  anchors = new Float32Array(await (await fetched(model.boxes.anchors)).arrayBuffer());
  document.body.classList.add("detector");
  element("threshold").value = model.boxes.score_threshold;
  element("of-boxes").hidden = false;
  element("capture").hidden = true;
  element("video").classList.add("hidden"); // its frames are drawn with their boxes
  element("caption").textContent = "The image with the boxes found";
  element("seen").setAttribute("aria-label", "The image with the boxes found");
}

/** Offer the files, the recommended one first chosen, and the processors that this browser has. */
async function offer() {
  document.title = `${model.name}: ${titleOf(model)}`;
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
  if (model.boxes) await offerBoxes();
  listen();
  changed();
});
