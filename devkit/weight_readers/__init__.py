"""Where ComfyUI computes a layer from its weight: what stands beside the layer is lost there."""
