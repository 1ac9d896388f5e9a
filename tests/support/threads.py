"""Doing the same thing many times at the same moment."""

import threading

from django.db import connection


def at_once(call, count):
    """What ``call(number)`` returns for each of so many numbers, all of them called as near together as threads can."""
    barrier, results, errors = threading.Barrier(count), [None] * count, []

    def one(number):
        try:
            barrier.wait(30)
            results[number] = call(number)
        except Exception as error:  # noqa: BLE001 - handed on to the test
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors[0]
    return results
