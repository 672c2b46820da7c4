"""Sources of images with labels, one file each. A module here with a ``SOURCE`` is a source; nothing else lists it."""
