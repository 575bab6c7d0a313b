"""Export of trained networks to `.tflite`: convert, quantize, run and compare each file before it is written."""

if __name__ == "export":
    raise ImportError("This folder is installed as keras_effnet.export: write `from keras_effnet import export`.")

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
