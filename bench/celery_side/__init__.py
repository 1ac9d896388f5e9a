"""The usual alternative: django-celery-beat with Celery, as a careful user would set it up for the same work.

It runs in an environment of its own (requirements/celery-side.lock) and imports nothing of ours. Its settings, each
for a reason:

- a gevent pool, because a run waits for HTTP and for nothing else, with a pool of database connections under it;
- ``acks_late``, so that a dead worker's tasks come back, and the broker's options without which a gevent worker never
  looks for them;
- a visibility timeout somewhat above the longest call: a shorter one runs tasks twice, a longer one delays what comes
  back;
- no result backend, as the row that a task writes is the result;
- Redis with an append-only file, since a broker without one forgets;
- ``beat_sync_every=1``, since a beat that dies sends again what it has not written down.
"""
