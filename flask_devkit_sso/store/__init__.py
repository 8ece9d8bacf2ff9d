"""Where sessions are stored, behind one interface, and claims on top: SQLite, Redis, PostgreSQL, memory.

A store knows nothing of sessions or Flask. It may import bulkhead, errors and per_process."""
