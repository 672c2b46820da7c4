"""Scripts that are copied beside exported files and run without this package."""
