"""The main job, end to end: LoRAs on a Qwen-Image in a real ComfyUI server, checked."""
