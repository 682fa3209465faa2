"""Which ComfyUI, Python and transformers the pack runs with: `dev.py matrix`."""
