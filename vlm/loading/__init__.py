"""How a model comes into memory: options, 4-bit layers, compiled graphs, headroom."""
