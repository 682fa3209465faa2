"""SVDQuant checkpoints and layers of Nunchaku: what they hold, and how it is laid out.

Knows torch and the file format, but neither ComfyUI, comfy-kitchen nor the nunchaku package.
"""
