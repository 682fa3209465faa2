"""The kinds of layers that take a LoRA beside their weight, and how each does."""
