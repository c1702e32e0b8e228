"""The API described: as an OpenAPI document, and as a page to read."""
