"""Running `.tflite` files in a worker process, which a damaged file may crash. LiteRT and numpy; never TensorFlow."""
