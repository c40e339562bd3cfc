"""deploy/logs/, read as each collector reads it, over lines of a running service.

No collector runs here: these tests do what its documentation says its configuration does.
"""

import json
import re
from collections.abc import Callable
from contextlib import closing
from datetime import datetime

import pytest
import yaml

from tests.conftest import TEST_SETTINGS, Environment
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB
from tests.support.service import ROOT, Record, Service

FOLDER = ROOT / "deploy" / "logs"
README = (FOLDER / "README.md").read_text()
TYPES = {"access", "audit", "sql", "system", "task"}
EVENT = {
    "Authorization": "Bearer a-token",
    "ce-specversion": "1.0",
    "ce-type": "dev.berth.sessions.purge",
    "ce-source": "/tests",
    "ce-id": "1",
}
CRI = re.compile(r"(?P<time>\S+) (?P<stream>stdout|stderr) (?P<_p>[FP]) (?P<log>.*)")
FLUENT_BIT, FILEBEAT, VECTOR = (
    yaml.safe_load((FOLDER / name).read_text()) for name in ("fluent-bit.yaml", "filebeat.yml", "vector.yaml")
)
LNAV = json.loads((FOLDER / "berth-lnav.json").read_text())["berth"]


def lines_of_every_kind(mariadb: MariaDB, env: Environment, log_format: str) -> list[Record]:
    """Requests that pass and fail, slow queries, and at last an exception that nobody expected."""
    proxy = Proxy(mariadb.port)
    proxy.delay(0.005)
    own = {"LOG_FORMAT": log_format, "MYSQL_PORT": proxy.port, "MYSQL_SLOW_QUERY": "0.001", "EVENTS_TOKEN": "a-token"}
    with closing(proxy), Service({**TEST_SETTINGS, **env, **own}) as service:
        account = service.sign_up()
        service.client.post("/v1/auth/login", json={"login": account.username, "password": "not this one"})
        service.client.post("/v1/events", headers=EVENT)
        mariadb.sql("DROP TABLE sessions", database=env["MYSQL_DATABASE"])
        assert service.client.get("/v1/auth/sessions", headers=account.headers).status_code == 500
        service.stop()
        return service.lines


@pytest.fixture(scope="module")
def json_lines(mariadb: MariaDB, mysql_and_redis: Callable[[], Environment]) -> list[Record]:
    lines = lines_of_every_kind(mariadb, mysql_and_redis(), "json")
    assert {line["type"] for line in lines} == TYPES
    return lines


@pytest.fixture(scope="module")
def ecs_lines(mariadb: MariaDB, mysql_and_redis: Callable[[], Environment]) -> list[Record]:
    return lines_of_every_kind(mariadb, mysql_and_redis(), "ecs")


# As the container's engine keeps a line, and as Fluent Bit's `multiline.parser: docker, cri` takes it apart


def in_docker(line: str) -> str:
    return json.dumps({"log": f"{line}\n", "stream": "stdout", "time": "2026-11-24T20:31:48.667318291Z"})


def in_cri(line: str) -> str:
    return f"2026-11-24T20:31:48.667318291Z stdout F {line}"


def out_of_either(kept: str) -> Record:
    found = CRI.fullmatch(kept)
    return found.groupdict() if found else dict(json.loads(kept))


# Fluent Bit


def fluent_bit(kept: str) -> tuple[str, Record]:
    """The tag and the record that come out of the filters."""
    tag: str = FLUENT_BIT["pipeline"]["inputs"][0]["tag"]
    record = out_of_either(kept)
    for item in FLUENT_BIT["pipeline"]["filters"]:
        assert item["match"] == tag
        if item["name"] == "modify":
            record = {name: value for name, value in record.items() if not re.search(item["remove_regex"], name)}
        elif item["name"] == "parser":
            record = parsed(record, item["key_name"])
        elif item["name"] == "rewrite_tag":
            field, pattern, new_tag, _ = item["rule"].split()
            value = str(record.get(field.removeprefix("$"), ""))
            tag = new_tag.replace(field, value) if re.search(pattern, value) else tag
    return tag, record


def parsed(record: Record, key: str) -> Record:
    try:
        fields = json.loads(record[key])
    except ValueError:
        return record
    rest = {name: value for name, value in record.items() if name != key}
    assert not fields.keys() & rest.keys(), "Fluent Bit would write the name twice"
    return {**fields, **rest}


@pytest.mark.parametrize("wrap", [in_docker, in_cri])
def test_fluent_bit_gives_each_line_the_tag_of_its_type_and_keeps_its_fields(
    json_lines: list[Record], wrap: Callable[[str], str]
) -> None:
    for line in json_lines:
        tag, record = fluent_bit(wrap(json.dumps(line)))
        assert tag == f"berth.{line['type']}"
        assert record == {**line, "stream": "stdout"}


@pytest.mark.parametrize("text", ["Ready to accept connections", '{"type": "other"}', '{"msg": "no type"}'])
def test_fluent_bit_writes_no_line_of_another_container(text: str) -> None:
    tag, _ = fluent_bit(in_docker(text))
    assert [output["match"] for output in FLUENT_BIT["pipeline"]["outputs"]] == ["berth.*"]
    assert not tag.startswith("berth.")


def test_fluent_bit_reads_the_time_of_the_line(json_lines: list[Record]) -> None:
    [parser] = FLUENT_BIT["parsers"]
    assert [item["parser"] for item in FLUENT_BIT["pipeline"]["filters"] if "parser" in item] == [parser["name"]]
    for line in json_lines:
        datetime.strptime(line[parser["time_key"]], parser["time_format"].replace("%L", "%f"))  # noqa: DTZ007


