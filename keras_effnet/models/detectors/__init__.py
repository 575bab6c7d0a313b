"""EfficientDet as Keras models of stock layers: BiFPN, heads, and the published builders. Keras only."""
