from .arguments import kept_arguments
from .grid import candidates
from .halving import SearchResult, grid_search

__all__ = [
    "SearchResult",
    "candidates",
    "grid_search",
    "kept_arguments",
]
