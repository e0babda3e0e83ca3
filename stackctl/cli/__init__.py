"""The command line: one thin module per command group. Parse, confirm, call one function, render."""
