"""How many bytes of LoRA files are kept in main memory."""

from __future__ import annotations

import ctypes
import os
import sys

SIZE_VARIABLE = "VIVACE_LORA_CACHE_MB"
RAM_SHARE = 8
_FALLBACK_RAM = 8 * 2**30


def total_memory() -> int:
    """Return the bytes of main memory, or 8 GiB where the system does not tell."""
    if sys.platform == "win32":
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: dwLength first, ullTotalPhys second
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return int(status[1])
        return _FALLBACK_RAM
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return _FALLBACK_RAM


def default_limit() -> int:
    """Return the bytes to keep: ``VIVACE_LORA_CACHE_MB`` (0 disables) or 1/8 of main memory.

    Raises:
        ValueError: the variable is not a number of megabytes.
    """
    text = os.environ.get(SIZE_VARIABLE)
    if not text:
        return total_memory() // RAM_SHARE
    try:
        megabytes = float(text)
    except ValueError:
        megabytes = -1.0
    if not 0 <= megabytes < 2**40:
        raise ValueError(f"{SIZE_VARIABLE} is {text!r}; set it to a number of megabytes")
    return int(megabytes * 2**20)
