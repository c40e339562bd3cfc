"""What any floor may use: errors, ids, times, time limits, background tasks, and the engine under settings.py.

`variables` reads a table of settings from the environment, `kinds` says what their values look like.
"""
