"""The lives of logins and sessions: storage, token refresh, user revalidation and logout.

It handles no HTTP requests. It may import config, store, protocol, users, and everything that these
may import."""
