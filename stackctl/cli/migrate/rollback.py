"""stackctl migrate rollback, as others call it"""

from stackctl.cli.migrate.down import down

__all__ = ["down"]
