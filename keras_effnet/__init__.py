"""EfficientNet in Keras: from compound scaling to a proven model on a phone.

Every name is loaded when it is first used, so that `import keras_effnet` does not import TensorFlow.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
