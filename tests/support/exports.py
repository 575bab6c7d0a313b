"""Names that several tests of exported files share."""

PRECISIONS = ("none", "float16", "dynamic", "weight_only", "int8")
