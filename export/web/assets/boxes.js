// From the two outputs of a detector to boxes: the arithmetic of keras_effnet.detection.detections.

const LARGEST = 10; // exponent of a decoded size

/** Box of a code, in pixels of the input: `[x0, y0, x1, y1]`. */
function decoded(codes, anchors, number) {
  const [y, x, height, width] = anchors.subarray(4 * number, 4 * number + 4);
  const [ty, tx, th, tw] = codes.subarray(4 * number, 4 * number + 4);
  const [cy, cx] = [ty * height + y, tx * width + x];
  const [halfHeight, halfWidth] = [Math.exp(Math.min(th, LARGEST)) * height / 2, Math.exp(Math.min(tw, LARGEST)) * width / 2];
  return [cx - halfWidth, cy - halfHeight, cx + halfWidth, cy + halfHeight];
}

const area = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);

/** Intersection over union of two boxes. */
export function overlap(one, other) {
  const [x0, y0] = [Math.max(one[0], other[0]), Math.max(one[1], other[1])];
  const [x1, y1] = [Math.min(one[2], other[2]), Math.min(one[3], other[3])];
  const shared = area([x0, y0, x1, y1]);
  const union = area(one) + area(other) - shared;
  return union > 0 ? shared / union : 0;
}

/**
 * Decode a detector's outputs and suppress overlapping boxes of the same class.
 *
 * @param {Float32Array} codes Anchors x 4.
 * @param {Float32Array} scores Anchors x classes.
 * @param {Float32Array} anchors Anchors x 4, the content of the file that `boxes.anchors` of model.json names.
 * @param {object} model model.json.
 * @param {object} scale Pixels of the input per pixel of the image, `{x, y}`.
 * @param {number} threshold Scores at or below it are no boxes.
 * @return {object[]} `{index, score, box}`, best first: class, score, and `[x0, y0, x1, y1]` in pixels of the image.
 */
export function detections(codes, scores, anchors, model, scale, threshold = model.boxes.score_threshold) {
  const { classes, image, boxes: rule } = model;
  const candidates = [];
  scores.forEach((score, place) => {
    if (score > threshold) candidates.push(place);
  });
  candidates.sort((a, b) => scores[b] - scores[a] || a - b);
  const kept = [];
  for (const place of candidates.slice(0, rule.max_candidates)) {
    if (kept.length === rule.max_detections) break;
    const index = place % classes;
    const box = decoded(codes, anchors, Math.floor(place / classes));
    const covered = kept.some((other) => other.index === index && overlap(other.box, box) > rule.overlap_threshold);
    if (!covered) kept.push({ index, score: scores[place], box });
  }
  const within = (value, most) => Math.min(Math.max(value, 0), most);
  return kept.map(({ index, score, box: [x0, y0, x1, y1] }) => ({
    index,
    score,
    box: [
      within(x0, image.width) / scale.x,
      within(y0, image.height) / scale.y,
      within(x1, image.width) / scale.x,
      within(y1, image.height) / scale.y,
    ],
  }));
}
