"""A web server on this machine for the tests of downloads: whole files, ranges, cuts, and the answers of a hub."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789" * 4
HUB_PATH = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Served:
    """What the server has, and what it was asked for.

    Attributes:
        files: content by path.
        cuts: by path, how many of the next GETs end after half of the content.
        asked: (method, path, range) of each request.
    """

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, path: str, content: bytes) -> str:
        """Serve `content` at `path`; return its URL."""
        self.files[path] = content
        return self.base + path

    def gets(self, path: str) -> list[str | None]:
        """Return the ranges of the GETs for a path."""
        return [wanted for method, asked, wanted in self.asked if (method, asked) == ("GET", path)]


def _handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path, wanted = self.path.partition("?")[0], self.headers.get("Range")
            served.asked.append((self.command, path, wanted))
            content = served.files.get(path)
            if content is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.send_header("X-Error-Code", self.missing(path))
                self.send_header("X-Error-Message", "not here")
                self.end_headers()
                return
            start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if not body:
                return
            content = content[start:]
            if served.cuts.get(path, 0) > 0:
                served.cuts[path] -= 1
                content = content[: len(content) // 2]
                self.close_connection = True
            try:
                self.wfile.write(content)
            except ConnectionError:  # whoever asks for the size alone goes away
                self.close_connection = True

        def missing(self, path: str) -> str:
            match = HUB_PATH.fullmatch(path)
            known = [HUB_PATH.fullmatch(file) for file in served.files]
            known = [found for found in known if found and match and found[1] == match[1]]
            if not known:
                return "RepoNotFound"
            return "EntryNotFound" if any(found[2] == match[2] for found in known) else "RevisionNotFound"

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Served]:
    """Run a server on a free port of 127.0.0.1."""
    served = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads = True
    served.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
