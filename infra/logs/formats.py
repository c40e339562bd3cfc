"""What a log line holds: one record as fields named for plain JSON, Cloud Logging, Elastic, or as text for people."""

import logging
import re
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import msgspec
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.msgspec import MsgspecFormatter

from infra.logs.context import request_context
from infra.logs.safety import CONTROLS, Redactor, as_text, fit, plain, to_json, utf8

OWN_LOGGERS = "service."  # how the names of this service's own loggers begin, whatever it is called

Fields = dict[str, Any]
Layout = Callable[[Fields, logging.LogRecord], Fields]  # from the names of plain JSON to those of a format


class AccessLine(msgspec.Struct, gc=False):
    """An access line, named and ordered as in plain JSON."""

    time: str
    severity: str
    message: str
    logger: str
    type: str
    trace_id: str
    span_id: str
    request_id: str
    method: str
    route: str | None
    path: str
    status: int
    duration_ms: float
    request_bytes: int
    response_bytes: int
    client: str | None
    user_agent: str


class AccessRecord(logging.LogRecord):
    """Of an access line.

    LogRecord's own start looks for file, thread and process, too, and takes as long as all the rest of an access line.
    `outside` holds all that a client has sent of what the line says, and no more of the line is searched for secrets.
    """

    args = exc_info = exc_text = stack_info = None
    pathname = filename = module = funcName = processName = threadName = taskName = ""  # noqa: N815 - LogRecord's names
    lineno = process = thread = 0
    relativeCreated = 0.0  # noqa: N815
    levelno, levelname = logging.INFO, "INFO"

    def __init__(self, line: AccessLine, outside: str) -> None:
        self.created = time.time()
        self.msecs = self.created % 1 * 1000
        self.name = line.logger
        self.msg = self.message = line.message
        self.line = line
        self.outside = outside


class JsonLines(MsgspecFormatter):
    """python-json-logger, with fields of our own, and a line whatever the record holds."""

    def __init__(self, service: str, layout: Layout, redactor: Redactor) -> None:
        super().__init__(reserved_attrs=[*RESERVED_ATTRS, "taskName", "color_message"])
        self.service = service
        self.layout = layout
        self.redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self.access_line(record) if isinstance(record, AccessRecord) else super().format(record)
        except Exception:  # noqa: BLE001 - arguments that don't fit, an extra that can't be read, a __str__ that raises
            bare = logging.LogRecord(record.name, record.levelno, "", 0, as_text(record.msg), None, record.exc_info)
            if isinstance(record, AccessRecord):
                own = self.own_fields(bare, "")
                fields = msgspec.to_builtins(record.line)
                bare.__dict__.update({name: value for name, value in fields.items() if name not in own})
            return super().format(bare)

    def access_line(self, record: AccessRecord) -> str:
        line, user = record.line, user_field()
        line.logger = shown_name(self.service, record.name)
        if self.layout is not as_json:
            fields = self.layout(msgspec.to_builtins(line) | user, record)
            return self.jsonify_log_record(fields, record.outside)
        text = to_json(line)
        if user:
            text = f"{text[:-1]},{to_json(user)[1:]}"
        return self.made_safe(text, record.outside)

    def add_fields(self, log_data: Fields, record: logging.LogRecord, message_dict: Fields) -> None:
        traces = [message_dict.pop(name) for name in ("exc_info", "stack_info") if name in message_dict]
        extras = message_dict | {n: value for n, value in record.__dict__.items() if n not in self.reserved_attrs}
        fields = self.own_fields(record, utf8(record.message or str(extras.pop("message", ""))))
        if traces:
            fields["exception"] = utf8("\n".join(traces))
        for name, value in extras.items():
            taken = name in fields or name in ("exception", "truncated")
            fields[f"extra_{utf8(name)}" if taken else utf8(name)] = plain(value, name)
        log_data.update(self.layout(fields | user_field(), record))

    def jsonify_log_record(self, log_data: Fields, outside: str | None = None) -> str:
        return self.made_safe(to_json(log_data), outside)

    def made_safe(self, line: str, outside: str | None) -> str:
        return fit(self.redactor.line(line, outside))

    def own_fields(self, record: logging.LogRecord, message: str) -> Fields:
        """What every line has, and within a request its ids."""
        fields = {
            "time": rfc3339(int(record.created * 1000 + 0.0005)),  # a float's .678 may be .67799999
            "severity": severity(record.levelno),
            "message": message,
            "logger": shown_name(self.service, record.name),
            "type": type_of_line(record.name),
        }
        if context := request_context.get():
            fields["trace_id"] = context.trace_id
            fields["span_id"] = context.span_id
            fields["request_id"] = context.request_id
        return fields


