"""A double of ComfyUI's Qwen-Image-2.1, which is in none of its releases on the package index."""
