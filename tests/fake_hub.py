"""A hub on loopback: as much of the Hugging Face hub's HTTP as huggingface_hub and timm use to push and to load."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
"""tokens: of the owner of ``me/...``, and of somebody who may only read"""


@dataclass
class Repository:
    """A repository: its files of now, and those of each commit."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head] if self.commits else {}

    @property
    def head(self) -> str:
        return list(self.commits)[-1] if self.commits else "0" * 40

    def commit(self, files: dict[str, bytes], message: str = "") -> str:
        merged = {**self.files, **files}
        name = hashlib.sha1(repr((len(self.commits), sorted(merged.items()))).encode()).hexdigest()
        self.commits[name] = merged
        self.messages.append(message)
        return name

    def at(self, revision: str) -> dict[str, bytes] | None:
        return self.commits.get(self.resolved(revision))

    def resolved(self, revision: str) -> str:
        return self.head if revision == "main" else self.tags.get(revision, revision)


@dataclass
class FakeHub:
    """The state of the server.

    Attributes:
        url: its address, for `HF_ENDPOINT`.
        repositories: by ``owner/name``.
        large: contents that were uploaded beside the commit, by SHA-256.
        requests: method and path of each.
        broken: every request is answered by 501, as 500 would be tried again for half a minute.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken: bool = False

    def holding(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        """Return a new repository with files."""
        repository = self.repositories[name] = Repository(private)
        repository.commit(files)
        return repository


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.broken:
            return self._answer(501, {"error": "broken"})
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            return self._api(parts[1:], body)
        if path.startswith("/large/"):
            self.hub.large[parts[1]] = body
            return self._answer(200, {})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._answer(404, {"error": "no such page"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 (names of http.server)

    @property
    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _api(self, parts: list[str], body: bytes) -> None:
        if parts == ["validate-yaml"]:
            return self._answer(200, {"errors": [], "warnings": []})
        if parts == ["repos", "create"]:
            return self._create(json.loads(body))
        if parts[0] != "models" or len(parts) < 3:
            return self._answer(404, {"error": "no such page"})
        repository = self._readable("/".join(parts[1:3]))
        if repository is None:
            return self._missing("RepoNotFound")
        match parts[3:]:
            case [] | ["revision", _]:
                name = "/".join(parts[1:3])
                return self._answer(
                    200, {"id": name, "modelId": name, "private": repository.private, "sha": repository.head}
                )
            case ["preupload", _]:
                files = json.loads(body)["files"]
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for file in files
                ]
                return self._answer(200, {"files": modes})
            case ["commit", _]:
                return self._commit("/".join(parts[1:3]), repository, body)
            case ["tree", _, *_]:
                files = repository.files
                return self._answer(
                    200,
                    [{"type": "file", "path": name, "size": len(files[name]), "oid": "0"} for name in files],
                )
        return self._answer(404, {"error": "no such page"})

    def _create(self, asked: dict[str, Any]) -> None:
        if self._token not in (WRITER, READER):
            return self._answer(401, {"error": "Invalid username or password."})
        owner = asked.get("organization") or "me"
        if owner != "me" or self._token != WRITER:
            return self._answer(
                403, {"error": "You don't have the rights to create a model under this namespace"}
            )
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repositories:
            return self._answer(
                409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            )
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private)
        return self._answer(200, {"url": f"{self.hub.url}/{name}"})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                "oid": wanted["oid"],
                "size": wanted["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/large/{wanted['oid']}"}},
            }
            for wanted in asked["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, place: str, repository: Repository, body: bytes) -> None:
        if self._token != WRITER:
            return self._answer(403, {"error": "no right to write"})
        files, message = {}, ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        name = repository.commit(files, message)
        return self._answer(
            200, {"commitUrl": f"{self.hub.url}/{place}/commit/{name}", "commitOid": name, "success": True}
        )

    def _readable(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self._token not in (WRITER, READER)):
            return None
        return repository

    def _file(self, name: str, revision: str, file: str) -> None:
        repository = self._readable(name)
        if repository is None:
            return self._missing("RepoNotFound")
        files = repository.at(revision)
        if files is None:
            return self._missing("RevisionNotFound")
        if file not in files:
            return self._missing("EntryNotFound", {"X-Repo-Commit": repository.resolved(revision)})
        content = files[file]
        sent = {
            "X-Repo-Commit": repository.resolved(revision),
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
        }
        self.send_response(200)
        for key, value in {**sent, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self, code: str, headers: dict[str, str] | None = None) -> None:
        status = 401 if code == "RepoNotFound" and not self._token else 404
        self._answer(status, {"error": code}, {"X-Error-Code": code, **(headers or {})})

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that is served until the block ends."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
