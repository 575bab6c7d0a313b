from .app_bundle.writing import write_app_bundle
from .bundle import Bundle, write_bundle
from .candidate_trial import ExportResult
from .description import About
from .finetune.parent import FineTuning
from .finetune.qat import QatResult, quantization_aware_training
from .finetune.sparsity import CompressionResult, cluster, prune
from .int8.layer_errors import LayerError
from .measure.latency import LatencyReport, benchmark
from .measure.memory import peak_memory
from .measure.verify_report import VerifyReport
from .savedmodel_onnx import FormatResult, export_onnx, export_savedmodel
from .tflite import export_tflite
from .tflite_file.inspection import Inspection, inspect
from .verification import verify

__all__ = [
    "About",
    "Bundle",
    "CompressionResult",
    "ExportResult",
    "FineTuning",
    "FormatResult",
    "Inspection",
    "LatencyReport",
    "LayerError",
    "QatResult",
    "VerifyReport",
    "benchmark",
    "cluster",
    "export_onnx",
    "export_savedmodel",
    "export_tflite",
    "inspect",
    "peak_memory",
    "prune",
    "quantization_aware_training",
    "verify",
    "write_app_bundle",
    "write_bundle",
]
