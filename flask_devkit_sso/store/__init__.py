"""Where sessions are kept: SQLite, Redis or memory behind one interface, and claims on top of it.

A store knows nothing of sessions or Flask. It may import errors."""
