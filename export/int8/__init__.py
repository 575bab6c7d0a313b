"""Post-training quantization to int8: quantizers, equalization, correction, float islands."""
