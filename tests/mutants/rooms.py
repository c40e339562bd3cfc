"""Which tests touch which room, those that notice soonest first."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
# A docstring, and the formats: each of their fields has its line in tests/platform/test_log_lines.py.
LEFT_OUT = {"infra/__init__.py", "infra/logs/formats.py"}

ROOMS = {
    "handlers": [
        "tests/platform/test_health.py",
        "tests/accounts/test_events.py",
        "tests/platform/test_docs.py",
        "tests/platform/test_errors.py",
        "tests/platform/test_metrics.py",
    ],
    "handlers/accounts": [
        "tests/accounts",
        "tests/platform/test_outbox.py",
        "tests/faults/test_races.py",
        "tests/faults/test_overload.py",
        "tests/faults/test_redis.py",
    ],
    "infra/base": [
        "tests/platform/test_ids.py",
        "tests/platform/test_settings.py",
        "tests/platform/test_time_limits.py",
        "tests/platform/test_operations.py",
        "tests/platform/test_outbox.py",
        "tests/accounts/test_accounts.py",
        "tests/platform/test_wrong_fields.py",
        "tests/platform/test_database_errors.py",
        "tests/platform/test_start.py",
    ],
    "infra/events": [
        "tests/platform/test_outbox.py",
        "tests/accounts/test_events.py",
        "tests/platform/test_metrics.py",
        "tests/platform/test_wrong_fields.py",
    ],
    "infra/fast": [
        "tests/platform/test_seams.py",
        "tests/fast",
        "tests/platform/test_imports.py",
        "tests/platform/test_protocol.py",
    ],
    "infra/http": [
        "tests/platform/test_preferences.py",
        "tests/platform/test_operations.py",
        "tests/platform/test_wrong_fields.py",
        "tests/platform/test_errors.py",
        "tests/platform/test_declarations.py",
        "tests/platform/test_shared_answers.py",
        "tests/platform/test_request_limits.py",
        "tests/platform/test_connections.py",
        "tests/platform/test_protocol.py",
        "tests/platform/test_bounds.py",
        "tests/platform/test_defects.py",
        "tests/platform/test_openapi.py",
        "tests/platform/test_docs.py",
        "tests/accounts/test_events.py",
        "tests/accounts/test_introspection.py",
        "tests/accounts/test_limits.py",
        "tests/accounts/test_authorization.py",
        "tests/platform/test_shutdown.py",
        "tests/faults/test_clients.py",
    ],
    "infra/logs": [
        "tests/platform/test_log_lines.py",
        "tests/platform/test_access_log.py",
        "tests/platform/test_log_pipelines.py",
        "tests/platform/test_connections.py",
        "tests/accounts/test_audit.py",
    ],
    "infra/metrics": ["tests/platform/test_metrics.py"],
    "infra/process": [
        "tests/platform/test_start.py",
        "tests/platform/test_shutdown.py",
        "tests/platform/test_connections.py",
        "tests/platform/test_silence.py",
        "tests/platform/test_migrations.py",
        "tests/platform/test_imports.py",
        "tests/platform/test_metrics.py",
        "tests/faults/test_clients.py",
        "tests/platform/test_outbox.py",
        "tests/platform/test_make.py",
    ],
    "infra/redis": [
        "tests/accounts/test_cache.py",
        "tests/platform/test_redis.py",
        "tests/faults/test_redis.py",
        "tests/accounts/test_sign_in_limits.py",
        "tests/platform/test_metrics.py",
        "tests/platform/test_tls.py",
        "tests/platform/test_silence.py",
        "tests/platform/test_start.py",
    ],
    "infra/sql": [
        "tests/platform/test_database_errors.py",
        "tests/platform/test_database.py",
        "tests/faults/test_pool.py",
        "tests/faults/test_queries.py",
        "tests/faults/test_retries.py",
        "tests/platform/test_migrations.py",
        "tests/platform/test_mysql_login.py",
        "tests/accounts/test_purge.py",
        "tests/platform/test_silence.py",
        "tests/platform/test_tls.py",
        "tests/platform/test_start.py",
        "tests/platform/test_metrics.py",
    ],
}


def modules(room: str) -> list[Path]:
    """Its files that hold code, by their path from the root."""
    found = sorted((ROOT / room).glob("*.py"))
    return [path.relative_to(ROOT) for path in found if str(path.relative_to(ROOT)) not in LEFT_OUT]
