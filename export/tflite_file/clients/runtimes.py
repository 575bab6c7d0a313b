"""Names of the clients, and the cures that several share. Pure Python."""

CPU, GPU = "LiteRT CPU", "LiteRT GPU"
GPU_DELEGATE, CORE_ML, NNAPI, EDGE_TPU = "GPU delegate", "Core ML delegate", "NNAPI", "Edge TPU"
MEDIAPIPE = "MediaPipe ImageClassifier"
WASM, WEBGPU, TFJS = "LiteRT.js WASM", "LiteRT.js WebGPU", "tfjs-tflite"
MICRO = "TFLite Micro"

INT8, BYTES, FLOAT = "--quantize int8", "--quantize int8 --input-type uint8", "--quantize float16"
FLOAT32, INT8_OR_FLOAT = "--quantize none", "--quantize int8 or float16"
EXPORT = "export it with keras-effnet: builtin operators, batch 1, a fixed size, metadata"

NEEDS_TENSORFLOW = "{} are not builtin operators and must be linked into the app"
NOT_FIXED = "{} is not fixed"
