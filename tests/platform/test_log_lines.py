"""Log lines, as a collector sees them: most tests read what a process of their own wrote to a real pipe."""

import base64
import json
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.logs.safety import CUTS, Redactor
from infra.logs.setup import make_formatter
from tests.support.servers import free_port
from tests.support.service import clean_environment

ROOT = Path(__file__).parents[2]
MAX_BYTES = 16_384
SECRET = 'pa"ss\\wörd/+ 1'
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|^[\d:.]{12}", re.MULTILINE)
REFRESH = "brt_" + "aB3_-" * 9
START = """
import asyncio, json, logging, os, signal, sys, threading, time, warnings
from urllib.parse import quote, quote_plus
from infra import logs
"""
CONFIGURE = """
writer = logs.configure(**json.loads(sys.argv[1]))
log = logs.get_logger("system")
"""
REQUEST = """
context = logs.RequestContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "request-1", True)
logs.request_context.set(context)
"""
ACCESS = """
logs.get_logger("access").info("GET /v1/auth/me 200", extra={
    "method": "GET", "route": "/v1/auth/me", "path": "/v1/auth/me", "status": 200, "duration_ms": 123.0,
    "request_bytes": 0, "response_bytes": 219, "client": "203.0.113.7", "user_agent": "curl/8.5"})
"""


def command(code: str, before: str = "", **options: Any) -> list[str]:
    settled = {"service": "berth", "token_prefixes": ["brt_"], "level": "INFO", "log_format": "json"} | options
    return [sys.executable, "-c", START + dedent(before) + CONFIGURE + dedent(code), json.dumps(settled)]


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(code, **options), cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def lines_of(code: str, *, status: int = 0, **options: Any) -> list[dict[str, Any]]:
    """Every line that the process wrote. Nothing else may come out of it, on stderr or stdout."""
    done = run(code, **options)
    assert (done.returncode, done.stderr) == (status, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def line_of(code: str, **options: Any) -> dict[str, Any]:
    (line,) = lines_of(code, **options)
    return line


def formatted(message: Any, *args: Any, extra: Any = None, log_format: str = "json", secrets: Any = ()) -> str:
    """One line without a process, where a test needs hundreds of them."""
    formatter = make_formatter("berth", log_format, Redactor(secrets, ["brt_"]), None)
    record = logging.getLogger("service.test").makeRecord("service.test", 20, "", 0, message, args, None, extra=extra)
    line = formatter.format(record)
    assert len(f"{line}\n".encode()) < MAX_BYTES
    return line


# --- What a line holds ---


def test_a_line_has_a_time_a_severity_a_message_its_logger_and_its_type() -> None:
    line = line_of('logs.get_logger("audit").warning("account %s deleted", 7, extra={"by": "owner"})')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "severity": "WARNING",
        "message": "account 7 deleted",
        "logger": "berth.audit",
        "type": "audit",
        "by": "owner",
    }


def test_the_time_is_utc_to_the_millisecond() -> None:
    formatter = make_formatter("berth", "json", Redactor(()), None)
    record = logging.makeLogRecord({"name": "x", "levelno": 20, "created": 1767323045.678, "msg": "x"})
    assert json.loads(formatter.format(record))["time"] == "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize("name", ["uvicorn.error", "py.warnings", "asyncio", "aiomysql", "berth", "root"])
def test_a_line_of_any_other_logger_is_a_system_line(name: str) -> None:
    assert line_of(f"logging.getLogger({name!r}).error('x')")["type"] == "system"


@pytest.mark.parametrize(("level", "severity"), [(5, "DEBUG"), (25, "INFO"), (35, "WARNING"), (60, "CRITICAL")])
def test_a_level_of_somebodys_own_gets_the_severity_below_it(level: int, severity: str) -> None:
    assert line_of(f"log.log({level}, 'x')", level="NOTSET")["severity"] == severity


def test_within_a_request_lines_carry_its_ids_and_once_known_its_account() -> None:
    first, second = lines_of(f"{REQUEST}\nlog.info('x')\nlogs.name_user('account_id', 'account-1')\nlog.info('x')")
    ids = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331", "request_id": "request-1"}
    assert first.items() >= ids.items()
    assert "account_id" not in first
    assert second["account_id"] == "account-1"


def test_requests_served_at_the_same_time_do_not_mix_their_ids() -> None:
    lines = lines_of("""
        async def request(number):
            logs.request_context.set(logs.RequestContext(f"trace-{number}", "s", "r", True))
            for _ in range(5):
                await asyncio.sleep(0)
                log.info("%s", number)
        async def main():
            await asyncio.gather(*(request(number) for number in range(5)))
        asyncio.run(main())
    """)
    assert len(lines) == 25
    assert all(line["trace_id"] == f"trace-{line['message']}" for line in lines)


@pytest.mark.parametrize("log_format", ["json", "gcp", "ecs"])
def test_an_extra_cannot_replace_a_field_of_the_line(log_format: str) -> None:
    names = ["time", "severity", "type", "logger", "@timestamp", "log.level", "exception", "truncated", "request_id"]
    line = line_of(f"{REQUEST}\nlog.info('x', extra=dict.fromkeys({names}, 'forged'))", log_format=log_format)
    plain = line_of(f"{REQUEST}\nlog.info('x')", log_format=log_format)
    moments = {"time", "@timestamp"}
    assert {name: line[name] for name in plain.keys() - moments} == {n: plain[n] for n in plain.keys() - moments}
    assert "forged" not in (line.get("time"), line.get("exception"), line.get("truncated"))
    assert list(line.values()).count("forged") == len(names)


