"""Run by ComfyUI's Python: prints, as JSON, what torch says of the GPU, and whether torchvision
can be imported beside it."""

import json
import sys

del sys.path[0]  # this folder, whose modules must not pass for packages

import torch  # noqa: E402

devices = []
for index in range(torch.cuda.device_count()):
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    capability = "%d.%d" % (properties.major, properties.minor)  # noqa: UP031
    devices.append(
        {
            "name": properties.name,
            "type": "cuda",
            "vram_total": total,
            "vram_free": free,
            "capability": capability,
        }
    )
if torch.backends.mps.is_available():
    devices.append({"name": "Apple GPU", "type": "mps", "vram_total": None, "vram_free": None})
problem = None
try:
    import torchvision  # noqa: F401
except Exception as error:  # noqa: BLE001 - whatever a broken build raises
    problem = "%s: %s" % (type(error).__name__, error)  # noqa: UP031
print(json.dumps({"torch": torch.__version__, "devices": devices, "torchvision": problem}))  # noqa: T201
