"""The files of pages: styles, scripts, images. Their addresses contain a digest of their contents."""

from __future__ import annotations

import hashlib
import mimetypes
from importlib import resources
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

PATH = "/static/{digest}/{name}"
_FOREVER = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A file in memory."""

    digest: str
    content: bytes
    media_type: str


class Assets:
    """All files of the folder `static`."""

    def __init__(self) -> None:
        self._files = {
            found.name: _read(found.name, found.read_bytes())
            for found in resources.files("mrq_dashboard").joinpath("static").iterdir()
            if found.is_file()
        }

    def path_of(self, name: str) -> str:
        """The path of a file, below the root of the application."""
        return PATH.format(digest=self._files[name].digest, name=name)

    async def serve(self, request: Request) -> Response:
        """A file, which the browser keeps. The digest of another version leads to the present file, which is
        not kept."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        kept = _FOREVER if request.path_params["digest"] == found.digest else "no-cache"
        return Response(found.content, media_type=found.media_type, headers={"cache-control": kept})


def _read(name: str, content: bytes) -> Asset:
    digest = hashlib.blake2b(content, digest_size=6).hexdigest()
    suffix = name[name.rfind(".") :]
    kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Asset(digest, content, kind)
