"""Lists in pages, as all families ask for them."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from contexten_tools.arguments import Arguments, Cursor


class Parameters(Arguments):
    """Base of the parameters of a query, which come as text."""

    model_config = ConfigDict(strict=False)


Limit = Annotated[int, Field(ge=1, le=200, description="rows in a page")]


class Page(Parameters):
    """A page of a list."""

    limit: Limit = 50
    page: Cursor | None = Field(None, description="next_page of the answer before, with the same filters")


class Listing(Page):
    """A page of flows or runs."""

    tag: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(None, description="with this tag only")
    search: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="a part of name, ids or tags, whatever the case of ASCII letters"
    )
