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

# Tests that are about the key and about what dev and prod require, though their words don't say so.
OF_SETTINGS = (
    r"def test_(?:is_required|all_problems_are_reported|a_wrong_value_is_not_called_missing|secrets_holds"
    r"|a_bad_secret_in_a_file|a_data_dir_that_cannot|printing_makes_no_key|\w*_(?:kept_key|previous_key)_)"
    r"|def test_(?:a_key_|no_key_|two_data_dirs|processes_that_start_at_once_have_the_same_key)"
)

# Of docs/security.md: tests/project is in no copy.
TESTS_OF_THIS_PROJECT = (
    ", project/test_published_secrets",
    ", project/test_security_pages",
    "project/test_mysql_page, ",
    "project/test_supply_chain, ",
)

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
            "docs/asvs.md",
            "docs/performance",
            "docs/performance.md",
            "docs/reliability.md",
            "tests/mutants*",
            "tests/project",
            "tests/soak.py",
            "tools",
        ),
        targets=("bench", "bench-check", "bench-lock", "benchmarks/.venvs/%/made", "mutants", "new", "soak", "upgrade"),
        pages=r"(?:asvs|performance|reliability|CONTRIBUTING|SECURITY)\.md|\bbenchmarks/|"
        r"make (?:bench|mutants|soak)",
        texts=(
            *((text, "") for text in TESTS_OF_THIS_PROJECT),
            ("PEERS   := fastapi litestar blacksheep\n\n", ""),
            (" benchmarks/.venvs .cache", " .cache"),
            ('"benchmarks/*" = ["ARG005", "PLR0917", "S", "SLF001", "T20"]\n', ""),
            ('"tests/soak.py" = ["T201"]  # prints a table\n', ""),
            ("benchmarks/.venvs/\n", ""),
            ("; tests/project and tests/deploy read files, which no fast path touches", ""),
            ('"tools/*" = ["S603", "S607", "T201"]  # runs git and ruff, says what it does\n', ""),
            (', "tools"]', "]"),
        ),
    ),
    Rule(
        ("accounts",),
        paths=(
            "deploy/compose/secrets/secret_key",
            "docs/security.md",
            "examples",
            "handlers/accounts",
            "migrations/versions/0001_accounts_and_sessions.py",
            "migrations/versions/0004_known_clients.py",
            "tests/accounts",
            "tests/faults/crowds.py",
            "tests/faults/hang_ups.py",
            "tests/faults/load.py",
            "tests/faults/overload.py",
            "tests/faults/quick_app.py",
            "tests/faults/races.py",
            "tests/faults/stops.py",
            "tests/faults/troubles.py",
        ),
        variables=(
            "SECRET_KEY",
            "SECRET_KEY_PREVIOUS",
            "ACCESS_TOKEN_TTL",
            "REFRESH_TOKEN_TTL",
            "SESSION_MAX_AGE",
            "MAX_SESSIONS",
            "LOGIN_RATE_LIMIT",
            "REGISTER_RATE_LIMIT",
            "REFRESH_RATE_LIMIT",
            "RESERVED_USERNAMES",
        ),
        tests=r"sign_up|log_in|/v1/auth|\b[aA]ccounts?\b|_account\b|account_|handlers\.accounts"
        r"|\.secret_key\b|secret_key(?=[\"\'])|tests\.faults\.(?:crowds|hang_ups|load|overload|quick_app|races|stops|troubles)"
        r"|Registration|\bsamples\(|\brefresh_tokens\b|def test_another_origin_may_use_the_methods|" + OF_SETTINGS,
        pages=r"docs/security\.md|\(security\.md"
        r"|(?i:(?<!service )\baccounts?\b|\bsessions?\b|sign-in|signs? in|\blog-?(?:in|out)s?\b|password hash"
        r"|(?:access|refresh)[ _]token|secret_key|introspect|login_rate|/v1/auth|password is hashed|password waits"
        r"|the route is a 404)",
        entries=r"account|session|password|cache_reads",
        texts=(
            ('"settings.py", "examples", ', '"settings.py", '),
            ("tests/accounts tests/faults tests/platform", "tests/faults tests/platform"),
            ("\nPARTS = [accounts.PART]\n", "\nPARTS: list[Part] = []\n"),
            ("import RequestLimits\n", "import RequestLimits\nfrom infra.http.parts import Part\n"),
            ("required in dev and prod (or MYSQL_UNIX_SOCKET); else SQLite in DATA_DIR", NO_MYSQL),
            ("required in dev and prod; unset in local, test: no shared cache", "unset: no shared cache"),
            ("required in dev and prod", "where MySQL asks for one"),
            (" and /v1/auth/introspect", ""),
            ("where local and test keep SQLite's file and the secret key", "where SQLite's file is kept"),
            (".sessions.purge", ".events.purge"),
            ("deletes expired sessions, refresh tokens, known clients and event ids", "deletes expired event ids"),
            ("expired sessions", "expired events"),
            (": it knows nothing of accounts, you copy it and leave it alone", ", which you leave alone"),
            ("`principal: Principal` lets in who is logged in, ", ""),
            ("./data, your accounts, stays", "./data stays"),
            ("-k login -x", "-k ready -x"),
            ("; `handlers/accounts/` is the business, and a service without accounts does without it", ""),
            ("`audit` (who did what to an account)", "`audit` (who did what)"),
            (" or a refused sign-in", ""),
            (", password hashes at work and queued", ""),
            ("a little slower; rate limits count per instance", "a little slower"),
            (" A session that was ended elsewhere may be honoured for up to 60 s, as long as Redis keeps it.", ""),
            ("UTC in each session", "UTC on each connection"),
            ("it keeps accounts in SQLite", "it keeps its data in SQLite"),
            ("deletes every account", "deletes all data"),
            ("redis_password secret_key;", "redis_password;"),
            (", `REDIS_PASSWORD` and `SECRET_KEY`:", " and `REDIS_PASSWORD`:"),
            ("the last three come from files", "the last two come from files"),
            ("and eight secrets", "and six secrets"),
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
            "tests/platform/test_migrations.py",  # about the second and third
            "tests/platform/test_outbox.py",
            "tests/support/sink.py",
        ),
        variables=("K_SINK", "K_CE_OVERRIDES"),
        tests=r"\bK_SINK\b|\bsink\b|\bSink\b|/v1/events|K_CE_OVERRIDES|\boutbox\b(?![|)])|event_deliveries|received_events|ce-type",
        pages=r"K_SINK|K_CE_OVERRIDES|/v1/events|[oO]utbox|[Dd]omain events?|CloudEvent|PingSource|SinkBinding"
        r"|event_deliveries|events\.(?:deliver|purge)|ce-type",
        entries=r"event_deliveries",
        texts=(
            ("/v1/events and ", ""),
            ("refresh tokens, known clients and event ids", "refresh tokens and known clients"),
            (", events sent", ""),
            (", and domain events on their way out (`outbox`, `sink`)", ""),
            ("docs, events, health", "docs, health"),
            (", and\n# add K_SINK's where domain events are sent.", "."),
            ("`root`, `events`: what", "`root`: what"),
            (
                "CloudEvents in and out: scheduled work, the outbox, the sink",
                "what a request that holds an event is read into",
            ),
        ),
    ),
    Rule(
        ("accounts", "events"),
        paths=(
            "deploy/cloudrun/purge-job.yaml",
            "deploy/cloudrun/scheduler.sh",
            "deploy/kubernetes/base/purge-cronjob.yaml",
        ),
        variables=("EVENTS_TOKEN",),
        tests=r"purge|events_token|alembic_version|\brevision\(|a_migration_(?:that_)?may"
        r"|a_database_without_a_schema|several_migrations|quick_tests_are_many",
        texts=(
            ('["METRICS_TOKEN", "EVENTS_TOKEN"]', '["METRICS_TOKEN"]'),
            (", or `run` failed", ""),
            ("the migration and the clean-up, each", "the migration and a job of yours, each"),
        ),
        pages=r"(?i:\bpurge|scheduled work|run TYPE|EVENTS_TOKEN|scheduler)",
    ),
)


def rules(without: Collection[str]) -> list[Rule]:
    return [rule for rule in RULES if all(part in without for part in rule.parts)]


def words(without: Collection[str], kind: str) -> re.Pattern[str] | None:
    """Of all rules together."""
    found = [text for rule in rules(without) if (text := getattr(rule, kind))]
    return re.compile("|".join(found)) if found else None
