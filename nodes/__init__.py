"""The nodes: schema and a thin `execute`, one file per family.

Only `comfy_api` and the standard library may be imported at module level here, because the editor
imports every file of this folder when it opens. `execute` imports what does the work. Real node
classes define the V3 hooks and nothing else: `execute` is handed ComfyUI's class, not the real one.
"""

from .settings import apply_log_detail

apply_log_detail()
