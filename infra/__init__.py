"""The platform, in rooms. It knows no business: a service hands in what it is (`infra.http.parts.Part`).

A room imports those below it: process, http, events, sql and redis, metrics, base, logs, fast (`make lint` says so).
"""
