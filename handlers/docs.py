"""What the API is: a document for programs, and a page for people, who can try it out there."""

import hashlib
from functools import cache
from pathlib import Path

from starlette.responses import Response

from infra.http.etags import etag_of, is_known
from infra.http.openapi import openapi_document
from infra.http.problems import Problem
from infra.http.state import Request
from settings import DESCRIPTION

SWAGGER_UI = Path(__file__).parent.parent / "infra" / "http" / "swagger_ui"
FILES = {
    "page.js": {"Content-Type": "text/javascript; charset=utf-8"},
    "swagger-ui-bundle.js": {"Content-Type": "text/javascript; charset=utf-8", "Content-Encoding": "gzip"},
    "swagger-ui.css": {"Content-Type": "text/css; charset=utf-8", "Content-Encoding": "gzip"},
}
PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    # data: for the arrows in Swagger UI's style sheet
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


async def openapi(request: Request) -> Response:
    document = openapi_document(request.app, request.state.settings, DESCRIPTION)
    return cacheable(request, document, {"Content-Type": "application/json"})


async def page(request: Request) -> Response:
    return cacheable(request, read("page.html"), PAGE_HEADERS)


async def file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in FILES:
        raise Problem(404, "no such resource")
    headers = FILES[name]
    return cacheable(request, read(f"{name}.gz" if "Content-Encoding" in headers else name), headers)


@cache
def read(name: str) -> bytes:
    """Once, so that a crowd of slow readers has one copy in memory."""
    return (SWAGGER_UI / name).read_bytes()


def cacheable(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """304 for whoever has this content already."""
    etag = etag_of(digest(content))
    known = is_known(request, etag)
    return Response(
        b"" if known else content, 304 if known else 200, headers | {"Cache-Control": "no-cache", "ETag": etag}
    )


@cache
def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
