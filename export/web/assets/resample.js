// How an image file becomes the input of the network: the same crop and the same resizing as in training and evaluation.
//
// A canvas resizes differently in each browser, and without a filter. This is the arithmetic of
// keras_effnet.pipeline.geometry: half-pixel centres; from `antialias_from_reduction` on, a kernel as wide as the reduction.

const CUBIC = -0.5; // Keys' parameter

const KERNELS = {
  bilinear: { radius: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    radius: 2,
    weight: (signed) => {
      const x = Math.abs(signed);
      if (x >= 2) return 0;
      if (x >= 1) return CUBIC * (((x - 5) * x + 8) * x - 4);
      return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
    },
  },
};

/** As numpy and TensorFlow round. */
export function roundHalfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2) ? below + 1 : below;
}

/** Central square that is kept: `crop` times the shorter side. */
function centralSquare(width, height, crop) {
  const side = Math.max(1, roundHalfToEven(Math.fround(Math.fround(crop) * Math.min(width, height))));
  return { left: Math.floor((width - side) / 2), top: Math.floor((height - side) / 2), width: side, height: side };
}

/**
 * Which part of an image the network sees, and at which size.
 *
 * @param {object} image `{width, height}` in pixels.
 * @param {object} rule `image` of model.json.
 * @return {object} `{window, extent, scale}`: the part, `{left, top, width, height}`; its size in the input, `{width,
 *   height}`; and pixels of the input per pixel of the image, `{x, y}`.
 */
export function placement({ width, height }, rule) {
  const { crop, fit = "crop" } = rule.resize;
  const window = fit === "crop" ? centralSquare(width, height, crop.fraction) : { left: 0, top: 0, width, height };
  const scale = { x: rule.width / window.width, y: rule.height / window.height };
  if (fit !== "letterbox") return { window, extent: { width: rule.width, height: rule.height }, scale };
  const smaller = Math.min(scale.x, scale.y);
  const reduced = (side, most) => Math.min(Math.max(roundHalfToEven(Math.fround(side * Math.fround(smaller))), 1), most);
  const extent = { width: reduced(width, rule.width), height: reduced(height, rule.height) };
  return { window, extent, scale: { x: smaller, y: smaller } };
}

/** For each output position, the first input position and the weights of it and of those that follow. */
function taps(length, target, interpolation, antialias) {
  const { radius, weight } = KERNELS[interpolation];
  const reduction = length / target;
  const stretch = antialias ? Math.max(1, reduction) : 1;
  return Array.from({ length: target }, (_, index) => {
    const centre = (index + 0.5) * reduction;
    const first = Math.max(0, Math.ceil(centre - radius * stretch - 0.5));
    const last = Math.min(length - 1, Math.floor(centre + radius * stretch - 0.5));
    const weights = [];
    for (let position = first; position <= last; position++) {
      weights.push(weight((position + 0.5 - centre) / stretch));
    }
    const total = weights.reduce((sum, each) => sum + each, 0);
    return { first, weights: weights.map((each) => each / total) };
  });
}

/**
 * Resize an image.
 *
 * @param {object} image `{data, width, height}`, bytes of RGBA, as of `getImageData`.
 * @param {object} extent `{width, height}` of the result, in pixels.
 * @param {object} rule `image.resize` of model.json.
 * @return {Float32Array} Height x width x 3, values 0 to 255.
 */
export function resample(image, extent, rule) {
  const reduction = Math.min(Math.floor(image.width / extent.width), Math.floor(image.height / extent.height));
  const antialias = reduction >= rule.antialias_from_reduction;
  const across = taps(image.width, extent.width, rule.interpolation, antialias);
  const rows = new Float32Array(image.height * extent.width * 3);
  for (let y = 0; y < image.height; y++) {
    for (let x = 0; x < extent.width; x++) {
      const { first, weights } = across[x];
      let red = 0;
      let green = 0;
      let blue = 0;
      for (let tap = 0; tap < weights.length; tap++) {
        const at = (y * image.width + first + tap) * 4;
        red += weights[tap] * image.data[at];
        green += weights[tap] * image.data[at + 1];
        blue += weights[tap] * image.data[at + 2];
      }
      const place = (y * extent.width + x) * 3;
      rows[place] = red;
      rows[place + 1] = green;
      rows[place + 2] = blue;
    }
  }
  const width = extent.width * 3;
  const result = new Float32Array(extent.height * width);
  taps(image.height, extent.height, rule.interpolation, antialias).forEach(({ first, weights }, y) => {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let tap = 0; tap < weights.length; tap++) sum += weights[tap] * rows[(first + tap) * width + x];
      result[y * width + x] = Math.min(255, Math.max(0, sum)); // bicubic interpolation overshoots
    }
  });
  return result;
}

/** Pixels of an extent at the upper left of the input, the rest filled with `resize.padding` of model.json. */
export function padded(pixels, extent, { width, height, resize }) {
  if (extent.width === width && extent.height === height) return pixels;
  const result = Float32Array.from({ length: width * height * 3 }, (_, place) => resize.padding[place % 3]);
  for (let y = 0; y < extent.height; y++) {
    result.set(pixels.subarray(y * extent.width * 3, (y + 1) * extent.width * 3), y * width * 3);
  }
  return result;
}

/** An upright image or a frame of a video, without colour conversion. */
export const bitmapOf = (source) =>
  createImageBitmap(source, { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });

/**
 * What the network gets of an image.
 *
 * @param {ImageBitmap} bitmap Of `bitmapOf`.
 * @param {object} rule `image` of model.json.
 * @return {object} `{pixels, scale}`: a Float32Array of height x width x 3 values, 0 to 255; and pixels of the input per
 *   pixel of the image, `{x, y}`.
 */
export function networkInput(bitmap, rule) {
  const { window, extent, scale } = placement(bitmap, rule);
  const canvas = new OffscreenCanvas(window.width, window.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, -window.left, -window.top);
  const image = context.getImageData(0, 0, window.width, window.height);
  return { pixels: padded(resample(image, extent, rule.resize), extent, rule), scale };
}
