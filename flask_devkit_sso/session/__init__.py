"""What happens to a login and a session on the server: storage, refresh, revalidation, logout.

It handles no HTTP requests. It may import everything below it: config, store, protocol, users …"""
