"""`/openapi.json`: the control plane described from the tables of its files (OpenAPI 3.1)."""
