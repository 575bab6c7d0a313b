from .loading import adapt_stem, load_weights

__all__ = [
    "adapt_stem",
    "load_weights",
]
