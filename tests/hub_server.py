"""A small hub on 127.0.0.1: serves local folders under repository names, as huggingface_hub's client asks for them.

`python tests/hub_server.py --model ORG/NAME=FOLDER --dataset ORG/NAME=FOLDER --port 0` prints its address and serves
until it is stopped; point HF_ENDPOINT at the address. In a test: `with HubServer({"ORG/NAME": folder}) as hub:`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?(/.*)?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class HubServer:
    """Serves folders as repositories, each with one commit on the branch `main`.

    Args:
        models: repository name -> folder.
        datasets: repository name -> folder.
        token: where given, requests without `Authorization: Bearer TOKEN` find no repository.
        gated: repositories that answer 403 GatedRepo to everybody without the token.
        port: 0 for any free one.
        pushed: folder under which data sets are made that clients push; None: none are taken.
    """

    def __init__(
        self,
        models: dict[str, Path] | None = None,
        datasets: dict[str, Path] | None = None,
        token: str | None = None,
        gated: tuple[str, ...] = (),
        port: int = 0,
        pushed: Path | None = None,
    ) -> None:
        self.repositories = {"models": models or {}, "datasets": datasets or {}}
        self.token = token
        self.gated = gated
        self.pushed = pushed
        self.is_private = False  # whether the data set that was pushed last was to be private
        self.requests: list[str] = []  # "GET /path", in the order they came
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": self}))

    @property
    def url(self) -> str:
        """The address for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def serve_forever(self) -> None:
        """Serves in this thread."""
        self._server.serve_forever(poll_interval=0.05)

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def commit_of(folder: Path) -> str:
    """Gives a 40-digit commit that changes with the names and sizes of the files."""
    listing = "\n".join(f"{name} {path.stat().st_size}" for name, path in files_of(folder).items())
    return hashlib.sha1(listing.encode()).hexdigest()


def files_of(folder: Path) -> dict[str, Path]:
    """Gives every file under a folder by its path in the repository."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


class _Handler(BaseHTTPRequestHandler):
    """Answers one request. Source: the requests of huggingface_hub 1.x and 2.x."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        """Takes a data set in the three requests of `upload_folder`: make it, ask how to send the files, send them."""
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.hub.pushed is None or self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send_error(401, "Unauthorized")
        elif path == "/api/repos/create":
            made = json.loads(body)
            name = f"{made['organization']}/{made['name']}"
            (self.hub.pushed / name).mkdir(parents=True, exist_ok=True)
            self.hub.is_private = made.get("visibility") == "private" or bool(made.get("private"))
            self._send_json({"url": f"{self.hub.url}/datasets/{name}"}, with_body=True)
        elif path.endswith("/preupload/main"):
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            self._send_json({"files": files}, with_body=True)
        else:
            self._commit(path, [json.loads(line) for line in body.splitlines()])

    def _commit(self, path: str, operations: list[dict[str, Any]]) -> None:
        assert self.hub.pushed is not None
        name = path.removeprefix("/api/datasets/").removesuffix("/commit/main")
        for each in operations:
            if each["key"] == "file":
                target = self.hub.pushed / name / each["value"]["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(each["value"]["content"]))
        self._send_json(
            {"commitUrl": f"{self.hub.url}/datasets/{name}/commit/main", "commitOid": "0" * 40, "pullRequestUrl": None},
            with_body=True,
        )

    def log_message(self, *_: object) -> None:
        """Keeps stderr clean."""

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if match := _API.fullmatch(path):
            kind, name, view, revision, _ = match.groups()
            folder = self._folder(kind, name, revision or "main")
            if folder is not None:
                self._send_json(_tree(folder) if view == "tree" else _info(name, folder), with_body)
        elif match := _FILE.fullmatch(path):
            folder = self._folder("datasets" if match[1] else "models", match[2], match[3])
            if folder is not None:
                self._send_file(folder, match[4], with_body)
        else:
            self._send_error(404, "EntryNotFound")

    def _folder(self, kind: str, name: str, revision: str) -> Path | None:
        """Gives the folder of a repository that this request may see; else answers the error and gives None."""
        folder = self.hub.repositories[kind].get(name)
        has_token = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if folder is None:
            self._send_error(404, "RepoNotFound")
        elif name in self.hub.gated and not has_token:
            self._send_error(403, "GatedRepo")
        elif name not in self.hub.gated and self.hub.token is not None and not has_token:
            self._send_error(401, "RepoNotFound")
        elif revision not in ("main", commit_of(folder)):
            self._send_error(404, "RevisionNotFound")
        else:
            return folder
        return None

    def _send_error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: object, with_body: bool) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _send_file(self, folder: Path, name: str, with_body: bool) -> None:
        path = files_of(folder).get(name)
        if path is None:
            self._send_error(404, "EntryNotFound")
            return
        body = path.read_bytes()
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(requested[1]) if requested else 0
        last = min(int(requested[2] or len(body)), len(body) - 1) if requested else len(body) - 1
        self.send_response(206 if requested else 200)
        if requested:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        self.send_header("X-Repo-Commit", commit_of(folder))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if with_body:
            self.wfile.write(body[first : last + 1])


def _info(name: str, folder: Path) -> dict[str, object]:
    """Gives what the hub says of a repository."""
    siblings = [{"rfilename": file, "size": path.stat().st_size} for file, path in files_of(folder).items()]
    return {"id": name, "sha": commit_of(folder), "siblings": siblings, "private": False, "tags": [], "downloads": 0}


def _tree(folder: Path) -> list[dict[str, object]]:
    """Gives the hub's listing of a repository, every file in one page."""
    return [
        {"type": "file", "path": name, "size": path.stat().st_size, "oid": hashlib.sha1(path.read_bytes()).hexdigest()}
        for name, path in files_of(folder).items()
    ]


def main() -> None:
    """Serves what the command line names until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in ("model", "dataset"):
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="ORG/NAME=FOLDER")
    parser.add_argument("--gated", action="append", default=[], metavar="ORG/NAME")
    parser.add_argument("--token")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    models, datasets = (
        {name: Path(folder) for name, folder in (each.split("=", 1) for each in given)}
        for given in (args.model, args.dataset)
    )
    server = HubServer(models, datasets, args.token, tuple(args.gated), args.port)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
