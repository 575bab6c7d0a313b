"""`.tflite` files read, inspected and run."""
