"""Ties the layers below to ComfyUI: models that run, memory, progress."""
