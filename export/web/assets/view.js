// What the page shows. Names from files are set as text, never as HTML.

import { overlap } from "./boxes.js";

const TOLERANCE = 1e-4;
const SAME_BOX = 0.9; // overlap

const element = (id) => document.getElementById(id);

function made(tag, text, name = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (name) node.className = name;
  return node;
}

/** Tell what is going on; screen readers read it out. */
export function announce(text) {
  element("status").textContent = text;
}

/** Tell what went wrong; an empty text takes it back. */
export function fail(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

/** Show answers as a list. `follow` scrolls to it: on a phone it is below the window. */
export function showClasses(found, follow = true) {
  element("classes").replaceChildren(
    ...found.map(({ index, label, share, text, colour }) => {
      const item = document.createElement("li");
      item.dataset.index = index;
      const bar = made("span", "", "bar");
      bar.style.width = `${100 * share}%`;
      if (colour) bar.style.background = `rgb(${colour.join(" ")} / 50%)`; // as the mask is drawn
      const name = made("span", label, "label");
      name.dir = "auto";
      item.append(bar, name, made("span", text, "score"));
      return item;
    }),
  );
  element("result").hidden = false;
  if (follow) element("result").scrollIntoView({ block: "nearest" });
}

export function showLatency(text) {
  element("latency").textContent = text;
}

/** Compare all numbers of the expected answer, and the order of classes, which `ranked` says in words. */
export function showAgreement(scores, expected, ranked) {
  const difference = Math.max(...expected.map(({ index, score }) => Math.abs(scores[index] - score)));
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, expected.length);
  const same = order.every((index, place) => index === expected[place].index);
  const figure = difference.toPrecision(2);
  if (Boolean(ranked) && order[0] !== expected[0].index) {
    return tellAgreement(`Differs from the expected answer, ${expected[0].label}: scores by up to ${figure}.`, true);
  }
  if (difference <= TOLERANCE) {
    return tellAgreement(`Equal to the expected answer within ${TOLERANCE}: largest difference of a score ${figure}.`);
  }
  if (!ranked) {
    return tellAgreement(`Differs from the expected answer by up to ${figure}; kernels that round differently give small differences.`);
  }
  const what = same ? ranked : "first class";
  return tellAgreement(`The expected ${what}; scores differ by up to ${figure}, as they do where kernels round differently.`);
}

/** Compare each expected box with the one of its class that overlaps it most. */
export function showBoxAgreement(boxes, expected) {
  const nearest = expected.map(({ index, score, box }) => {
    const same = boxes.filter((each) => each.index === index);
    const pairs = same.map((each) => ({ shared: overlap(each.box, box), difference: Math.abs(each.score - score) }));
    return pairs.sort((a, b) => b.shared - a.shared)[0] ?? { shared: 0, difference: 1 };
  });
  const lost = nearest.filter(({ shared }) => shared < SAME_BOX).length;
  if (lost) return tellAgreement(`Differs from the expected answer: ${lost} of ${expected.length} boxes are not found.`, true);
  const shared = Math.min(1, ...nearest.map((each) => each.shared));
  const difference = Math.max(0, ...nearest.map((each) => each.difference));
  return tellAgreement(
    `The ${expected.length} expected boxes: they overlap by ${(100 * shared).toFixed(1)}% or more, scores differ by up to ` +
      `${difference.toPrecision(2)}.`,
  );
}

function tellAgreement(text, differs = false) {
  const node = element("agreement");
  node.classList.toggle("differs", differs);
  node.textContent = text;
  node.hidden = false;
}

/** The table of boxes, in pixels of the image. */
export function showBoxes(boxes, labels) {
  element("boxes").replaceChildren(
    ...boxes.map(({ index, score, box }) => {
      const row = document.createElement("tr");
      const name = made("th", labels[index]);
      name.scope = "row";
      row.append(name, ...[100 * score, ...box].map((value) => made("td", value.toFixed(1))));
      return row;
    }),
  );
}

/** Size of a file, as text. */
export function sizeText(bytes) {
  return bytes < 1e5 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The table of files. */
export function showFiles(files, refusal) {
  element("files").replaceChildren(
    ...files.map((file) => {
      const row = document.createElement("tr");
      const agreement = file.agreement && `${(100 * file.agreement.fraction).toFixed(1)}% of ${file.agreement.samples} images`;
      const cells = [file.precision, sizeText(file.bytes), file.inputs[0].dtype, agreement ?? "not known", refusal(file) || "yes"];
      const name = made("th", file.file);
      name.scope = "row";
      row.append(name, ...cells.map((text) => made("td", text)));
      return row;
    }),
  );
}
