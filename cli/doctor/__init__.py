"""What `vivace doctor` looks at: one module for each part of an installation.

Nothing here imports torch: the Python that runs ComfyUI is asked in a process of its own.
"""
