"""A client of ComfyUI's server: requests, events while a prompt runs, and the files it makes."""
