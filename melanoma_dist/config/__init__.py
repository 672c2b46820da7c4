"""The configuration: frozen sections, YAML files, and the rules that values keep."""
