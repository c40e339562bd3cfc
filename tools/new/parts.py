"""The table: what no copy gets, and what goes with each part that a copy is made without.

Marks in the files (see `cut`) say the rest: `git grep -n 'only with'`.
"""

import re
from collections.abc import Collection
from typing import NamedTuple


class Rule(NamedTuple):
    """What is left out of a copy that has none of `parts`; of every copy when there are no parts.

    `paths`: files, folders and patterns. `targets`: of the Makefile. `variables`: settings, with the lines that are
    theirs. `tests`, `pages`, `entries`: the words with which tests and helpers of `tests/**/test_*.py`, sentences of
    `*.md` and entries of `*.json` go. `texts`: what stands in files that can't be marked, and what takes its place.
    """

    parts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    tests: str = ""
    pages: str = ""
    entries: str = ""
    texts: tuple[tuple[str, str], ...] = ()


NO_MYSQL = "unset: SQLite in DATA_DIR, which one instance alone can use and must keep"
PARTS = ("accounts", "events")

RULES = (
    Rule(
        paths=(
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "README*.md",
            "SECURITY.md",
            ".github/ISSUE_TEMPLATE",
            ".github/pull_request_template.md",
            "benchmarks",
            "docs/api.png",
            "docs/performance",
            "docs/performance.md",
            "docs/reliability.md",
            "tests/mutants*",
            "tests/project",
            "tests/soak.py",
            "tools",
        ),
        targets=("bench", "bench-check", "bench-lock", "benchmarks/.venvs/%/made", "mutants", "new", "soak"),
        pages=r"(?:performance|reliability|CHANGELOG|CONTRIBUTING|SECURITY)\.md|\bbenchmarks/|"
        r"make (?:bench|mutants|new|soak)",
        texts=(
            ("PEERS   := fastapi litestar blacksheep\n\n", ""),
            (" benchmarks/.venvs .cache", " .cache"),
            ('"benchmarks/*" = ["ARG005", "PLR0917", "S", "SLF001", "T20"]\n', ""),
            ('"tests/soak.py" = ["T201"]  # prints a table\n', ""),
            ("benchmarks/.venvs/\n", ""),
            ('"tools/*" = ["S603", "S607", "T201"]  # runs git and ruff, says what it does\n', ""),
            (', "tools"]', "]"),
        ),
    ),
    Rule(
        ("accounts",),
        paths=(
            "deploy/compose/secrets/secret_key",
            "examples",
            "handlers/accounts",
            "migrations/versions/0001_accounts_and_sessions.py",
            "tests/accounts",
            "tests/faults/hang_ups.py",
            "tests/faults/load.py",
            "tests/faults/overload.py",
            "tests/faults/quick_app.py",
            "tests/faults/races.py",
            "tests/faults/stops.py",
            "tests/faults/troubles.py",
        ),
        variables=("SECRET_KEY", "SECRET_KEY_PREVIOUS", "ACCESS_TOKEN_TTL", "REFRESH_TOKEN_TTL", "LOGIN_RATE_LIMIT"),
        tests=r"sign_up|log_in|/v1/auth|\b[aA]ccounts?\b|_account\b|account_|handlers\.accounts"
        r"|tests\.faults\.(?:hang_ups|load|overload|quick_app|races|stops|troubles)",
        pages=r"(?i:(?<!service )\baccounts?\b|\bsessions?\b|sign-in|signs? in|\blog-?(?:in|out)s?\b|password hash"
        r"|(?:access|refresh)[ _]token|secret_key|introspect|login_rate|/v1/auth|password is hashed)",
        entries=r"account|session|password|cache_reads",
        texts=(
            ('"examples", ', ""),
            ("required in dev and prod (or MYSQL_UNIX_SOCKET); else SQLite in DATA_DIR", NO_MYSQL),
            ("required in dev and prod; unset in local, test: no shared cache", "unset: no shared cache"),
            ("required in dev and prod", "where MySQL asks for one"),
            (" and /v1/auth/introspect", ""),
            ("where local and test keep SQLite's file and the secret key", "where SQLite's file is kept"),
            (".sessions.purge", ".events.purge"),
            ("expired sessions", "expired events"),
            ("Accounts and sessions as one container-native ASGI service", "A container-native ASGI service"),
        ),
    ),
    Rule(
        ("events",),
        paths=(
            "handlers/events.py",
            "infra/events/outbox.py",
            "infra/events/sink.py",
            "migrations/versions/0002_events.py",
            "migrations/versions/0003_outbox_by_subject.py",
            "tests/accounts/test_events.py",
            "tests/platform/test_outbox.py",
        ),
        variables=("K_SINK", "K_CE_OVERRIDES"),
        tests=r"\bK_SINK\b|\bsink\b|\bSink\b|/v1/events|K_CE_OVERRIDES|outbox|event_deliveries|received_events|ce-type",
        pages=r"K_SINK|K_CE_OVERRIDES|/v1/events|[oO]utbox|[Dd]omain events?|CloudEvent|PingSource|SinkBinding"
        r"|event_deliveries|events\.(?:deliver|purge)|ce-type",
        entries=r"event_deliveries",
        texts=(("/v1/events and ", ""),),
    ),
    Rule(
        ("accounts", "events"),
        paths=(
            "deploy/cloudrun/purge-job.yaml",
            "deploy/cloudrun/scheduler.sh",
            "deploy/kubernetes/base/purge-cronjob.yaml",
        ),
        variables=("EVENTS_TOKEN",),
        tests=r"purge|events_token",
        pages=r"(?i:\bpurge|scheduled work|run TYPE|EVENTS_TOKEN|scheduler)",
    ),
)


def rules(without: Collection[str]) -> list[Rule]:
    return [rule for rule in RULES if all(part in without for part in rule.parts)]


def words(without: Collection[str], kind: str) -> re.Pattern[str] | None:
    """Of all rules together."""
    found = [text for rule in rules(without) if (text := getattr(rule, kind))]
    return re.compile("|".join(found)) if found else None
