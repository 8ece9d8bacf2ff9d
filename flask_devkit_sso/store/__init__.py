"""Where sessions are stored behind one interface: SQLite, Redis, PostgreSQL or memory.

Claims are on top. A store knows nothing of sessions or Flask. It may import bulkhead, errors and
per_process.
"""
