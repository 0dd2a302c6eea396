"""Everything is a file: the file protocol, namespaces, access levels, and one module per file service."""