def test_neither_the_task_name_nor_uvicorns_coloured_message_is_a_field() -> None:
    extra = {"color_message": "y"} | ({} if sys.version_info >= (3, 12) else {"taskName": "Task-1"})
    line = line_of(f"log.info('x', extra={extra})")
    assert line.keys() == {"time", "severity", "message", "logger", "type"}


def test_a_dict_logged_as_the_message_becomes_fields() -> None:
    line = line_of("log.info({'message': 'moved', 'rows': 3, 'type': 'x'})")
    assert (line["message"], line["rows"], line["type"]) == ("moved", 3, "system")


@pytest.mark.parametrize(("log_format", "field"), [("json", "exception"), ("gcp", "stack_trace")])
def test_an_exception_is_one_field_with_the_whole_traceback(log_format: str, field: str) -> None:
    line = line_of(
        "try:\n    {}['missing']\nexcept KeyError:\n    log.exception('no such key', stack_info=True)",
        log_format=log_format,
    )
    assert line["message"] == "no such key"
    assert line[field].startswith("Traceback (most recent call last):\n")
    assert "KeyError: 'missing'\nStack (most recent call last):\n" in line[field]


def test_an_exception_group_is_one_field_with_each_of_its_exceptions() -> None:
    raised = "raise ExceptionGroup('two', [ValueError('one'), OSError('other')])"
    line = line_of(f"try:\n    {raised}\nexcept Exception:\n    log.exception('x')")
    assert "ValueError: one" in line["exception"]
    assert "OSError: other" in line["exception"]


# --- Formats ---


def test_json_access_lines_have_the_names_of_the_contract() -> None:
    line = line_of(ACCESS)
    del line["time"]
    assert line == {
        "severity": "INFO", "message": "GET /v1/auth/me 200", "logger": "berth.access", "type": "access",
        "method": "GET", "route": "/v1/auth/me", "path": "/v1/auth/me", "status": 200, "duration_ms": 123.0,
        "request_bytes": 0, "response_bytes": 219, "client": "203.0.113.7", "user_agent": "curl/8.5",
    }  # fmt: skip


def test_gcp_access_lines_have_cloud_loggings_special_fields() -> None:
    line = line_of(
        f"{REQUEST}\nlogs.name_user('account_id', 'account-1')\n{ACCESS}", log_format="gcp", project="harbour"
    )
    del line["time"]
    assert line == {
        "severity": "INFO", "message": "GET /v1/auth/me 200", "logger": "berth.access", "type": "access",
        "logging.googleapis.com/trace": "projects/harbour/traces/0af7651916cd43dd8448eb211c80319c",
        "logging.googleapis.com/spanId": "b7ad6b7169203331", "logging.googleapis.com/trace_sampled": True,
        "logging.googleapis.com/labels": {"type": "access", "account_id": "account-1"},
        "request_id": "request-1", "account_id": "account-1", "route": "/v1/auth/me",
        "httpRequest": {
            "requestMethod": "GET", "requestUrl": "/v1/auth/me", "status": 200, "requestSize": "0",
            "responseSize": "219", "userAgent": "curl/8.5", "remoteIp": "203.0.113.7", "latency": "0.123s",
        },
    }  # fmt: skip


def test_gcp_lines_name_the_bare_trace_when_the_project_is_unknown() -> None:
    line = line_of(f"{REQUEST}\nlog.info('x')", log_format="gcp")
    assert line["logging.googleapis.com/trace"] == "0af7651916cd43dd8448eb211c80319c"


def test_ecs_access_lines_have_elastics_names() -> None:
    line = line_of(f"{REQUEST}\nlogs.name_user('account_id', 'account-1')\n{ACCESS}", log_format="ecs")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("@timestamp"))
    assert line == {
        "log.level": "info", "message": "GET /v1/auth/me 200", "ecs.version": "8.11.0", "log.logger": "berth.access",
        "service.name": "berth", "event.dataset": "berth.access", "trace.id": "0af7651916cd43dd8448eb211c80319c",
        "span.id": "b7ad6b7169203331", "http.request.id": "request-1", "user.id": "account-1",
        "http.request.method": "GET", "http.response.status_code": 200, "url.path": "/v1/auth/me",
        "http.request.body.bytes": 0, "http.response.body.bytes": 219, "client.address": "203.0.113.7",
        "client.ip": "203.0.113.7", "user_agent.original": "curl/8.5", "event.duration": 123_000_000,
        "berth.route": "/v1/auth/me",
    }  # fmt: skip


def test_ecs_lines_give_a_client_that_is_no_ip_address_as_an_address_only() -> None:
    line = line_of(ACCESS.replace("203.0.113.7", "unix"), log_format="ecs")
    assert line["client.address"] == "unix"
    assert "client.ip" not in line


def test_ecs_lines_take_an_exception_apart() -> None:
    line = line_of("try:\n    int('x')\nexcept ValueError:\n    log.exception('no')", log_format="ecs")
    assert line["error.type"] == "ValueError"
    assert line["error.message"] == "invalid literal for int() with base 10: 'x'"
    assert line["error.stack_trace"].startswith("Traceback")


@pytest.mark.parametrize("log_format", ["json", "gcp", "ecs"])
def test_an_access_line_with_fields_of_the_wrong_kind_is_still_written(log_format: str) -> None:
    line = line_of(ACCESS.replace("123.0", "'soon'"), log_format=log_format)
    assert line["message"] == "GET /v1/auth/me 200"


