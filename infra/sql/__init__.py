"""MySQL, or SQLite, behind a pool of our own that `databases` opens.

`open_database(settings)` of `database` gives reads, writes and transactions; `schema` migrates. Errors are Unavailable
(503), Duplicate (409) and StatementError (500, a defect).
"""
