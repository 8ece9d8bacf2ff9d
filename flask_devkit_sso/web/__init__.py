"""Requests and responses: the routes, the guards and the pages.

It may import everything except extension, testing and cli."""
