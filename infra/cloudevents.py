"""CloudEvents 1.0: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

STRUCTURED = "application/cloudevents+json"  # an event whole in the body, as its Struct is encoded

Text = Annotated[str, Meta(min_length=1)]


class CloudEvent(Struct, kw_only=True, omit_defaults=True):
    """What is neither here nor in `data` is an extension attribute."""

    specversion: Literal["1.0"]
    id: Text
    source: Annotated[str, Meta(min_length=1, description="with the id it names one event")]
    type: Text
    subject: Text | None = None
    time: datetime | None = None
    datacontenttype: Text | None = None
    traceparent: str | None = None
    data: Any = None
