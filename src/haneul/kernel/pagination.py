"""Pages of long lists: ordered by a key, continued after the last key seen.

A page never skips or repeats an entry that was there all the time, whatever is added or removed between two pages.
The ``continue`` token is opaque to callers: base64url of the last key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.kernel.errors import InvalidInputError

T = TypeVar("T")

DEFAULT_LIMIT: Final = 100
LARGEST_LIMIT: Final = 500

Limit = Annotated[int, Field(ge=1, le=LARGEST_LIMIT, description="Entries on one page at most.")]


class PageQuery(BaseModel):
    """The query of every list."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    limit: Limit = DEFAULT_LIMIT
    after: str = Field(default="", alias="continue", description="The `continue` of the page before.")

    @property
    def after_key(self) -> str:
        """Return the key after which the page begins; empty for the first. Raises InvalidInputError."""
        if not self.after:
            return ""
        try:
            return base64.b64decode(self.after.encode("ascii"), altchars=b"-_", validate=True).decode()
        except (binascii.Error, UnicodeError) as error:
            raise InvalidInputError(
                "the query parameter 'continue' is not one that a list answered",
                hint="leave it out to begin at the first page",
            ) from error


class Page(BaseModel, Generic[T]):
    """One page; ``continue`` is absent on the last."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    items: list[T]
    next_page: str | None = Field(
        default=None, alias="continue", description="Pass it as `continue` to get the next page."
    )


def page_of(entries: Sequence[T], limit: int, key: Callable[[T], str]) -> Page[T]:
    """Return the first ``limit`` entries as a page. ``entries`` holds at least one more if there is a next page."""
    shown = list(entries[:limit])
    more = len(entries) > limit
    token = base64.urlsafe_b64encode(key(shown[-1]).encode()).decode() if more else None
    return Page(items=shown, next_page=token)
