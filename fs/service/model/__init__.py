"""What the files of the services take and give: models that check bodies and describe them in /openapi.json."""
