"""What `user-sync serve` answers: whether the pipeline is well, in numbers and booleans, for probes and scrapers.

What belongs here: asking (`database.py`, `users.py`, `dagster.py`), sharing one answer between all who poll
(`shared_answer.py`), and saying it over HTTP (`app.py`, `metrics.py`, `server.py`). What does not: anything that
writes, and anything that a stranger should not read: no e-mail, key, host or text of an error leaves this package.
"""
