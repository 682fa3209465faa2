"""Vision-language models in ComfyUI: memory, progress, answers, captions."""
