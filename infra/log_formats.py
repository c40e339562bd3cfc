"""What a log line holds: one record as fields named for plain JSON, Cloud Logging, Elastic, or as text for people."""

import logging
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import msgspec
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.msgspec import MsgspecFormatter

from infra.log_safety import CONTROLS, Redactor, Values, as_text, fit, to_json

Fields = dict[str, Any]


@dataclass(slots=True)
class RequestContext:
    trace_id: str
    span_id: str
    request_id: str
    sampled: bool
    account_id: str | None = None

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"


request_context: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


@dataclass(slots=True)
class Line:
    """A record on its way to a format. A format takes from `extras` what it has a name of its own for."""

    record: logging.LogRecord
    time: str
    severity: str
    message: str
    logger: str
    type: str
    context: RequestContext | None
    exception: str
    extras: Fields

    def take(self, names: dict[str, str]) -> Fields:
        return {new: self.extras.pop(old) for old, new in names.items() if self.extras.get(old) is not None}

    def put_rest(self, fields: Fields, prefix: str = "") -> Fields:
        """Adds what is left of the extras. None of them can replace a field of the line."""
        for name, value in self.extras.items():
            key = prefix + name
            taken = key in fields or key in ("exception", "truncated")
            fields[f"extra_{key}" if taken else key] = value
        return fields


Layout = Callable[[Line], Fields]


def json_fields(line: Line) -> Fields:
    fields = {
        "time": line.time,
        "severity": line.severity,
        "message": line.message,
        "logger": line.logger,
        "type": line.type,
    }
    if line.context:
        fields |= {
            "trace_id": line.context.trace_id,
            "span_id": line.context.span_id,
            "request_id": line.context.request_id,
        }
        if line.context.account_id:
            fields["account_id"] = line.context.account_id
    if line.exception:
        fields["exception"] = line.exception
    return line.put_rest(fields)


@dataclass(slots=True)
class Gcp:
    """https://cloud.google.com/logging/docs/structured-logging"""

    project: str | None

    def __call__(self, line: Line) -> Fields:
        fields: Fields = {
            "time": line.time,
            "severity": line.severity,
            "message": line.message,
            "logger": line.logger,
            "type": line.type,
        }
        labels = {"type": line.type}
        if line.context:
            fields |= self.trace(line.context)
            if line.context.account_id:
                fields["account_id"] = labels["account_id"] = line.context.account_id
        fields["logging.googleapis.com/labels"] = labels
        if line.type == "access":
            fields["httpRequest"] = http_request(line)
        if line.exception:
            fields["stack_trace"] = line.exception  # the field that Error Reporting looks at first
        return line.put_rest(fields)

    def trace(self, context: RequestContext) -> Fields:
        trace = f"projects/{self.project}/traces/{context.trace_id}" if self.project else context.trace_id
        return {
            "logging.googleapis.com/trace": trace,
            "logging.googleapis.com/spanId": context.span_id,
            "logging.googleapis.com/trace_sampled": context.sampled,
            "request_id": context.request_id,
        }


def http_request(line: Line) -> Fields:
    request = line.take(
        {
            "method": "requestMethod",
            "path": "requestUrl",
            "status": "status",
            "request_bytes": "requestSize",
            "response_bytes": "responseSize",
            "user_agent": "userAgent",
            "client": "remoteIp",
            "duration_ms": "latency",
        }
    )
    for size in {"requestSize", "responseSize"} & request.keys():
        request[size] = str(request[size])  # 64-bit integers are strings in protobuf's JSON
    if "latency" in request:
        request["latency"] = f"{request['latency'] / 1000:.6f}".rstrip("0").rstrip(".") + "s"
    return request


@dataclass(slots=True)
class Ecs:
    """https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html; fields of our own are under berth."""

    service: str

    def __call__(self, line: Line) -> Fields:
        fields: Fields = {
            "@timestamp": line.time,
            "log.level": line.severity.lower(),
            "message": line.message,
            "ecs.version": "8.11.0",
            "log.logger": line.logger,
            "service.name": self.service,
            "event.dataset": f"{self.service}.{line.type}",
        }
        if line.context:
            fields |= {
                "trace.id": line.context.trace_id,
                "span.id": line.context.span_id,
                "http.request.id": line.context.request_id,
            }
            if line.context.account_id:
                fields["user.id"] = line.context.account_id
        if line.type == "access":
            fields |= ecs_request(line)
        if line.exception:
            fields |= ecs_error(line)
        return line.put_rest(fields, prefix=f"{self.service}.")


def ecs_request(line: Line) -> Fields:
    request = line.take(
        {
            "method": "http.request.method",
            "path": "url.path",
            "status": "http.response.status_code",
            "request_bytes": "http.request.body.bytes",
            "response_bytes": "http.response.body.bytes",
            "user_agent": "user_agent.original",
            "client": "client.address",
            "duration_ms": "event.duration",
        }
    )
    if "event.duration" in request:
        request["event.duration"] = round(request["event.duration"] * 1_000_000)
    if "client.address" in request and is_ip(request["client.address"]):
        request["client.ip"] = request["client.address"]  # Elasticsearch refuses a whole line over any other value
    return request


