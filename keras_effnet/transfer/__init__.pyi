from .freezing import freeze
from .heads import swap_head
from .learning_rates import layerwise_optimizer, learning_rate_factors
from .norm_statistics import NormStatistics, reestimate_batch_norm

__all__ = [
    "NormStatistics",
    "freeze",
    "layerwise_optimizer",
    "learning_rate_factors",
    "reestimate_batch_norm",
    "swap_head",
]
