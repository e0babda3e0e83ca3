"""Lint: what in a migration is unsafe while the application runs, or breaks its previous version.

files → statements → facts → rules over facts → findings.
"""
