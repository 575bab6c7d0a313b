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

/** Central square that is kept: `crop` times the shorter side, as `{left, top, side}` in pixels. */
export function centralSquare(width, height, crop) {
  const side = Math.max(1, roundHalfToEven(crop * Math.min(width, height)));
  return { left: Math.floor((width - side) / 2), top: Math.floor((height - side) / 2), side };
}

/** As numpy and TensorFlow round. */
export function roundHalfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2) ? below + 1 : below;
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
 * Cut a square out of an image and resize it.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} image RGBA, as of `getImageData`.
 * @param {{left: number, top: number, side: number}} square In pixels.
 * @param {number} size Side of the result in pixels.
 * @param {{interpolation: string, antialias_from_reduction: number}} rule `image.resize` of model.json.
 * @return {Float32Array} Height x width x 3, values 0 to 255.
 */
export function resample(image, square, size, rule) {
  const antialias = Math.floor(square.side / size) >= rule.antialias_from_reduction;
  const steps = taps(square.side, size, rule.interpolation, antialias);
  const rows = new Float32Array(square.side * size * 3);
  for (let y = 0; y < square.side; y++) {
    const row = ((square.top + y) * image.width + square.left) * 4;
    for (let x = 0; x < size; x++) {
      const { first, weights } = steps[x];
      let red = 0;
      let green = 0;
      let blue = 0;
      for (let tap = 0; tap < weights.length; tap++) {
        const at = row + (first + tap) * 4;
        red += weights[tap] * image.data[at];
        green += weights[tap] * image.data[at + 1];
        blue += weights[tap] * image.data[at + 2];
      }
      rows.set([red, green, blue], (y * size + x) * 3);
    }
  }
  const width = size * 3;
  const result = new Float32Array(size * width);
  for (let y = 0; y < size; y++) {
    const { first, weights } = steps[y];
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let tap = 0; tap < weights.length; tap++) sum += weights[tap] * rows[(first + tap) * width + x];
      result[y * width + x] = Math.min(255, Math.max(0, sum)); // bicubic interpolation overshoots
    }
  }
  return result;
}
