// One model file on LiteRT.js: from pixels in 0..255 to the values of its outputs.

import { Tensor, isWebGPUSupported, loadAndCompile, loadLiteRt, supportsFeature, unloadLiteRt } from "@litertjs/core";
import { roundHalfToEven } from "./resample.js";

const WASM_FOLDER = new URL("litert/wasm/", import.meta.url).href;
const TAKEN = ["float32", "uint8"];
const GIVEN = ["float32", "uint8", "int32"];

let loaded = null; // which build of the runtime is loaded; it holds one at a time

/** Why an accelerator cannot be used in this browser; an empty string if it can. */
export async function obstacle(accelerator) {
  if (accelerator !== "webgpu") return "";
  if (!isSecureContext) return "WebGPU needs https or localhost.";
  if (!isWebGPUSupported()) return "This browser has no WebGPU.";
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter ? "" : "This browser finds no graphics processor for WebGPU.";
}

/** Why LiteRT.js cannot run a file; an empty string if it can. */
export function refusal({ inputs: [input], outputs }) {
  if (!TAKEN.includes(input.dtype)) return `its input is ${input.dtype}, and LiteRT.js takes images of ${TAKEN.join(" or ")} only`;
  const output = outputs.find(({ dtype }) => !GIVEN.includes(dtype));
  if (output) return `its output is ${output.dtype}, and LiteRT.js gives ${GIVEN.join(", ")} only`;
  return "";
}

/** Builds of the runtime: threads need a page isolated by its server; WebGPU runs part of a file on the CPU by JSPI. */
async function build(accelerator) {
  if (accelerator === "webgpu") return { jspi: await supportsFeature("jspi") };
  const threads = globalThis.crossOriginIsolated && (await supportsFeature("threads"));
  return { threads: Boolean(threads && (await supportsFeature("relaxedSimd"))) };
}

async function useRuntime(accelerator) {
  const options = await build(accelerator);
  const name = options.threads ? "threads" : options.jspi ? "jspi" : "plain";
  if (loaded === name) return name;
  if (loaded) unloadLiteRt();
  loaded = null;
  await loadLiteRt(WASM_FOLDER, options);
  loaded = name;
  return name;
}

/**
 * What the input tensor takes for pixels in 0..255: bytes as they are, since their scale and zero point may express the
 * network's normalization, or floats `(pixel - mean) / std`, with a value for all channels or one for each.
 */
export function inputValues(pixels, file) {
  if (file.inputs[0].dtype === "uint8") return Uint8Array.from(pixels, roundHalfToEven);
  const { mean, std } = file.normalization ?? { mean: [0], std: [1] };
  return pixels.map((pixel, index) => (pixel - mean[index % mean.length]) / std[index % std.length]);
}

/** Real values of an output tensor. */
function realValues(values, { scale, zero_point: zeroPoint }) {
  return Float32Array.from(values, (value) => (scale ? (value - zeroPoint) * scale : value));
}

export class Classifier {
  /** Compile a file of model.json. Throws an Error whose message is meant for people. */
  static async open(file, content, accelerator) {
    const reason = refusal(file);
    if (reason) throw new Error(`${file.file} does not run in a browser: ${reason}.`);
    const runtime = await useRuntime(accelerator);
    const model = await loadAndCompile(content, { accelerator });
    return new Classifier(file, model, runtime);
  }

  constructor(file, model, runtime) {
    this.file = file;
    this.model = model;
    this.runtime = runtime;
    this.accelerated = model.options.accelerator === "webgpu" ? model.isFullyAccelerated : null;
  }

  /** Values of each output for pixels in 0..255, and the milliseconds that the network took. */
  async run(pixels) {
    const tensor = new Tensor(inputValues(pixels, this.file), this.file.inputs[0].shape);
    const started = performance.now();
    const results = await this.model.run(tensor);
    const values = [];
    for (const result of results) {
      const host = await result.moveTo("wasm"); // waits for a graphics processor to finish
      values.push(host.toTypedArray().slice());
      host.delete();
    }
    const milliseconds = performance.now() - started;
    tensor.delete();
    return { outputs: this.file.outputs.map((port, number) => realValues(values[number], port)), milliseconds };
  }

  close() {
    this.model.delete();
  }
}
