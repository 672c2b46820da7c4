"""melanoma-dist: dermoscopy classifiers that can be published and defended."""

__version__ = "0.1.0"
