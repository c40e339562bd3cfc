"""The table: what no copy gets, and what goes with each part that a copy is made without.

Marks in the files (see `cut`) say the rest: `git grep -n 'only with'`.
"""

import re
from collections.abc import Collection
from typing import NamedTuple


class Rule(NamedTuple):
    """What is left out of a copy that has none of `parts`; of every copy when there are no parts.

    `paths`: files, folders and patterns. `targets`: of the Makefile. `tests`, `pages`, `entries`: words, with which
    tests and helpers of `tests/**/test_*.py`, sentences of `*.md` and entries of `*.json` go. `texts`: what stands in
    files that can't be marked, and what takes its place.
    """

    parts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    tests: str = ""
    pages: str = ""
    entries: str = ""
    texts: tuple[tuple[str, str], ...] = ()


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
        pages=r"performance\.md|reliability\.md|benchmarks/|make (bench|mutants|new|soak)|(CHANGELOG|CONTRIBUTING|SECURITY)\.md",
        texts=(
            ("PEERS   := fastapi litestar blacksheep\n\n", ""),
            (" benchmarks/.venvs .cache", " .cache"),
            ('"benchmarks/*" = ["ARG005", "PLR0917", "S", "SLF001", "T20"]\n', ""),
            ('"tests/soak.py" = ["T201"]  # prints a table\n', ""),
            ("benchmarks/.venvs/\n", ""),
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
            "tests/faults",
            "tests/platform/test_redis.py",
        ),
        tests=r"sign_up|log_in|/v1/auth|\b[aA]ccounts?\b|_account\b|account_|handlers\.accounts|tests\.faults",
        pages=r"(?i)(?<!service )\baccounts?\b(?!_name)|\bsessions?\b|sign-in|signs? in|\blog-?(?:in|out)s?\b|/v1/auth|password hash"
        r"|SECRET_KEY|secret_key|ACCESS_TOKEN|REFRESH_TOKEN|LOGIN_RATE|refresh token|access token|introspect|passwords? (?:is|are) hashed",
        entries=r"account|session|password|cache_reads",
        texts=(
            ('"examples", ', ""),
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
            "infra/events/tasks.py",
            "migrations/versions/0002_events.py",
            "migrations/versions/0003_outbox_by_subject.py",
            "tests/accounts/test_events.py",
            "tests/platform/test_outbox.py",
        ),
        tests=r"\bK_SINK\b|\bsink\b|\bSink\b|/v1/events|K_CE_OVERRIDES|outbox|event_deliveries|received_events|ce-type",
        pages=r"K_SINK|K_CE_OVERRIDES|/v1/events|[oO]utbox|[Dd]omain events?|CloudEvent|PingSource|SinkBinding|event_deliveries"
        r"|events\.(?:deliver|purge)|ce-type",
        entries=r"event_deliveries",
    ),
    Rule(
        ("accounts", "events"),
        paths=(
            "deploy/cloudrun/purge-job.yaml",
            "deploy/cloudrun/scheduler.sh",
            "deploy/kubernetes/base/purge-cronjob.yaml",
        ),
        tests=r"purge",
        pages=r"(?i)\bpurge|scheduled work|run TYPE|EVENTS_TOKEN|Scheduler",
    ),
)


def rules(without: Collection[str]) -> list[Rule]:
    return [rule for rule in RULES if all(part in without for part in rule.parts)]


def words(without: Collection[str], kind: str) -> re.Pattern[str] | None:
    """Of all rules together."""
    found = [text for rule in rules(without) if (text := getattr(rule, kind))]
    return re.compile("|".join(found)) if found else None
