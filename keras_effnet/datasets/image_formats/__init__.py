"""What single image formats need beyond TensorFlow's decoders: EXIF orientation, and formats that Pillow decodes."""
