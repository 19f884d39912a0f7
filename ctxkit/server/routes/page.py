"""GET /: the page, and the files that it is made of. No data: those it asks of the API like any client."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response

from ctxkit.server.problems import not_found

router = APIRouter(include_in_schema=False)

_FILES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "budget.js": "text/javascript; charset=utf-8",
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@router.get("/")
async def index() -> Response:
    """The page."""
    return _file("index.html")


@router.get("/page/{name}")
async def file(name: str) -> Response:
    """One of its files; there are no others."""
    return _file(name)


def _file(name: str) -> Response:
    if name not in _FILES:
        raise not_found(f"the page has no file {name!r}", "not_found")
    content = (files("ctxkit.server") / "page" / name).read_bytes()
    return Response(content, media_type=_FILES[name], headers=_HEADERS)
