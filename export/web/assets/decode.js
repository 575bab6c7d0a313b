// From the outputs of a network to its answers, by the task in model.json.

import { detections } from "./boxes.js";

const SHOWN = 5;
const BOX_COLOURS = [
  [228, 26, 28], [55, 126, 184], [77, 175, 74], [255, 127, 0], [152, 78, 163],
  [0, 191, 196], [247, 129, 191], [166, 86, 40], [230, 171, 2], [102, 102, 102],
];

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const highest = (scores) => [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b);
const named = (labels, index) => labels[index] ?? `class ${index}`;

/** Class of each pixel, from scores of height x width x classes. */
export function maskOf(values, classes) {
  return Uint8Array.from({ length: values.length / classes }, (_, pixel) => {
    let best = 0;
    for (let index = 1; index < classes; index++) {
      if (values[pixel * classes + index] > values[pixel * classes + best]) best = index;
    }
    return best;
  });
}

/** Colour of a class, [red, green, blue]: its bits spread over the high bits of the channels, as in Pascal VOC. */
export function colourOf(index) {
  const colour = [0, 0, 0];
  for (let place = 0; place < 8; place++) {
    for (let channel = 0; channel < 3; channel++) colour[channel] |= ((index >> (3 * place + channel)) & 1) << (7 - place);
  }
  return colour;
}

/** Pixels in 0..255 with the classes of a mask of the same or another size over them; class 0 stays as it is. */
export function overlay(pixels, mask, { height, width }, shape) {
  return pixels.map((value, place) => {
    const [pixel, channel] = [Math.floor(place / 3), place % 3];
    const row = Math.floor((Math.floor(pixel / width) * shape[1]) / height);
    const index = mask[row * shape[2] + Math.floor(((pixel % width) * shape[2]) / width)];
    return index ? (value + colourOf(index)[channel]) / 2 : value;
  });
}

/** Colour of the boxes of a class, [red, green, blue]; `predict` draws with the same. */
export const boxColourOf = (index) => BOX_COLOURS[index % BOX_COLOURS.length];

function classes(scores, labels) {
  const probabilities = Math.abs(scores.reduce((sum, each) => sum + each, 0) - 1) < 0.05 && scores.every((each) => each >= 0);
  return highest(scores).slice(0, SHOWN).map((index) => ({
    index,
    label: named(labels, index),
    share: probabilities ? scores[index] : 0, // scores that are no probabilities have no bars
    text: probabilities ? percent(scores[index]) : scores[index].toFixed(3),
  }));
}

function decisions(scores, labels, { thresholds }) {
  return highest(scores).map((index) => {
    const limit = thresholds?.[index] ?? 0.5;
    const score = Math.min(Math.max(scores[index], 0), 1);
    return { index, label: named(labels, index), share: score, text: `${scores[index] >= limit ? "yes" : "no"}, ${percent(scores[index])}` };
  });
}

const values = (scores, labels) =>
  [...scores.keys()].map((index) => ({ index, label: named(labels, index), share: 0, text: String(Number(scores[index].toPrecision(5))) }));

function shares(scores, labels) {
  const present = highest(scores).filter((index) => scores[index] > 0);
  return present.map((index) => ({ index, label: named(labels, index), share: scores[index], text: percent(scores[index]), colour: index ? colourOf(index) : null }));
}

/** How many boxes of each class there are, most first. */
function counts(boxes, labels) {
  const numbers = [...new Set(boxes.map(({ index }) => index))];
  const groups = numbers.map((index) => boxes.filter((each) => each.index === index));
  groups.sort((some, others) => others.length - some.length || some[0].index - others[0].index);
  return groups.map(([{ index, score }, ...others]) => ({
    index,
    label: named(labels, index),
    share: score,
    text: others.length ? `${others.length + 1} boxes, best ${percent(score)}` : `1 box, ${percent(score)}`,
    colour: boxColourOf(index),
  }));
}

/** Name and score of a box, as text. */
export const boxText = ({ index, score }, labels) => `${named(labels, index)} ${(100 * score).toFixed(0)}%`;

const RULES = {
  classification: { title: "image classifier", answers: classes, ranked: "five classes in the same order" },
  binary: { answers: decisions },
  multilabel: { answers: decisions },
  regression: { answers: values },
  segmentation: { answers: shares, masks: true },
  detection: { title: "object detector", answers: counts, boxes: true },
};
const ruleOf = (model) => RULES[model.task ?? "classification"];

/**
 * Answers for the values of the outputs: `{scores, answers, mask, boxes}`. Scores are a number for each name, of masks its
 * share of the pixels; answers are `{index, label, share, text}`; only segmentation has a mask, only detection boxes.
 *
 * @param {Float32Array[]} outputs
 * @param {string[]} labels
 * @param {object} model model.json.
 * @param {object} about `shape` of the first output; of a detector `anchors`, `scale` and `threshold` of `detections`.
 */
export function decode([output, ...others], labels, model, { shape, anchors, scale, threshold }) {
  const rule = ruleOf(model);
  if (rule.boxes) {
    const boxes = detections(output, others[0], anchors, model, scale, threshold);
    return { scores: null, answers: rule.answers(boxes, labels), mask: null, boxes };
  }
  if (!rule.masks) return { scores: output, answers: rule.answers(output, labels, model), mask: null, boxes: null };
  const count = shape.at(-1);
  const mask = maskOf(output, count);
  const scores = new Float32Array(count);
  for (const index of mask) scores[index]++;
  const portions = scores.map((pixels) => pixels / mask.length);
  return { scores: portions, answers: rule.answers(portions, labels), mask, boxes: null };
}

/** What the page calls a network. */
export const titleOf = (model) => ruleOf(model).title ?? `image ${model.task}`;

/** What the page says in words of the agreement on the order; empty where the order means nothing. */
export const ranked = (model) => ruleOf(model).ranked ?? "";
