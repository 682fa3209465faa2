"""What the small nodes do, free of ComfyUI."""
