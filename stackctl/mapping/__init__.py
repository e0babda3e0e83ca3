"""Mapping files: read, checked, compiled to statements per dialect."""