ACCESS_RECORD = """
from infra.logs.formats import AccessLine, AccessRecord
context = logs.request_context.get()
line = AccessLine(
    "2026-01-02T03:04:05.678Z", "INFO", "GET /v1/auth/me 200", "service.access", "access",
    context.trace_id, context.span_id, context.request_id,
    "GET", "/v1/auth/me", "/v1/auth/me", 200, 123.0, 0, 219, "203.0.113.7", "curl/8.5")
logs.get_logger("access").callHandlers(AccessRecord(line, outside="curl/8.5"))
"""


@pytest.mark.parametrize("log_format", ["json", "gcp", "ecs", "console"])
def test_an_access_record_gives_the_line_that_an_ordinary_one_gives(log_format: str) -> None:
    done = run(f"{REQUEST}logs.name_user('account_id', 'account-1')\n{ACCESS}{ACCESS_RECORD}", log_format=log_format)
    ordinary, plain = TIME.sub("*", done.stdout).splitlines()
    assert plain == ordinary
    assert "/v1/auth/me" in plain


@pytest.mark.parametrize("log_format", ["json", "gcp", "ecs"])
@pytest.mark.parametrize(
    "agent", [JWT, "bearer abcdef", REFRESH, f"the {SECRET}", "\ud800", "\x1b\u202e", "x" * 20_000]
)
def test_what_is_outside_of_an_access_record_is_looked_through_like_an_ordinary_line(
    log_format: str, agent: str
) -> None:
    code = f"{REQUEST}{ACCESS_RECORD}{ACCESS}".replace("'curl/8.5'", repr(agent)).replace('"curl/8.5"', repr(agent))
    plain, ordinary = TIME.sub("*", run(code, log_format=log_format, secrets=[SECRET]).stdout).splitlines()
    assert plain == ordinary
    assert agent not in plain
    assert len(plain.encode()) < MAX_BYTES


HELLO = "logs.get_logger('audit').error('hello', extra={'rows': 3, 'name_of': 'a b'})"


def on_a_terminal(arguments: list[str], **env: str) -> str:
    """The first line that a terminal gets."""
    terminal, stdout = pty.openpty()
    with subprocess.Popen(arguments, cwd=ROOT, env=clean_environment(env), stdout=stdout):
        os.close(stdout)
        line = os.read(terminal, 4096).decode()
    os.close(terminal)
    return line


def test_console_lines_have_time_severity_type_message_and_extras() -> None:
    done = run(HELLO, log_format="console")
    assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{3} ERROR    audit hello rows=3 name_of="a b"\n', done.stdout)


def test_console_lines_on_a_terminal_are_coloured() -> None:
    line = on_a_terminal(command(HELLO, log_format="console"))
    shown = r"\S+ \x1b\[31mERROR   \x1b\[0m \x1b\[36maudit\x1b\[0m hello \x1b\[2mrows=3 .*\x1b\[0m\r\n"
    assert re.fullmatch(shown, line)


def test_console_lines_on_a_terminal_are_plain_with_no_color() -> None:
    env = {
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": "1",
        "STARTUP_TIMEOUT": "0.01",
        "SECRET_KEY": "k" * 32,
        "NO_COLOR": "1",
    }
    line = on_a_terminal([sys.executable, "app.py"], SYS_ENV="test", LOG_FORMAT="console", PORT=str(free_port()), **env)
    assert re.match(r"\S+ (INFO|WARNING|CRITICAL) +berth.system ", line)


def test_console_lines_leave_out_extras_that_the_message_says() -> None:
    line = formatted("GET /x 404", extra={"method": "GET", "status": 404, "client": "::1"}, log_format="console")
    assert line.endswith(" GET /x 404 client=::1")


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        ("word " * 100, {}),
        ("x" * 1000, {"path": "/" + "y" * 300}),
        ("short", {f"field_{number}": "value" for number in range(30)}),
        ("m" * 60, {"cause": "c d " * 50}),
        ("", {"a": "b" * 200}),
    ],
)
def test_console_lines_have_120_columns_at_most_and_lose_nothing(message: str, extra: dict[str, str]) -> None:
    first, *more = formatted(message, extra=extra, log_format="console").split("\n")
    assert more
    assert all(len(line) <= 120 for line in (first, *more))
    assert all(line.startswith("    ") for line in more)
    shown = re.sub(r"\s", "", "".join([first, *more]))
    for text in (message, *extra, *extra.values()):
        assert re.sub(r"\s", "", text) in shown


def test_what_fits_on_a_console_line_stays_on_it() -> None:
    room = 120 - len(formatted("", log_format="console").rstrip() + " m a=")
    assert "\n" not in formatted("m", extra={"a": "x" * room}, log_format="console")
    assert formatted("m", extra={"a": "x" * (room + 1)}, log_format="console").count("\n") == 1


def test_a_long_traceback_line_on_the_console_has_120_columns_at_most() -> None:
    done = run("try:\n    raise OSError('word ' * 100)\nexcept OSError:\n    log.exception('y')", log_format="console")
    assert all(len(line) <= 120 for line in done.stdout.splitlines())
    assert done.stdout.count("word") >= 100


@pytest.mark.parametrize("path", ["/v1/auth/me", "/" + "x" * 4000])
def test_an_access_line_on_the_console_is_one_line_with_method_and_status(path: str) -> None:
    code = f"{REQUEST}{ACCESS_RECORD}".replace("/v1/auth/me", path)
    [line] = run(code, log_format="console").stdout.splitlines()
    assert len(line) <= 120
    assert re.search(r" access GET /\S+ 200 duration_ms=\S+ response_bytes=\d+ client=\S+$", line)


