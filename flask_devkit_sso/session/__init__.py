"""What happens to a login and a session on the server: storage, refresh, revalidation, logout.

It handles no requests or responses. It may import errors, signals, users, config, protocol, store."""
