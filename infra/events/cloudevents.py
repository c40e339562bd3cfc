"""CloudEvents 1.0: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from infra.base.times import Time

STRUCTURED = "application/cloudevents+json"  # an event whole in the body, as its Struct is encoded

Text = Annotated[str, Meta(min_length=1)]


class CloudEvent(Struct, kw_only=True, omit_defaults=True):
    """What is neither here nor in `data` is an extension attribute."""

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(min_length=1, examples=["2026-11-24T09:00:00Z"])]
    source: Annotated[
        str, Meta(min_length=1, description="a URI reference; with the id it names one event", examples=["/cron"])
    ]
    type: Text
    subject: Text | None = None
    time: Time | None = None
    datacontenttype: Text | None = None
    traceparent: str | None = None
    data: Annotated[Any, Meta(description="any JSON", examples=[{"port": "Hamburg"}])] = None
