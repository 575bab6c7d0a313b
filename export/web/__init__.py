"""A page that runs `.tflite` image classifiers in the browser, served on this machine or written for a static host."""
