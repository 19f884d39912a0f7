"""AsciiJson: bodies that hold what clients sent, which may be half a character that UTF-8 cannot say."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from ctxkit.server.sessions.database import as_json


class AsciiJson(JSONResponse):
    """JSON whose other characters are escaped, as they are in the store."""

    def render(self, content: Any) -> bytes:
        return as_json(content).encode()
