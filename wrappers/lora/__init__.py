"""LoRA stacks on models and text encoders that ComfyUI runs."""
