"""A schema as it stands in a database: read from the catalog, and dumped as SQL."""
