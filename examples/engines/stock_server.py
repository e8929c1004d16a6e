"""A small MCP server with two tools, for native_agent.py: what a shop has in stock, and ordering more of it."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

server = MCPServer("stock")


class Article(BaseModel):
    """One article of the shop."""

    article: str
    pieces: int


class Stock(BaseModel):
    """All articles."""

    articles: list[Article]


STOCK = Stock(
    articles=[
        Article(article="cups", pieces=2),
        Article(article="plates", pieces=40),
        Article(article="spoons", pieces=3),
    ]
)


@server.tool()
def list_stock() -> Stock:
    """Tell how many pieces of each article are in stock."""
    return STOCK


@server.tool()
def order(
    article: Annotated[str, Field(description="an article that list_stock knows")],
    pieces: Annotated[int, Field(ge=1, le=100)],
) -> Article:
    """Order more pieces of an article."""
    known = [one.article for one in STOCK.articles]
    if article not in known:
        raise ToolError(f"there is no article {article!r}; there are {', '.join(known)}")
    return Article(article=article, pieces=pieces)


if __name__ == "__main__":
    server.run("stdio")
