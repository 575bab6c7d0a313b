"""Search of the compound scaling constants alpha, beta and gamma, and of baselines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
