"""Reading, inspecting and running `.tflite` files."""
