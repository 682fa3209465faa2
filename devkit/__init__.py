"""What `dev.py` does: environment, ComfyUI, server, demo, checks, start-up report.

Everything here that runs before there is an environment needs the standard library only; `demo/`
and `probe.py` run inside it.
"""