def is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def ecs_error(line: Line) -> Fields:
    error = line.record.exc_info[1] if line.record.exc_info else None
    fields = {"error.stack_trace": line.exception}
    if error:
        name = type(error).__name__
        fields |= {"error.type": name, "error.message": as_text(error).removeprefix(f"{name}: ")}
    return fields


class JsonLines(MsgspecFormatter):
    """python-json-logger, with the names of `layout`, and a line whatever the record holds."""

    def __init__(self, layout: Layout, redactor: Redactor) -> None:
        super().__init__(reserved_attrs=[*RESERVED_ATTRS, "taskName", "color_message"])
        self.layout = layout
        self.redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception:  # noqa: BLE001 - arguments that don't fit, or a __str__ that raises
            arguments = to_json(Values(self.redactor).field("args", record.args)) if record.args else ""
        core = {
            "name": record.name,
            "levelno": record.levelno,
            "msg": f"{as_text(record.msg)} {arguments}".rstrip(),
            "args": None,
        }
        try:
            return super().format(logging.makeLogRecord(record.__dict__ | core))
        except Exception:  # noqa: BLE001 - an extra that its format can't take
            return super().format(logging.makeLogRecord(core))

    def add_fields(self, log_data: Fields, record: logging.LogRecord, message_dict: Fields) -> None:
        values = Values(self.redactor)
        traces = [message_dict.pop(name, None) for name in ("exc_info", "stack_info")]
        if record.exc_info and not record.exc_info[0]:
            traces[0] = None  # logged with exc_info=True where there was no exception
        raw = message_dict | {
            name: value
            for name, value in record.__dict__.items()
            if name not in self._skip_fields and not as_text(name).startswith("_")
        }
        message = record.message or raw.pop("message", "")
        logger = values.text(as_text(record.name))
        line = Line(
            record=record,
            time=datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            severity=severity(record.levelno),
            message=values.text(as_text(message)),
            logger=logger,
            type=logger.removeprefix("berth.") if logger.startswith("berth.") else "system",
            context=request_context.get(),
            exception=values.text("\n".join(as_text(trace) for trace in traces if trace)),
            extras={(key := values.name(name)): values.field(key, value) for name, value in raw.items()},
        )
        log_data.update(self.layout(line))
        if values.cut:
            log_data["truncated"] = True

    def jsonify_log_record(self, log_data: Fields) -> str:
        try:
            text = to_json(log_data)
        except Exception:  # noqa: BLE001 - a lone surrogate in a logger's name, an id of the request
            text = to_json(Values(self.redactor).plain(log_data, depth=0))
        return fit(self.redactor.line(text))


def severity(level: int) -> str:
    for lowest in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO):
        if level >= lowest:
            return logging.getLevelName(lowest)
    return "DEBUG"


COLOURS = {"DEBUG": 2, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 41}
OBEYED = re.compile(f"[\0-\x1f]|{CONTROLS.pattern}")
BARE = re.compile(r"[\w./:@+-]+")


class ConsoleLines(JsonLines):
    """The JSON line made readable, so what holds for that holds here: nothing secret, nothing that a terminal obeys."""

    def __init__(self, redactor: Redactor, *, colour: bool) -> None:
        super().__init__(json_fields, redactor)
        self.colour = colour

    def jsonify_log_record(self, log_data: Fields) -> str:
        fields = msgspec.json.decode(super().jsonify_log_record(log_data))
        names = ("time", "severity", "message", "logger", "type", "exception")
        time, severity, message, logger, type_, exception = (fields.pop(name, "") for name in names)
        source = logger if type_ == "system" else type_
        said = message.split()
        rest = " ".join(
            f"{name}={value if isinstance(value, str) and BARE.fullmatch(value) else to_json(value)}"
            for name, value in fields.items()
            if name not in ("trace_id", "span_id") and str(value) not in said
        )
        shown = [
            time[11:23],
            self.painted(COLOURS.get(severity, 0), f"{severity:8}"),
            self.painted(36, source),
            escaped(message),
            *([self.painted(2, rest)] if rest else []),
        ]
        # Indented, so that no message of an exception can pass for a line of its own.
        trace = exception.split("\n") if exception else []
        return "".join([" ".join(shown), *(f"\n    {escaped(part)}" for part in trace)])

    def painted(self, colour: int, text: str) -> str:
        return f"\x1b[{colour}m{escaped(text)}\x1b[0m" if self.colour else escaped(text)


def escaped(text: str) -> str:
    return OBEYED.sub(lambda match: ascii(match[0])[1:-1], text)
