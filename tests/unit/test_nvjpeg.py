from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path

import pytest

_PRINT = "import melanoma_dist; from melanoma_dist import nvjpeg; print(nvjpeg.version())"


def printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.strip().splitlines()[-1]


def pinned() -> str:
    return str(tuple(int(part) for part in version("nvidia-nvjpeg").split(".")[:3]))


def bundled() -> Path:
    """torchvision's own copy."""
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    copies = sorted(Path(spec.origin).parents[1].glob("torchvision.libs/libnvjpeg.*"))
    if not copies:
        pytest.skip("this torchvision brings no nvJPEG")
    return copies[0]


def test_the_pinned_library_is_used_although_torchvision_loads_its_own() -> None:
    bundled()
    program = "from melanoma_dist.models import backbones; import timm, torchvision"
    assert printed(f"{program}; {_PRINT}") == pinned()


def test_another_library_that_was_loaded_first_is_told() -> None:
    """The fault that `preload` prevents: the first library of a name is the only one."""
    earlier = printed(f"import ctypes; ctypes.CDLL({str(bundled())!r}); {_PRINT}")
    assert earlier not in (pinned(), "None")


def test_the_pinned_package_holds_the_library() -> None:
    names = {file.name for file in distribution("nvidia-nvjpeg").files or ()}
    assert "libnvjpeg.so.13" in names
