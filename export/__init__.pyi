from .bundle import Bundle, write_bundle
from .inspection import Inspection, inspect
from .latency import LatencyReport, benchmark
from .memory import peak_memory
from .tflite import ExportResult, export_tflite
from .verification import VerifyReport, verify

__all__ = [
    "Bundle",
    "ExportResult",
    "Inspection",
    "LatencyReport",
    "VerifyReport",
    "benchmark",
    "export_tflite",
    "inspect",
    "peak_memory",
    "verify",
    "write_bundle",
]