def user_field() -> dict[str, str]:
    """Who asks, at the end of a line; empty when that isn't known."""
    context = request_context.get()
    return {context.user.field: context.user.id} if context and context.user else {}


@lru_cache(maxsize=2)
def rfc3339(milliseconds: int) -> str:
    return f"{rfc3339_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=2)
def rfc3339_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=64)
def shown_name(service: str, logger: str) -> str:
    """Of this service's own loggers the service's name leads."""
    return f"{service}.{logger.removeprefix(OWN_LOGGERS)}" if logger.startswith(OWN_LOGGERS) else logger


@lru_cache(maxsize=64)
def type_of_line(logger: str) -> str:
    return logger.removeprefix(OWN_LOGGERS) if logger.startswith(OWN_LOGGERS) else "system"


@lru_cache(maxsize=64)
def severity(level: int) -> str:
    return str(logging.getLevelName(min(max(level // 10 * 10, logging.DEBUG), logging.CRITICAL)))


def as_json(fields: Fields, record: logging.LogRecord) -> Fields:
    return fields


HTTP_REQUEST = {
    "method": "requestMethod",
    "path": "requestUrl",
    "status": "status",
    "request_bytes": "requestSize",
    "response_bytes": "responseSize",
    "user_agent": "userAgent",
    "client": "remoteIp",
    "duration_ms": "latency",
}


def as_gcp(fields: Fields, record: logging.LogRecord, *, project: str | None) -> Fields:
    """https://cloud.google.com/logging/docs/structured-logging"""
    if context := request_context.get():
        del fields["trace_id"], fields["span_id"]
        prefix = f"projects/{project}/traces/" if project else ""
        fields["logging.googleapis.com/trace"] = prefix + context.trace_id
        fields["logging.googleapis.com/spanId"] = context.span_id
        fields["logging.googleapis.com/trace_sampled"] = context.sampled
    labels = {name: fields[name] for name in ("type", *user_field()) if name in fields}
    fields["logging.googleapis.com/labels"] = labels
    if fields["type"] == "access" and "duration_ms" in fields:
        request = {name: fields.pop(old) for old, name in HTTP_REQUEST.items()}
        for size in ("requestSize", "responseSize"):
            request[size] = str(request[size])  # 64-bit integers are strings in protobuf's JSON
        request["latency"] = f"{request['latency'] / 1000:.6f}".rstrip("0").rstrip(".") + "s"
        fields["httpRequest"] = request
    if "exception" in fields:
        fields["stack_trace"] = fields.pop("exception")  # the field that Error Reporting looks at first
    return fields


ECS = {
    "time": "@timestamp",
    "severity": "log.level",
    "message": "message",
    "logger": "log.logger",
    "trace_id": "trace.id",
    "span_id": "span.id",
    "request_id": "http.request.id",
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "request_bytes": "http.request.body.bytes",
    "response_bytes": "http.response.body.bytes",
    "user_agent": "user_agent.original",
    "client": "client.address",
    "event": "event.action",
    "exception": "error.stack_trace",
}


def as_ecs(fields: Fields, record: logging.LogRecord, *, service: str) -> Fields:
    """https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html; our own are under the service's name."""
    names = ECS | dict.fromkeys(user_field(), "user.id")
    named = {names.get(name, f"{service}.{name}"): value for name, value in fields.items() if name != "type"}
    named |= {"ecs.version": "8.11.0", "service.name": service, "event.dataset": f"{service}.{fields['type']}"}
    named["log.level"] = fields["severity"].lower()
    if "duration_ms" in fields:
        named["event.duration"] = round(named.pop(f"{service}.duration_ms") * 1_000_000)
    with suppress(KeyError, ValueError):  # Elasticsearch refuses a whole line over any other value
        named["client.ip"] = str(ip_address(fields["client"]))
    if record.exc_info and (error := record.exc_info[1]):
        named |= {"error.type": type(error).__name__, "error.message": as_text(error)}
    return named


COLOURS = {"DEBUG": 2, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 41}
OBEYED = f"[\0-\x1f]|{CONTROLS}"
BARE = r"[\w./:@+-]+"
COLUMNS, INDENT = 120, " " * 4
ACCESS_SHOWN = ("duration_ms", "response_bytes", "client")  # besides what the message says: it stays one line


class ConsoleLines(JsonLines):
    """The JSON line made readable, so what holds for that holds here: nothing secret, nothing that a terminal obeys."""

    def __init__(self, service: str, redactor: Redactor, *, colour: bool) -> None:
        super().__init__(service, as_json, redactor)
        self.colour = colour

    def made_safe(self, line: str, outside: str | None) -> str:
        return self.shown(msgspec.json.decode(super().made_safe(line, outside)))

    def shown(self, fields: Fields) -> str:
        names = ("time", "severity", "message", "logger", "type", "exception")
        time, severity, message, logger, type_, exception = (fields.pop(name, "") for name in names)
        rest = escaped(" ".join(extras(fields, message, ACCESS_SHOWN if type_ == "access" else fields)))
        source = escaped(logger if type_ == "system" else type_)
        head = [(0, time[11:23]), (COLOURS.get(severity, 0), f"{severity:8}"), (36, source)]
        blank = " " * len(" ".join(text for _, text in head))
        said = escaped(message)
        if type_ == "access":
            said = shortened(said, COLUMNS - len(f"{blank}  {rest}"))
        first, *more = wrapped(said, f"{blank} ")
        lines = [" ".join(self.painted(colour, text) for colour, text in head) + first[len(blank) :], *more]
        if rest and not more and len(f"{first} {rest}") <= COLUMNS:
            lines[0] += f" {self.painted(2, rest)}"
        elif rest:
            lines += [INDENT + self.painted(2, line[len(INDENT) :]) for line in wrapped(rest, INDENT)]
        # Indented, so that no message of an exception can pass for a line of its own.
        for part in exception.split("\n") if exception else []:
            lines += wrapped(escaped(part), INDENT)
        return "\n".join(lines)

    def painted(self, colour: int, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour and colour else text


def escaped(text: str) -> str:
    return re.sub(OBEYED, lambda match: ascii(match[0])[1:-1], text)


def extras(fields: Fields, message: str, shown: Iterable[str]) -> Iterator[str]:
    """`name=value` of what is shown and not in the message already."""
    said = message.split()
    for name in shown:
        value = fields.get(name)
        if name in fields and name not in ("trace_id", "span_id") and str(value) not in said:
            bare = isinstance(value, str) and re.fullmatch(BARE, value)
            yield f"{name}={value if bare else to_json(value)}"


def wrapped(text: str, indent: str) -> list[str]:
    """Lines of at most COLUMNS, of which the first begins with this indent."""
    lines = textwrap.wrap(text, COLUMNS, initial_indent=indent, subsequent_indent=INDENT, break_on_hyphens=False)
    return lines or [indent]


def shortened(text: str, room: int) -> str:
    """The middle of a longer path goes: the method before it and the status behind it stay."""
    return text if len(text) <= room else f"{text[: room - 7]}...{text[-4:]}"
