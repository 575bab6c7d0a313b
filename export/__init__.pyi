from .bundle import Bundle, write_bundle
from .formats import FormatResult, export_onnx, export_savedmodel
from .inspection import Inspection, inspect
from .latency import LatencyReport, benchmark
from .memory import peak_memory
from .tflite import ExportResult, export_tflite
from .verification import VerifyReport, verify

__all__ = [
    "Bundle",
    "ExportResult",
    "FormatResult",
    "Inspection",
    "LatencyReport",
    "VerifyReport",
    "benchmark",
    "export_onnx",
    "export_savedmodel",
    "export_tflite",
    "inspect",
    "peak_memory",
    "verify",
    "write_bundle",
]
