from .grid import candidates
from .halving import SearchResult, grid_search, kept_arguments

__all__ = [
    "SearchResult",
    "candidates",
    "grid_search",
    "kept_arguments",
]
