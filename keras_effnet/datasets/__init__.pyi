from .checking import check_data
from .digits import clutter
from .findings.data_report import DataReport
from .labels.masks import Masks
from .labels.task_names import DataTask
from .loading import from_arrays, load
from .readers import EMBEDDED
from .splits import Encoded, ImageDataset, Split
from .stratification import class_weights, k_folds, stratified_split

__all__ = [
    "EMBEDDED",
    "DataReport",
    "DataTask",
    "Encoded",
    "ImageDataset",
    "Masks",
    "Split",
    "check_data",
    "class_weights",
    "clutter",
    "from_arrays",
    "k_folds",
    "load",
    "stratified_split",
]
