"""Settings: reading them from ``app.config`` and the credentials file, and checking them.

It may import errors and protocol."""