# Filebeat and Elasticsearch


def expanded(line: Record) -> Record:
    """`expand_keys`: each dot opens an object. Elasticsearch refuses a name that is both a value and an object."""
    event: Record = {}
    for name, value in line.items():
        *outer, last = name.split(".")
        holder = event
        for part in outer:
            holder = holder.setdefault(part, {})
            assert isinstance(holder, dict), f"{name} is below a value"
        assert last not in holder, f"{name} is there twice"
        holder[last] = value
    return event


def data_stream(event: Record) -> str:
    index: str = FILEBEAT["output.elasticsearch"]["index"]
    return re.sub(r"%{\[(\w+)\.(\w+)]}", lambda found: str(event[found[1]][found[2]]), index)


def test_filebeat_sends_each_line_to_the_data_stream_of_its_type(ecs_lines: list[Record]) -> None:
    events = [expanded(line) for line in ecs_lines]
    assert {data_stream(event) for event in events} == {f"logs-berth.{name}-default" for name in TYPES}


def test_filebeat_drops_no_line_of_berths(ecs_lines: list[Record]) -> None:
    [condition] = [item["drop_event"] for item in FILEBEAT["processors"] if "drop_event" in item]
    assert condition == {"when.not.equals.service.name": "berth"}
    assert {line["service.name"] for line in ecs_lines} == {"berth"}


def test_filebeat_keeps_time_severity_and_trace_of_the_line(ecs_lines: list[Record]) -> None:
    [source] = FILEBEAT["filebeat.inputs"]
    assert [name for parser in source["parsers"] for name in parser] == ["container", "ndjson"]
    options = source["parsers"][1]["ndjson"]
    assert (options["target"], options["overwrite_keys"], options["expand_keys"]) == ("", True, True)
    for event in map(expanded, ecs_lines):
        assert datetime.fromisoformat(event["@timestamp"]).utcoffset() is not None
        assert event["log"]["level"] in ("debug", "info", "warning", "error", "critical")
        assert "http" not in event or {"id"} == event["trace"].keys() == event["span"].keys()


# Vector


def test_vector_sends_each_type_to_one_sink() -> None:
    routes = VECTOR["transforms"]["types"]["route"]
    assert routes == {name: f'.type == "{name}"' for name in TYPES}
    taken = [source for sink in VECTOR["sinks"].values() for source in sink["inputs"]]
    assert sorted(taken) == sorted(f"types.{name}" for name in TYPES)


def test_vector_names_only_fields_that_every_line_has(json_lines: list[Record]) -> None:
    labels = " ".join(VECTOR["sinks"]["loki"]["labels"].values())
    named = set(re.findall(r"{{ (\w+) }}", labels)) | set(
        re.findall(r"\(\.(\w+)", VECTOR["transforms"]["lines"]["source"])
    )
    assert named == {"message", "time", "type", "severity"}
    assert all(named <= line.keys() for line in json_lines)


# lnav


def test_lnav_knows_the_fields_that_lines_have(json_lines: list[Record]) -> None:
    seen = {name for line in json_lines for name in line}
    shown = {part["field"] for part in LNAV["line-format"] if isinstance(part, dict)} - {"__timestamp__"}
    special = {LNAV[name] for name in ("timestamp-field", "level-field", "body-field", "opid-field")}
    assert shown | special <= LNAV["value"].keys() <= seen
    described = {name for line in json_lines if line["type"] in ("access", "audit", "sql") for name in line}
    assert described <= LNAV["value"].keys()


def test_lnav_knows_every_severity(json_lines: list[Record]) -> None:
    assert set(LNAV["level"].values()) == {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
    assert {line["severity"] for line in json_lines} <= set(LNAV["level"].values())


# The samples in deploy/logs/README.md


def samples() -> list[Record]:
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def test_the_samples_are_lines_as_they_are_printed(json_lines: list[Record], ecs_lines: list[Record]) -> None:
    access, _, _, ecs_access, _, *others = samples()
    shapes = {frozenset(line) for line in (*json_lines, *ecs_lines)}
    assert [frozenset(line) in shapes for line in (access, ecs_access, *others)] == [True] * 6
    assert {line["type"] for line in (access, *others)} == TYPES


def test_the_samples_become_what_the_readme_says() -> None:
    access, kept_by_docker, from_fluent_bit, ecs_access, from_filebeat, *_ = samples()
    kept_by_cri = re.findall(r"```text\n(.*?)\n```", README)[0]
    assert json.loads(kept_by_docker["log"]) == json.loads(out_of_either(kept_by_cri)["log"]) == access
    path_key = FLUENT_BIT["pipeline"]["inputs"][0]["path_key"]
    for kept in (json.dumps(kept_by_docker), kept_by_cri):
        tag, record = fluent_bit(kept)
        assert (tag, record) == ("berth.access", {k: v for k, v in from_fluent_bit.items() if k != path_key})
    assert from_filebeat == expanded(ecs_access)


def test_the_readme_says_where_each_type_goes() -> None:
    rows = dict(re.findall(r"^\| (\w+) \| (berth\..*) \|$", README, re.MULTILINE))
    sinks = {source.removeprefix("types."): name for name, sink in VECTOR["sinks"].items() for source in sink["inputs"]}
    assert rows == {
        name: f"berth.{name} | {data_stream({'event': {'dataset': f'berth.{name}'}})} | {sinks[name]}" for name in TYPES
    }
