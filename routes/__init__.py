"""What the pack answers over HTTP, and does to prompts before they are queued.

`http_api.py` registers it, and imports each module when it is first needed.
"""
