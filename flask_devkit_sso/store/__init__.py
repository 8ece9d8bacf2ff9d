"""Where sessions are stored: SQLite, Redis, PostgreSQL or memory behind one interface, and claims.

A store knows nothing of sessions or Flask. It may import bulkhead, errors and per_process."""
