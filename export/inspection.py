"""What is inside a `.tflite` file: its operators, and whether a phone can run them."""

from __future__ import annotations

from collections import Counter
from functools import cache

from keras_effnet.errors import VerificationError

# Resource variables need an initialiser that mobile runtimes do not call; a CAST is what mixed precision leaves behind.
_REFUSED = {
    "VAR_HANDLE": "weights live in variables, outside the file",
    "READ_VARIABLE": "weights live in variables, outside the file",
    "CAST": "a dtype changes inside the network",
}


@cache
def _operator_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def operators(content: bytes) -> Counter[str]:
    """How often each operator occurs in a `.tflite` file; custom ones by their own name.

    Args:
        content: The file's bytes.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    names = []
    for code in model.operatorCodes:
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)  # old files fill in the old field alone
        custom = code.customCode.decode() if code.customCode else None
        names.append(custom or _operator_names()[builtin])
    return Counter(names[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators)


def check_portable(content: bytes, min_bytes: int) -> None:
    """Refuses a file that converts but cannot be shipped.

    Args:
        content: The file's bytes.
        min_bytes: Int, size under which the file cannot hold the weights.

    Raises:
        VerificationError: Flex or variable operators, a CAST, or a file without its weights.
    """
    if len(content) < min_bytes:
        raise VerificationError(
            f"The file has {len(content):,} bytes where its weights alone take {min_bytes:,}: they are not in it."
        )
    for name in operators(content):
        if name.startswith("Flex"):
            raise VerificationError(f"The file needs {name}, a TensorFlow operator that phones do not have.")
        if name in _REFUSED:
            raise VerificationError(f"The file contains {name}: {_REFUSED[name]}.")
