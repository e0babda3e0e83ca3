"""stackctl: operations toolkit for an auth-and-payments backend on PostgreSQL."""

__version__ = "0.1.0"
