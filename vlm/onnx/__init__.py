"""The vision encoder as an ONNX file, compared with the original."""
