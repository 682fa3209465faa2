"""From an image to its embedding, encoded once: pixels, the vision tower, and the caches."""
