"""Sessions of the server: conversations that it keeps, in sqlite or PostgreSQL."""