def test_console_lines_escape_what_a_terminal_would_obey() -> None:
    line = formatted("a\nb\r\x1b]0;x\x07\x9b31m\x7f\u2028\u202e", extra={"k\n": "v\x1b"}, log_format="console")
    assert line.isprintable()
    assert r"a\nb\r\x1b]0;x\x07\x9b31m\x7f\u2028\u202e k\n=" in line


def test_a_traceback_on_the_console_is_indented_below_its_line() -> None:
    done = run(
        "try:\n    raise OSError('x\\nERROR forged\\x1b[2J')\nexcept OSError:\n    log.exception('y')",
        log_format="console",
    )
    first, *rest = done.stdout.splitlines()
    assert "Traceback" not in first
    assert r"    ERROR forged\x1b[2J" in rest
    assert all(line.startswith("    ") for line in rest)


def test_control_characters_are_escaped_in_json() -> None:
    line = formatted("a\nb\x1b\x7f\x9b\u2028\u202e")
    assert line.isprintable()
    assert json.loads(line)["message"] == "a\nb\x1b\x7f\x9b\u2028\u202e"


# --- Records that break other loggers ---


class Raises:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class BadDict(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no")


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def cyclic() -> list[Any]:
    itself: list[Any] = []
    itself.extend([itself] * 1000)
    return itself


# A message, its arguments and extras.
BROKEN: dict[str, tuple[Any, tuple[Any, ...], dict[Any, Any]]] = {
    "arguments that do not fit": ("%d items", ("x",), {}),
    "too many arguments": ("x", (1, 2), {}),
    "a message whose str raises": (Raises(), (), {}),
    "an argument whose str raises": ("%s", (Raises(),), {}),
    "an extra whose str and repr raise": ("x", (), {"a": Raises()}),
    "a mapping that raises": ("x", (), {"a": BadDict(a=1)}),
    "a cyclic list": ("x", (), {"a": cyclic()}),
    "nesting": ("x", (), {"a": nested(50_000)}),
    "nesting that only just works": ("x", (), {"a": nested(200)}),
    "a lone surrogate": ("x \ud800", (), {"a": "\udfff", "b": ["\ud800"], "\ud800": 1}),
    "bytes": ("x", (), {"a": b"\xff\x00", "b": bytearray(b"x"), "c": [memoryview(b"x")]}),
    "a huge number": ("x", (), {"a": 2**64, "b": 10**5000, "c": -(2**70)}),
    "no number": ("x", (), {"a": float("nan"), "b": [float("inf")]}),
    "keys that are no strings": ("x", (), {"a": {(1, 2): {None: 3}}}),
    "5,000 extras": ("x", (), {f"field_{n}": n for n in range(5000)}),
    "5,000 extras of 1 KB": ("x", (), {f"field_{n}": "y" * 1000 for n in range(5000)}),
    "100,000 numbers": ("x", (), {"a": list(range(100_000))}),
    "a long name": ("x", (), {"n" * 100_000: 1}),
    "odd objects": ("x", (), {"a": object(), "b": {1, 2}, "c": ValueError("v"), "d": int, "e": ...}),
}


@pytest.mark.parametrize("log_format", ["json", "gcp", "ecs"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_record_that_breaks_other_loggers_gives_a_line(name: str, log_format: str) -> None:
    message, args, extra = BROKEN[name]
    assert json.loads(formatted(message, *args, extra=extra, log_format=log_format))["message"]


def test_numbers_of_more_than_64_bits_are_strings_because_collectors_refuse_them() -> None:
    line = json.loads(formatted("x", extra={"a": 2**64, "b": 2**64 - 1, "c": [-(2**63) - 1]}))
    assert (line["a"], line["b"], line["c"]) == (str(2**64), 2**64 - 1, [str(-(2**63) - 1)])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.characters(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
)
names = st.text().filter(
    lambda name: name not in logging.makeLogRecord({}).__dict__ and name not in ("message", "asctime")
)


@settings(deadline=None, max_examples=100)
@given(
    st.text(st.characters()) | st.text().map(lambda text: text * 3000),
    st.dictionaries(names, anything | st.text().map(lambda text: text * 3000)),
    st.sampled_from(["json", "gcp", "ecs"]),
)
def test_any_message_and_extras_give_one_valid_line_under_16_kib(message: str, extra: Any, log_format: str) -> None:
    line = formatted(message, extra=extra, log_format=log_format, secrets=["12345678", "nnnnnnnn", "0, 0, 0,"])
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)
    fields = json.loads(line)
    assert fields["message"] == message.encode("utf-8", "backslashreplace").decode() or len(line) > 400


# --- Length ---


def test_the_longest_field_is_cut_and_the_others_stay_whole() -> None:
    line = json.loads(formatted("m" * 5000, extra={"long": "l" * 40_000, "short": "s" * 3000}))
    assert line["truncated"] is True
    assert (line["message"], line["short"]) == ("m" * 5000, "s" * 3000)
    assert re.fullmatch(r"l{5000,}\.\.\.", line["long"])


@pytest.mark.parametrize("character", ["x", "\x00", "漢", "🚢"])
def test_a_long_message_is_cut_whatever_its_characters_take(character: str) -> None:
    line = formatted(character * 100_000)
    assert len(line.encode()) > MAX_BYTES // 2
    assert json.loads(line)["message"].rstrip(".").strip(character) == ""


@pytest.mark.parametrize("length", range(16_200, 16_400, 25))
def test_a_line_is_cut_only_when_it_has_to_be(length: int) -> None:
    line = formatted("x" * length)
    whole = len(formatted("")) + length
    assert ("truncated" in line) is (whole >= MAX_BYTES - 1)


def test_a_long_path_and_user_agent_are_cut_inside_cloud_loggings_request() -> None:
    long = ACCESS.replace("curl/8.5", "u" * 30_000).replace('"path": "', '"path": "' + "p" * 30_000)
    line = line_of(long, log_format="gcp")
    assert line["truncated"] is True
    assert line["httpRequest"]["status"] == 200
    assert len(line["httpRequest"]["requestUrl"]) > 4000
    assert len(line["httpRequest"]["userAgent"]) > 4000


def test_a_long_traceback_keeps_both_ends() -> None:
    code = "def a(n):\n    return b(n)\ndef b(n):\n    if n: return a(n - 1)\n    raise OSError('the cause')\n"
    line = line_of(f"{code}try:\n    a(400)\nexcept OSError:\n    log.exception('x')")
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith("OSError: the cause")
    assert line["truncated"] is True


def test_of_too_many_extras_the_first_are_kept() -> None:
    line = json.loads(formatted("x" * 400, extra={f"field_{n}": n for n in range(5000)}))
    assert line["truncated"] is True
    assert line["message"] == "x" * 400
    assert len(line) > 900


def test_a_field_that_no_cut_makes_short_enough_goes_and_the_others_stay() -> None:
    line = json.loads(formatted("x", extra={"tree": {f"k{n}": [n, str(n)] for n in range(2000)}, "after": 1}))
    assert (line["truncated"], line["after"]) == (True, 1)
    assert "tree" not in line


# --- Secrets ---

TOKENS = [
    JWT,
    REFRESH,
    f"Bearer {JWT[:20]}",
    "bearer abc.DEF-123",
    f"Basic {base64.b64encode(b'a:bcd').decode()}",
    SECRET,
]
PLACES = {
    "message": "log.info('with ' + S + ' in it')",
    "argument": "log.info('with %s and %r', S, {'inner': S})",
    "extra": "log.info('x', extra={'a': S, S: 1, 'b': [{'c': (S, {S: 1})}]})",
    "bytes": "log.info('x', extra={'a': S.encode(), 'b': [bytearray(S.encode())]})",
    "an object's repr": "log.info('x', extra={'a': type('T', (), {'__repr__': lambda self: repr(S)})()})",
    "JSON in the message": "log.info(json.dumps({'a': S})); log.info(json.dumps({'a': S}, ensure_ascii=False))",
    "exception": "try:\n    raise ValueError(S)\nexcept ValueError:\n    log.exception('x', stack_info=True)",
    "repr of an exception": "log.info('%r', ValueError(S))",
    "crash": "t = threading.Thread(target=lambda: {}[S]); t.start(); t.join()",
    "warning": "warnings.warn(S)",
    "logger's name": "logs.get_logger(S).info('x')",
    "request id": f"{REQUEST}\ncontext.request_id = S; log.info('x')",
    "another library's line": "logging.getLogger('uvicorn.error').error(S)",
    "percent-encoded": "log.info('mysql://u:%s@h %s', quote(S, safe=''), quote(S, safe=''))",
    "after a control character": "log.info('\\n' + S + '\\b' + S + '\\t' + S)",
}


def shown(text: str, secret: str) -> bool:
    bare = secret.split(" ", 1)[1] if secret.lower().startswith(("basic ", "bearer ")) else secret
    ways = {bare, json.dumps(bare)[1:-1], quote(bare, safe=""), json.dumps(bare, ensure_ascii=False)[1:-1]}
    return any(way in text or way in text.replace("\\\\", "\\") for way in ways)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_comes_out_wherever_it_is_put(log_format: str) -> None:
    code = f"""
        for put in {list(PLACES.values())}:
            log.info("the next place")
            for S in {TOKENS}: exec(put)
    """
    done = run(code, log_format=log_format, secrets=[SECRET])
    assert [secret for secret in TOKENS if shown(done.stdout, secret)] == []
    parts = done.stdout.split("the next place")[1:]
    assert [place for place, part in zip(PLACES, parts, strict=True) if part.count("***") < len(TOKENS)] == []
    assert log_format == "console" or all(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    "name", ["password", "current_password", "new_password", "token", "access_token", "refresh_token", "Authorization",
             "secret", "cookie", "set-cookie", "MYSQL_PASSWORD", "SECRET_KEY", "METRICS_TOKEN"],
)  # fmt: skip
def test_an_extra_with_the_name_of_a_secret_is_blotted_out_at_any_depth(name: str) -> None:
    headers = [(name.encode(), b"hunter2"), (b"host", b"x")]
    line = formatted("x", extra={name: "hunter2", "body": {"inner": [{name: ["hunter2"]}]}, "headers": headers})
    assert "hunter2" not in line
    assert json.loads(line)["headers"] == [[name, "***"], ["host", "x"]]


def test_a_struct_or_dataclass_does_not_show_its_password() -> None:
    line = line_of("""
        import dataclasses, msgspec
        class Login(msgspec.Struct):
            login: str
            password: str
        @dataclasses.dataclass
        class Change:
            new_password: str
        log.info("x", extra={"body": Login("ada", "hunter2"), "change": [Change("hunter2")]})
    """)
    assert (line["body"], line["change"]) == ({"login": "ada", "password": "***"}, [{"new_password": "***"}])


@pytest.mark.parametrize("secret", [JWT, REFRESH, SECRET])
def test_a_cut_leaves_no_half_of_a_secret(secret: str) -> None:
    half = json.dumps(secret[len(secret) // 4 : len(secret) // 2 + 4], ensure_ascii=False)[1:-1]
    for before in range(CUTS[0] - 130, CUTS[0] + 20):
        for line in (
            formatted("x" * before + secret + "y" * 6000, secrets=[SECRET]),
            formatted("x", extra={"a": {"b": "x" * before + secret + "y" * 6000}}, secrets=[SECRET]),
        ):
            assert half not in line
            assert json.loads(line)


def test_half_a_token_is_hidden_too() -> None:
    line = formatted(f"{JWT[:30]} {JWT[:20]} {REFRESH[:30]}")
    assert json.loads(line)["message"] == "*** *** ***"


@pytest.mark.parametrize("text", ["eyJ" * 5400, "eyJ." * 4000, "brt_" * 4000, "bearer" + " " * 16_000, "basic+" * 2700])
def test_looking_for_secrets_in_hostile_text_takes_no_time(text: str) -> None:
    before = time.process_time()
    formatted(text)
    assert time.process_time() - before < 0.1


def test_plain_prose_is_left_alone() -> None:
    text = "the bearer token is missing; basic authentication is off; Bearer auth. eyJ brt_short taken***"
    assert json.loads(formatted(text, secrets=["", "short"]))["message"] == text


@pytest.mark.parametrize("secret", ["nabcdefgh", "1,2,3,4,5", "null,null", "true,false"])
def test_a_secret_that_looks_like_json_does_not_break_the_line(secret: str) -> None:
    extra = {
        "a": 12345678,
        "b": [1, 2, 3, 4, 5, None, None, True, False],
        "c": "\nabcdefgh",
        "d": secret,
        "e": -123456789.5,
    }
    line = json.loads(formatted("x", extra=extra, secrets=[secret]))
    assert (line["message"], line["d"]) == ("x", "***")


# --- The writer ---

STALL = """
def fill(size):
    slowest = 0
    for _ in range(size // 1000):
        start = time.perf_counter()
        log.info("x" * 850)
        slowest = max(slowest, time.perf_counter() - start)
    return slowest
"""


def start(code: str, **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
    return subprocess.Popen(command(STALL + dedent(code), **options), cwd=ROOT, bufsize=0, **pipes)  # type: ignore[call-overload,no-any-return]


def said(process: subprocess.Popen[bytes]) -> str:
    """What a process says on stderr, where these tests let it speak while nobody reads its stdout."""
    assert process.stderr
    assert select.select([process.stderr], [], [], 30)[0], "the process is stuck"
    return process.stderr.readline().decode().strip()


def ended(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    return [json.loads(line) for line in out.splitlines()]


def test_while_nobody_reads_stdout_logging_and_the_event_loop_go_on() -> None:
    process = start("""
        async def tick(gaps):
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                gaps.append(time.perf_counter() - before)
        async def main():
            gaps = []
            ticker = asyncio.create_task(tick(gaps))
            calls = []
            for _ in range(200):
                calls.append(fill(100_000))
                await asyncio.sleep(0)
            print(max(calls), max(gaps), file=sys.stderr)
        asyncio.run(main())
        sys.stdin.read()
    """)
    slowest_call, longest_gap = map(float, said(process).split())
    assert slowest_call < 0.5
    assert longest_gap < 1
    ended(process)


def test_when_stdout_moves_again_a_line_says_how_many_were_dropped_and_no_error_was() -> None:
    process = start("""
        fill(12_000_000)
        for number in range(100): log.error("error %d", number)
        print(logs.dropped_lines(), file=sys.stderr)
        sys.stdin.readline()
        log.info("after")
        log.info("last")
    """)
    counted = int(said(process))
    time.sleep(0.2)  # as a collector that stands still would
    assert process.stdin
    process.stdin.write(b"\n")
    lines = ended(process)
    dropped = [line for line in lines if "dropped" in line]
    fillers = sum(line["message"].startswith("xxx") for line in lines)
    late = sum(line["message"] in ("after", "last") for line in lines)
    assert [line["message"] for line in lines if line["severity"] == "ERROR"] == [f"error {n}" for n in range(100)]
    assert {(line["severity"], line["type"]) for line in dropped} == {("WARNING", "system")}
    assert fillers + late + sum(line["dropped"] for line in dropped) == 12_000 + 2
    assert counted == 12_000 - fillers, "what the metric tells"
    assert lines.index(dropped[0]) < 1000, "told as soon as it moved, not after all that was queued"
    assert 8_000 < fillers < 9_500, "8 MiB are kept"


def test_errors_too_are_dropped_and_counted_when_their_own_room_is_full() -> None:
    process = start("""
        fill(12_000_000)
        for _ in range(3000): log.error("e" * 850)
        print("full", file=sys.stderr)
        sys.stdin.readline()
    """)
    assert said(process) == "full"
    lines = ended(process)
    assert sum(line["severity"] == "ERROR" for line in lines) in range(1000, 1200)
    assert sum(line.get("dropped", 0) for line in lines) + sum("dropped" not in line for line in lines) == 15_000


@pytest.mark.parametrize(("flood", "kept"), [("log.error", "audit.info"), ("audit.info", "log.error")])
def test_errors_and_audit_lines_have_each_a_room_that_the_others_do_not_take(flood: str, kept: str) -> None:
    process = start(f"""
        audit = logs.get_logger("audit")
        fill(12_000_000)
        for _ in range(3000): {flood}("f" * 850)
        for number in range(100): {kept}("kept %d", number)
        print("full", file=sys.stderr)
        sys.stdin.readline()
    """)
    assert said(process) == "full"
    messages = [line["message"] for line in ended(process)]
    assert [text for text in messages if text.startswith("kept")] == [f"kept {number}" for number in range(100)]
    assert messages.index("kept 0") < 4000, "before the 8,000 lines that waited already"


def test_a_flood_that_the_collector_is_too_slow_for_costs_no_audit_line() -> None:
    """A collector that takes 0.5 MB/s of some 20; the queue is smaller than it is, so that it is full in no time."""
    process = start(
        """
        audit = logs.get_logger("audit")
        for number in range(300):
            fill(100_000)
            audit.info("audit %d", number, extra={"event": "login.succeeded"})
            time.sleep(0.005)
        print(logs.dropped_lines(), file=sys.stderr)
        """,
        before="from infra.logs import writer; writer.QUEUE_BYTES = 300_000",
    )
    assert process.stdout
    read = bytearray()
    while part := os.read(process.stdout.fileno(), 10_000):
        read += part
        time.sleep(0.02)
    assert int(said(process)) > 10_000
    lines = [json.loads(line) for line in read.splitlines()]
    kept = [line["message"] for line in lines if line["type"] == "audit"]
    assert sorted(kept) == sorted(f"audit {n}" for n in range(300))  # those in the room may overtake one before them
    process.communicate(timeout=30)


def test_a_line_is_written_without_waiting_for_more() -> None:
    process = start("log.info('x')\nsys.stdin.read()")
    assert process.stdout
    assert select.select([process.stdout], [], [], 10)[0]
    assert json.loads(process.stdout.readline())["message"] == "x"
    ended(process)


def test_what_is_written_makes_room_for_more() -> None:
    lines = lines_of(f"{STALL}\nfor _ in range(12): fill(1_000_000); writer.flush(10)")
    assert len(lines) == 12_000


def test_under_load_lines_are_written_without_the_thread() -> None:
    """Which a busy event loop would keep from running, until the queue is full."""
    process = start(
        "log.info('first'); writer.flush(10)\nfor _ in range(10): fill(20_000); sys.stdin.readline()",
        before="from infra.logs import writer; writer.PAUSE = 3600; writer.QUEUE_BYTES = 100_000",
    )
    assert process.stdout
    assert process.stdin
    read = process.stdout.readline()
    for _ in range(10):
        assert select.select([process.stdout], [], [], 10)[0]
        read += os.read(process.stdout.fileno(), 100_000)
        process.stdin.write(b"\n")
    rest, _ = process.communicate(timeout=30)
    assert [json.loads(line)["message"] for line in (read + rest).splitlines()] == ["first"] + ["x" * 850] * 200


def test_stdout_stays_blocking_for_others_that_have_it() -> None:
    done = run("fill(100_000)\nprint(os.get_blocking(1), file=sys.stderr)", before=STALL)
    assert done.stderr == "True\n"


def test_a_file_as_stdout_gets_every_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        code = f"{STALL}\nfill(3_000_000)"
        subprocess.run(command(code), cwd=ROOT, stdout=file, timeout=30, check=True)
    assert len(path.read_text().splitlines()) == 3000


def test_lines_come_out_in_their_order() -> None:
    lines = lines_of("for number in range(20_000): log.info('%d', number)")
    assert [line["message"] for line in lines] == [str(number) for number in range(20_000)]


def test_lines_of_many_threads_stay_whole() -> None:
    lines = lines_of("""
        def work(): [log.info("y" * 5000) for _ in range(200)]
        threads = [threading.Thread(target=work) for _ in range(8)]
        [thread.start() for thread in threads]
    """)
    assert [line["message"] for line in lines] == ["y" * 5000] * 1600


def test_what_is_queued_is_written_at_exit() -> None:
    assert len(lines_of("for _ in range(5000): log.info('x')\nsys.exit(7)", status=7)) == 5000


def test_an_exit_waits_only_so_long_for_a_collector_that_stands_still() -> None:
    process = start("fill(1_000_000)\nprint('full', file=sys.stderr)")
    assert said(process) == "full"
    before = time.monotonic()
    assert process.wait(timeout=30) == 0
    assert 1 < time.monotonic() - before < 4
    process.communicate()


def test_flush_says_whether_it_could() -> None:
    assert run("log.info('x'); sys.exit(0 if writer.flush(5) else 1)").returncode == 0
    process = start("fill(1_000_000)\nprint(writer.flush(0.1), file=sys.stderr)\nsys.stdin.read()")
    assert said(process) == "False"
    ended(process)


def test_a_stdout_that_is_non_blocking_loses_nothing() -> None:
    process = start("os.set_blocking(1, False)\nfill(3_000_000)\nprint('done', file=sys.stderr)\nsys.stdin.read()")
    assert said(process) == "done"
    assert len(ended(process)) == 3000


@pytest.mark.parametrize("code", ["os.close(1)", "r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w)"])
def test_a_stdout_that_is_gone_stops_nothing(code: str) -> None:
    done = run(f"{STALL}\n{code}\nfill(20_000_000)\nwriter.flush(5) or sys.exit('stuck')\nlog.info('x')")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_nobody_reads_any_more_loses_lines_and_counts_each() -> None:
    code = "os.close(r); fill(100_000); writer.flush(5); print(logs.dropped_lines(), file=sys.stderr)"
    done = run(f"{STALL}\n{code}", before="r, w = os.pipe(); os.dup2(w, 1); os.close(w)")
    assert done.stderr == "100\n"


def test_a_full_disk_loses_lines_and_counts_them() -> None:
    code = """
        for _ in range(10): log.info("x")
        writer.flush(5)
        os.dup2(saved, 1)
        log.info("y")
    """
    lines = lines_of(code, before="saved = os.dup(1); os.dup2(os.open('/dev/full', os.O_WRONLY), 1)")
    assert [line.get("dropped", line["message"]) for line in lines] == ["y", 10]


def test_logging_from_a_signal_handler_and_a_finalizer_does_not_deadlock() -> None:
    lines = lines_of("""
        class Noisy:
            def __init__(self): self.me = self
            def __del__(self): log.info("finalizer")
            def __str__(self): log.info("inner"); return "outer"
        signal.signal(signal.SIGALRM, lambda *_: log.info("signal"))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            Noisy()
            log.info("%s", Noisy())
        signal.setitimer(signal.ITIMER_REAL, 0)
        log.error("end")  # which has room of its own
    """)
    assert {line["message"] for line in lines if "dropped" not in line} >= {"finalizer", "inner", "outer", "signal"}
    assert "end" in {line["message"] for line in lines}


# --- Nothing else on stdout and stderr ---


def test_a_crash_is_one_critical_line() -> None:
    line = line_of("raise OSError('the cause')", status=1)
    assert (line["severity"], line["type"]) == ("CRITICAL", "system")
    assert line["exception"].endswith("OSError: the cause")


def test_a_crash_writes_first_what_was_queued() -> None:
    lines = lines_of("for _ in range(5000): log.info('x')\n1 / 0", status=1)
    assert Counter(line["severity"] for line in lines) == {"INFO": 5000, "CRITICAL": 1}  # which may go first


def test_an_interrupt_is_no_crash() -> None:
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in a shell's background has it ignored
log.info('x')
os.kill(os.getpid(), signal.SIGINT)
time.sleep(5)
"""
    lines = lines_of(code, status=-signal.SIGINT)
    assert [line["message"] for line in lines] == ["x"]


def test_a_crash_of_a_thread_is_one_critical_line() -> None:
    line = line_of("threading.Thread(target=lambda: 1 / 0).start()")
    assert (line["severity"], line["message"]) == ("CRITICAL", "uncaught ZeroDivisionError")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_an_exception_in_a_finalizer_is_one_error_line() -> None:
    line = line_of("class A:\n    def __del__(self): 1 / 0\nA()")
    assert line["severity"] == "ERROR"
    assert line["message"].startswith("exception ignored in <function A.__del__")
    assert "ZeroDivisionError" in line["exception"]


def test_an_exception_that_no_task_took_is_one_error_line() -> None:
    line = line_of("""
        async def fail(): 1 / 0
        async def main():
            asyncio.create_task(fail())
            await asyncio.sleep(0.1)
        asyncio.run(main())
    """)
    assert (line["severity"], line["logger"]) == ("ERROR", "asyncio")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_a_warning_is_one_line() -> None:
    line = line_of("warnings.warn('old', DeprecationWarning)", before="warnings.simplefilter('always')")
    assert (line["severity"], line["logger"]) == ("WARNING", "py.warnings")
    assert re.fullmatch(r"DeprecationWarning: old \(<string>:\d+\)", line["message"])


def test_the_handlers_of_uvicorn_and_of_others_are_replaced() -> None:
    before = """
        import logging.config, uvicorn.config
        logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG)
        logging.basicConfig()
    """
    code = """
        logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "Started"})
        logging.getLogger("uvicorn.access").info("GET / 200")
        log.info("x")
    """
    assert [line["message"] for line in lines_of(code, before=before)] == ["Started", "x"]


def test_the_arguments_of_queries_never_show_even_at_debug() -> None:
    code = """
        for name in ("databases", "aiomysql", "aiosqlite", "sqlalchemy.engine"):
            logging.getLogger(name).debug("Query: %s Args: %s", "SELECT", ("hash",))
            logging.getLogger(name).info("Query: %s Args: %s", "SELECT", ("hash",))
        logging.getLogger("coredis").critical("x")
        log.debug("mine")
    """
    assert [line["message"] for line in lines_of(code, level="DEBUG")] == ["mine"]


def test_a_level_above_warning_holds_for_the_libraries_too() -> None:
    code = "[logging.getLogger(name).warning('x') for name in ('databases', 'asyncio', 'uvicorn.error', 'berth.x')]"
    assert lines_of(code, level="error") == []


def test_configuring_again_replaces_the_first_time() -> None:
    again = "logs.configure(service='berth', level='DEBUG', log_format='gcp')"
    lines = lines_of(f"for _ in range(5000): log.info('a')\n{again}\nlog.debug('b')")
    assert [line["message"] for line in lines] == ["a"] * 5000 + ["b"], "the first writer is done before the second"


def test_a_line_can_go_to_another_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("wb") as file:
        done = subprocess.run(
            command("log.info('x')", fd=file.fileno()),
            cwd=ROOT,
            pass_fds=[file.fileno()],
            capture_output=True,
            check=True,
        )
    assert done.stdout == b""
    assert os.stat(tmp_path / "lines").st_size > 50  # noqa: PTH116
