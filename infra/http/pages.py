"""Pages of a list that is ordered by id, the newest first; `next` is the cursor of the following one."""

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Protocol, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from infra.base.ids import GivenId, Id

AFTER_ALL = "~"  # above any id


class Listed(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Listed)


class PageQuery(Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=100, description="an integer from 1 to 100")] = 20
    after: Annotated[GivenId, Meta(description="the `next` of another page")] | UnsetType = UNSET

    def values(self) -> dict[str, Any]:
        """For SQL that ends in `AND id < :after ORDER BY id DESC LIMIT :count`: one more than the page holds."""
        return {"after": self.after or AFTER_ALL, "count": self.limit + 1}


class Page(Struct, Generic[Item]):
    items: list[Item]
    next: Annotated[Id | None, Meta(description="the `after` of the next page, null on the last")]


def page_of(found: Sequence[Item], query: PageQuery) -> Page[Item]:
    """The first of what was found with `query.values()`."""
    items = list(found[: query.limit])
    return Page(items, items[-1].id if len(found) > query.limit else None)
