"""Post-training quantization to int8: ranges, equalization, correction, float islands."""
