"""The Django app of the scheduler: rows, rules, mirrors, runs, and the doors to them."""
