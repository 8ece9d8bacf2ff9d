"""Reads the settings from ``app.config`` and the credentials file, and checks them.

It may import errors and protocol."""
