"""The nvJPEG library of this process: loads the one that DALI needs, and tells which one is in use.

torchvision's wheel brings an nvJPEG of its own with the same SONAME, ``libnvjpeg.so.13``. A process has one library per
SONAME, the first that it loads, and `import timm` loads torchvision's. With a version before 13.2, DALI decodes regions
on the CPU. So this package loads nvJPEG when it is imported, before it imports timm.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

_SONAME = "libnvjpeg.so.13"
_FOLDER = Path("cu13", "lib")  # of the package `nvidia-nvjpeg`, below the namespace `nvidia`
_PROPERTIES = (0, 1, 2)  # major, minor, patch of CUDA's `libraryPropertyType`

Version = tuple[int, int, int]


def preload() -> None:
    """Load the nvJPEG of the package `nvidia-nvjpeg`. Does nothing without it."""
    namespace = find_spec("nvidia")
    for folder in (namespace and namespace.submodule_search_locations) or ():
        path = Path(folder) / _FOLDER / _SONAME
        if path.is_file():
            with suppress(OSError):  # of another platform; `version` tells what is in use
                ctypes.CDLL(str(path))
            return


def version() -> Version | None:
    """Return the version that DALI gets when it loads nvJPEG by its name, or None without one."""
    try:
        library = ctypes.CDLL(_SONAME)
    except OSError:
        return None
    value = ctypes.c_int()
    numbers = []
    for part in _PROPERTIES:
        if library.nvjpegGetProperty(part, ctypes.byref(value)) != 0:
            return None
        numbers.append(value.value)
    major, minor, patch = numbers
    return major, minor, patch
