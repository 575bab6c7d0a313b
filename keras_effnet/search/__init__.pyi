from .arguments import HalvingArguments, kept_arguments
from .baselines import BaselineResult, baseline_search
from .grid import candidates
from .halving import SearchResult, grid_search
from .report import write_search_report

__all__ = [
    "BaselineResult",
    "HalvingArguments",
    "SearchResult",
    "baseline_search",
    "candidates",
    "grid_search",
    "kept_arguments",
    "write_search_report",
]
