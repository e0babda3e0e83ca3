"""Randomised convergence: writers, processes and faults from one seed, and what must hold of both sides."""
