"""Joins the parts of ``offline_parts.py`` on a host without a package registry. Needs Python alone.

python3 offline_install.py PARTS SITE
export PYTHONPATH=SITE
"""

from __future__ import annotations

import hashlib
import sys
import tarfile
import tempfile
from pathlib import Path


def main() -> None:
    """Check all parts, then unpack them."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    parts, site = map(Path, sys.argv[1:])
    with tempfile.TemporaryFile() as archive:
        for line in (parts / "SHA256").read_text().splitlines():
            expected, name = line.split()
            path = parts / name
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != expected:
                sys.exit(f"{path}: is {'damaged' if content else 'missing'}. Copy it again.")
            archive.write(content)
        archive.seek(0)
        with tarfile.open(fileobj=archive, mode="r:xz") as packed:
            # Python 3.11 has filters from 3.11.4 on. The hashes tell whose files these are.
            packed.extraction_filter = getattr(tarfile, "data_filter", None)
            packed.extractall(site)  # noqa: S202  # nosec B202
    print(f"export PYTHONPATH={site}")


if __name__ == "__main__":
    main()
