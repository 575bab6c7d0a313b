from .bundle import Bundle, write_bundle
from .latency import LatencyReport, benchmark
from .tflite import ExportResult, export_tflite
from .verification import VerifyReport, verify

__all__ = [
    "Bundle",
    "ExportResult",
    "LatencyReport",
    "VerifyReport",
    "benchmark",
    "export_tflite",
    "verify",
    "write_bundle",
]
