// Boxes with names and scores over an image, at the size at which the page shows it.

import { boxColourOf, boxText } from "./decode.js";

const FONT = 13; // pixels of the page
const HIGHEST = 0.75; // of the window
const LARGEST = 4; // times the image's own size

/** Width at which an image fills its place, without rising above the window or being blown up. */
function shownWidth(room, { width, height }) {
  return Math.max(1, Math.round(Math.min(room, (innerHeight * HIGHEST * width) / height, width * LARGEST)));
}

/**
 * Draw an image and boxes.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {number} room Width that there is, in pixels of the page.
 * @param {ImageBitmap} bitmap
 * @param {object[]} boxes Of `detections`.
 * @param {string[]} labels
 */
export function drawBoxes(canvas, room, bitmap, boxes, labels) {
  const width = shownWidth(room, bitmap);
  const zoom = width / bitmap.width;
  canvas.style.width = `${width}px`;
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(bitmap.height * zoom * devicePixelRatio);
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  context.drawImage(bitmap, 0, 0, width, bitmap.height * zoom);
  context.font = `600 ${FONT}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const found of boxes.toReversed()) drawBox(context, found, labels, zoom, width); // the best one on top
}

function drawBox(context, found, labels, zoom, width) {
  const [x0, y0, x1, y1] = found.box.map((side) => side * zoom);
  const [red, green, blue] = boxColourOf(found.index);
  context.strokeStyle = context.fillStyle = `rgb(${red} ${green} ${blue})`;
  context.lineWidth = 2;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  const text = boxText(found, labels);
  const [length, line] = [context.measureText(text).width + 6, FONT + 4];
  const left = Math.max(0, Math.min(x0 - 1, width - length));
  const top = y0 >= line ? y0 - line : y0;
  context.fillRect(left, top, length, line);
  context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
  context.fillText(text, left + 3, top + line / 2);
}
