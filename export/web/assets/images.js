// Images from files, the clipboard and the camera, and pixels on a canvas.

import { bitmapOf } from "./resample.js";

/** The first image file of a drop or of the clipboard; an Error for people if there are only other things. */
export function imageFile(transfer) {
  const files = [...(transfer?.files ?? [])];
  if (!files.length) throw new Error("There is no image in what was dropped or pasted.");
  return files.find((file) => file.type.startsWith("image/")) ?? files[0];
}

/** An image file or a frame of a video as an upright bitmap; an Error for people if it is none. */
export function decoded(source) {
  return bitmapOf(source).catch(() => {
    throw new Error(`${source.name ?? "The image"} cannot be decoded by this browser. JPEG, PNG and WebP always can.`);
  });
}

/** Show pixels on a canvas. */
export function paint(canvas, pixels, { width, height }) {
  const shown = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) shown.data[pixel * 4 + channel] = Math.round(pixels[pixel * 3 + channel]);
    shown.data[pixel * 4 + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(shown, 0, 0);
}

const REFUSALS = {
  NotAllowedError: "The camera was not allowed. Allow it in the browser's settings for this page, and try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};

/** Start the camera, the one at the back if there are two. */
export async function startCamera(video) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("The camera needs https or localhost.");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(REFUSALS[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
  await video.play();
}

export function stopCamera(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}
