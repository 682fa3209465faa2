"""LoRA files as bytes: names, headers, tensors, what lies beside them, writing, and the cache."""
