"""What is true on a real card: ``python3 dev.py gpu``.

Much of what this pack promises depends on CUDA and on ComfyUI's dynamic VRAM, for which the tests
have doubles. Here each promise is a claim that is measured on the card itself. Without a card the
same code runs on the CPU with tiny models, so that it works when there is one.
"""
