"""TFLite metadata: what a file says about itself to MediaPipe and other clients.

The description is a flatbuffer in the file's metadata entry `TFLITE_METADATA`; the class names are a text file in a
zip archive behind the model. Pure Python, but for `detector_options`, which needs numpy.
"""
