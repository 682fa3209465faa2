"""Music from text, a melody and audio to go on from, by MusicGen: knows nothing of ComfyUI."""
