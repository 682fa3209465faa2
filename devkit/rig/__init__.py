"""What development commands and tests run in: the environment, ComfyUI, its server, a browser."""
