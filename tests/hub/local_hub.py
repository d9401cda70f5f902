"""
A Hub on loopback for tests: model repositories in memory, behind the endpoints that huggingface_hub calls.

Commits are atomic, as on the real Hub: what was uploaded shows only when a commit names it. Point a process at it with
`HF_ENDPOINT=hub.url`, its own `HF_HOME`, and `HF_TOKEN=hub.token` to write or to read private repositories.
"""

import base64
import hashlib
import json
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Tree = dict[str, bytes]


@dataclass
class Repository:
    """
    Args:
        name: "user/name".
        branches: name → hash of its last commit.
        commits: hash → path → content.
    """

    name: str
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Tree] = field(default_factory=dict)

    def commit(self, branch: str, tree: Tree) -> str:
        digest = hashlib.sha1(f"{branch} {len(self.commits)}".encode())
        for path, content in sorted(tree.items()):
            digest.update(path.encode() + b"\0" + content)
        self.commits[digest.hexdigest()] = tree
        self.branches[branch] = digest.hexdigest()
        return digest.hexdigest()

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class LocalHub:
    """`with LocalHub() as hub:` serves until the block ends."""

    token = "hf_owner"

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        #: Connections of large files are cut after this many bytes.
        self.cut_uploads_after: int | None = None
        hub = self

        class Handler(HubHandler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, name: str, revision: str = "main") -> Tree:
        """What a visitor of a repository sees."""
        repository = self.repositories[name]
        return repository.commits[repository.branches[revision]]


class HubHandler(BaseHTTPRequestHandler):
    """The endpoints; see <https://huggingface.co/docs/hub/api>."""

    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.parts()
        match path:
            case ["api", "validate-yaml"]:
                self.answer({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                self.create(json.loads(body))
            case ["api", "models", user, name, "branch", branch]:
                self.for_repository(f"{user}/{name}", self.branch, branch, write=True)
            case ["api", "models", user, name, "preupload", _]:
                self.for_repository(f"{user}/{name}", self.preupload, json.loads(body), write=True)
            case [_, _, "info", "lfs", "objects", "batch"]:
                self.lfs_batch(json.loads(body))
            case ["verify"]:
                known = json.loads(body)["oid"] in self.hub.blobs
                self.answer({}, 200 if known else 404)
            case ["api", "models", user, name, "commit", branch]:
                lines = [json.loads(line) for line in body.splitlines()]
                self.for_repository(f"{user}/{name}", self.commit, branch, lines, write=True)
            case _:
                self.unknown()

    def do_GET(self) -> None:
        match self.parts():
            case ["api", "whoami-v2"]:
                known = self.is_owner()
                self.answer({"name": "user", "type": "user", "orgs": []} if known else {}, 200 if known else 401)
            case ["api", "models", user, name]:
                self.for_repository(f"{user}/{name}", self.info, "main")
            case ["api", "models", user, name, "revision", revision]:
                self.for_repository(f"{user}/{name}", self.info, revision)
            case ["api", "models", user, name, "tree", revision, *folder]:
                self.for_repository(f"{user}/{name}", self.tree, revision, "/".join(folder))
            case [user, name, "resolve", revision, *path]:
                self.for_repository(f"{user}/{name}", self.resolve, revision, "/".join(path))
            case _:
                self.unknown()

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        size, limit = int(self.headers["Content-Length"]), self.hub.cut_uploads_after
        if limit is not None and size > limit:
            self.rfile.read(limit)
            self.close_connection = True
            self.connection.close()
            return
        content = self.rfile.read(size)
        oid = self.parts()[-1]
        if hashlib.sha256(content).hexdigest() != oid:
            self.answer({"error": "content does not have this hash"}, 400)
            return
        self.hub.blobs[oid] = content
        self.answer({})

    def parts(self) -> list[str]:
        return [urllib.parse.unquote(part) for part in urllib.parse.urlsplit(self.path).path.split("/")[1:]]

    def is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def unknown(self) -> None:
        self.answer({"error": f"no endpoint {self.command} {self.path}"}, 404)

    def for_repository(self, name: str, act: Any, *arguments: Any, write: bool = False) -> None:
        """
        Calls `act(repository, …)` where the caller may see the repository, and may write where that is asked for.
        """
        repository = self.hub.repositories.get(name)
        hidden = repository is None or (repository.private and not self.is_owner())
        if hidden:
            # who may not see a repository learns nothing about it, not even that it exists
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif write and not self.is_owner():
            self.answer({"error": "Invalid username or password."}, 401)
        else:
            act(repository, *arguments)

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        if not self.is_owner():
            self.answer({"error": "Invalid username or password."}, 401)
        elif name in self.hub.repositories:
            self.answer({**answer, "error": "You already created this model repo"}, 409)
        else:
            private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            self.hub.repositories[name] = repository = Repository(name, private)
            repository.commit("main", {})
            self.answer(answer)

    def branch(self, repository: Repository, branch: str) -> None:
        if branch in repository.branches:
            self.answer({"error": "Reference already exists"}, 409)
            return
        repository.branches[branch] = repository.branches["main"]
        self.answer({})

    def preupload(self, repository: Repository, wanted: dict[str, Any]) -> None:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        self.answer(
            {
                "files": [
                    {"path": file["path"], "uploadMode": mode(file["path"]), "shouldIgnore": False}
                    for file in wanted["files"]
                ]
            }
        )

    def lfs_batch(self, wanted: dict[str, Any]) -> None:
        def entry(oid: str, size: int) -> dict[str, Any]:
            known = {"oid": oid, "size": size}
            if oid in self.hub.blobs:
                return known
            actions = {"upload": f"{self.hub.url}/upload/{oid}", "verify": f"{self.hub.url}/verify"}
            return {**known, "actions": {action: {"href": address} for action, address in actions.items()}}

        objects = [entry(each["oid"], each["size"]) for each in wanted["objects"]]
        self.answer({"transfer": "basic", "objects": objects})

    def commit(self, repository: Repository, branch: str, lines: list[dict[str, Any]]) -> None:
        if branch not in repository.branches:
            self.answer({"error": f"Invalid rev id: {branch}"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        tree = dict(repository.commits[repository.branches[branch]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    self.answer({"error": f"{value['path']} was not uploaded"}, 400)
                    return
                tree[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                tree.pop(value["path"], None)
        oid = repository.commit(branch, tree)
        self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repository.name}/commit/{oid}"})

    def found(self, repository: Repository, revision: str) -> str | None:
        commit = repository.resolve(revision)
        if commit is None:
            self.answer({"error": f"Invalid rev id: {revision}"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def info(self, repository: Repository, revision: str) -> None:
        if (commit := self.found(repository, revision)) is not None:
            siblings = [{"rfilename": path} for path in sorted(repository.commits[commit])]
            known = {"id": repository.name, "private": repository.private, "tags": []}
            self.answer({**known, "sha": commit, "siblings": siblings})

    def tree(self, repository: Repository, revision: str, folder: str) -> None:
        if (commit := self.found(repository, revision)) is not None:
            files = repository.commits[commit].items()
            inside = [(path, content) for path, content in sorted(files) if path.startswith(folder)]
            self.answer(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in inside
                ]
            )

    def resolve(self, repository: Repository, revision: str, path: str) -> None:
        if (commit := self.found(repository, revision)) is None:
            return
        content = repository.commits[commit].get(path)
        seen = {"X-Repo-Commit": commit}
        if content is None:
            self.answer({"error": "Entry not found"}, 404, {**seen, "X-Error-Code": "EntryNotFound"})
        else:
            self.answer(content, headers={**seen, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})
