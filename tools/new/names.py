"""The new service's name in all its forms, and which names can't be had."""

import re

OWN = "berth"
LONGEST = 40  # what Grafana takes for a dashboard's uid, and Kubernetes with room for -migrate
# Words of the code, hosts and containers of deploy/, MySQL's schemas: a service of that name would be taken for it.
TAKEN = (
    "account accounts all app audit base benchmarks compose data default deploy dev docs event events examples "
    "fast faults handlers health http image information-schema infra introspection kube-system localhost logs "
    "main metrics migrate migrations mutants mysql new none null outbox passwords performance-schema platform "
    "principal process prod project public purge received-events redis refresh-tokens root secrets server "
    "service session sessions settings sql support sys system task tasks test tests tokens tools "
)

# Where a hyphen can't be: names in Python, Prometheus, MySQL and lnav's SQL.
IDENTIFIERS = (
    r"berth(?=_)|(?<=_)berth",
    r"'berth'(?=@)|berth(?=%|@(?!YOUR_|\$))|(?<=user ')berth|(?<=KILL USER )berth|(?<=user = ')berth",
    r"(?<=FROM )berth|(?<=\[\")berth(?=\"\])",
)
# Whole lines, and whole files, in which `berth` alone is MySQL's or lnav's.
IDENTIFIER_LINES = r".*\bMYSQL_(?:DATABASE|USERNAME|USER)\b.*|.*\busername(?:: str)? = \"berth\".*"
IDENTIFIER_FILES = {"docs/mysql.md", "deploy/logs/berth-lnav.json", "tests/support/servers.py"}

# In a text's place of the name until all of them are found: the new name may hold the old one.
IDENTIFIER, CAPITALS, TITLE = "\ue000", "\ue001", "\ue002"


class Name:
    """`harbour-master`, `harbour_master`, `Harbour Master`, `HARBOUR_MASTER`."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.identifier = label.replace("-", "_")
        self.title = " ".join(word.capitalize() for word in label.split("-"))

    def __call__(self, text: str, path: str = "") -> str:
        """The text with this name in the place of the one it was written with."""
        text = text.replace(OWN.upper(), CAPITALS).replace(OWN.capitalize(), TITLE)
        for pattern in IDENTIFIERS:
            text = re.sub(pattern, lambda found: found[0].replace(OWN, IDENTIFIER), text)
        text = re.sub(IDENTIFIER_LINES, lambda found: re.sub(rf"{OWN}(?!-)", IDENTIFIER, found[0]), text)
        if path in IDENTIFIER_FILES:
            text = re.sub(rf"\b{OWN}\b(?!-)", IDENTIFIER, text)
        text = text.replace(OWN, self.label).replace(IDENTIFIER, self.identifier)
        return text.replace(CAPITALS, self.identifier.upper()).replace(TITLE, self.title)


def refusal(label: str) -> str | None:
    """Why a service can't have this name."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", label) or len(label) > LONGEST:
        return f"NAME is {label!r}: expected a DNS label of at most {LONGEST} characters, like harbour-master"
    if label in TAKEN.split() or label == OWN:
        return f"NAME is {label!r}: expected another name, for this one means something else in the code"
    return None
