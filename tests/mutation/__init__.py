"""A mutation run over the core: small changes that the tests must notice. See docs/testing.md."""
