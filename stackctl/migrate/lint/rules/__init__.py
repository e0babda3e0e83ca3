"""The rules: a file for each kind of thing that a statement touches."""
