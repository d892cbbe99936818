"""A hub on the loopback: models with commits, as huggingface_hub downloads them and uploads to them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Model:
    """The files of each commit, and the commit of each branch."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Adds a commit that holds these files alone; its name."""
        said = "".join(f"{name}{hashlib.sha256(data).hexdigest()}" for name, data in sorted(files.items()))
        name = hashlib.sha1(f"{len(self.commits)}{branch}{said}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name


@dataclass
class Hub:
    """Models by id, and every request that came: `GET /api/models/org/a`."""

    endpoint: str = ""
    models: dict[str, Model] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    lfs_from: int = 10_000_000  # bytes
    etag: str = ""  # of every file, instead of its hash
    packing: str = ""  # that every answer claims to have
    longer: str = ""  # answers to paths with this word do not end
    pause: float = 0.0  # seconds before each byte of a file
    objects: dict[str, bytes] = field(default_factory=dict)  # of large file storage, by their hash

    def add(self, name: str, folder: Path, branch: str = "main") -> str:
        """Commits the files of a folder to a model; the commit."""
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        return self.models.setdefault(name, Model()).commit(files, branch)

    @property
    def fetched(self) -> list[str]:
        """The files whose bytes were asked for, each once: `org/a/model.safetensors`."""
        found = [request for request in self.requests if request.startswith("GET ") and "/resolve/" in request]
        paths = [request.removeprefix("GET /").split("/resolve/") for request in found]
        return sorted({f"{name}/{rest.partition('/')[2]}" for name, rest in paths})


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._note()
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("api/models/"):
            self._ask(path.removeprefix("api/models/"))
        elif "/resolve/" in path:
            self._file(*path.split("/resolve/", 1))
        else:
            self._fail(404, "EntryNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._note()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path).strip("/")
        if path == "api/repos/create":
            self._create(json.loads(body))
        elif path == "api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self._json({"files": [self._upload(one) for one in json.loads(body)["files"]]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body)["objects"])
        elif "/commit/" in path:
            name, branch = path.removeprefix("api/models/").split("/commit/", 1)
            self._commit(name, branch, body)
        elif "/branch/" in path:
            name, branch = path.removeprefix("api/models/").split("/branch/", 1)
            model = self.served.models[name]
            model.branches[branch] = model.branches["main"]
            self._json({})
        else:
            self._fail(404, "EntryNotFound")

    def do_PUT(self) -> None:
        self._note()
        oid = urlsplit(self.path).path.rpartition("/")[2]
        data = self._body()
        if hashlib.sha256(data).hexdigest() != oid:
            self._fail(400, "BadRequest")
            return
        self.served.objects[oid] = data
        self._json({})

    def _body(self) -> bytes:
        """The request's body, in chunks if its length is not said."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Large files go by git's large file storage, others into the commit."""
        mode = "lfs" if asked["size"] >= self.served.lfs_from else "regular"
        return {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        found = [
            {**one, "actions": {"upload": {"href": f"{self.served.endpoint}/lfs/{one['oid']}"}}} for one in objects
        ]
        self._json({"transfer": "basic", "objects": found})

    def _note(self) -> None:
        self.served.requests.append(f"{self.command} {unquote(self.path)}")
        self.served.tokens.add(self.headers.get("Authorization") or "")

    def _ask(self, path: str) -> None:
        name = "/".join(path.split("/")[:2])
        kind, _, rest = path.removeprefix(name).strip("/").partition("/")
        revision = rest.split("?")[0] or "main"
        found = self._found(name, revision)
        if found is None:
            return
        commit, files = found
        if kind == "tree":
            self._json(
                [
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in files.items()
                ]
            )
            return
        siblings = [{"rfilename": path, "size": len(data), "blobId": "0"} for path, data in files.items()]
        self._json({"id": name, "modelId": name, "sha": commit, "tags": [], "private": False, "siblings": siblings})

    def _found(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        model = self.served.models.get(name)
        if model is None:
            self._fail(404, "RepoNotFound")
            return None
        if model.gated:
            self._fail(403, "GatedRepo")
            return None
        commit = model.branches.get(revision, revision)
        if commit not in model.commits:
            self._fail(404, "RevisionNotFound")
            return None
        return commit, model.commits[commit]

    def _file(self, name: str, rest: str) -> None:
        revision, _, file = rest.partition("/")
        found = self._found(name, revision)
        if found is None:
            return
        if file not in found[1]:
            self._fail(404, "EntryNotFound")
            return
        data = found[1][file]
        etag = self.served.etag or f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"X-Repo-Commit": found[0], "X-Linked-Etag": etag, "ETag": etag, "X-Linked-Size": str(len(data))}
        self._send(200, data, headers | {"Content-Type": "application/octet-stream"})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if name in self.served.models:
            self._json({"error": "You already created this model repo", "url": f"{self.served.endpoint}/{name}"}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.served.models[name] = Model(private=private)
        self.served.models[name].commit({".gitattributes": b""})
        self._json({"url": f"{self.served.endpoint}/{name}", "name": name})

    def _commit(self, name: str, branch: str, body: bytes) -> None:
        model = self.served.models[name]
        files = dict(model.commits[model.branches[branch]])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.served.objects[entry["value"]["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(entry["value"]["path"], None)
        commit = model.commit(files, branch)
        url = f"{self.served.endpoint}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _json(self, document: Any, code: int = 200) -> None:
        self._send(code, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _fail(self, code: int, name: str) -> None:
        self._send(code, b"{}", {"X-Error-Code": name, "X-Error-Message": name, "Content-Type": "application/json"})

    def _send(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        endless = self.command == "GET" and self.served.longer and self.served.longer in self.path
        self.send_response(code)
        length = {"Transfer-Encoding": "chunked"} if endless else {"Content-Length": str(len(data))}
        packing = {"Content-Encoding": self.served.packing} if self.served.packing else {}
        for name, value in (headers | length | packing).items():
            self.send_header(name, value)
        self.end_headers()
        if endless:
            self._send_without_end()
        elif self.command != "HEAD" and self.served.pause and "/resolve/" in self.path:
            self._send_slowly(data)
        elif self.command != "HEAD":
            self.wfile.write(data)

    def _send_slowly(self, data: bytes) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            for place in range(len(data)):
                self.wfile.write(data[place : place + 1])
                time.sleep(self.served.pause)

    def _send_without_end(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            for _ in range(1_000_000):
                self.wfile.write(b"3E8\r\n" + b" " * 1000 + b"\r\n")
