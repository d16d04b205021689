"""A bucket on this machine: as much of Google's JSON interface as gcsfs and TensorStore ask for.

Objects are in memory. Each appears whole, replaced or created by one request, and listings are
complete at once, as in the real one. What is not known here is answered with 501 and kept in
``unknown``, so that a test can tell.

https://cloud.google.com/storage/docs/json_api/v1
"""

import base64
import contextlib
import hashlib
import itertools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NAME = "bucket"


@dataclass(frozen=True)
class Blob:
    """An object: its bytes, and a number that rises with every write to the bucket."""

    data: bytes
    generation: int
    updated: str

    def resource(self, name: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "id": f"{NAME}/{name}/{self.generation}",
            "name": name,
            "bucket": NAME,
            "generation": str(self.generation),
            "metageneration": "1",
            "size": str(len(self.data)),
            "md5Hash": base64.b64encode(hashlib.md5(self.data).digest()).decode(),
            "etag": str(self.generation),
            "storageClass": "STANDARD",
            "timeCreated": self.updated,
            "updated": self.updated,
        }


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, why: str = ""):
        super().__init__(status, why)
        self.status, self.why = status, why


class Bucket:
    """The objects.

    Attributes:
      blobs: By name.
      writes: Names of objects in the order in which they were created or replaced.
      unknown: Requests that were not understood.
      after_write: Called with the name of an object that was written, before it is answered.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, Blob] = {}
        self.writes: list[str] = []
        self.unknown: list[str] = []
        self.after_write: Callable[[str], None] = lambda name: None
        self.address = ""
        self._uploads: dict[str, tuple[str, dict[str, str], bytearray]] = {}
        self._generations = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which gcsfs, Google's client and TensorStore come here, as nobody."""
        return {
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "NO_GCE_CHECK": "true",
            "FSSPEC_GCS_TOKEN": "anon",
        }

    def names(self, pattern: str) -> list[str]:
        """The objects whose whole name matches."""
        return sorted(name for name in self.blobs if re.fullmatch(pattern, name))

    def json(self, name: str) -> Any:
        return json.loads(self.blobs[name].data)

    def put(self, name: str, data: bytes, query: dict[str, str]) -> dict[str, Any]:
        """Create or replace an object, if its generation is as the query demands."""
        with self._lock:
            self._require_generation(name, query)
            blob = self.blobs[name] = self._made(data)
            self.writes.append(name)
        self.after_write(name)
        return blob.resource(name)

    def delete(self, name: str, query: dict[str, str]) -> None:
        with self._lock:
            self._require_generation(name, query)
            if name not in self.blobs:
                raise Refused(404)
            del self.blobs[name]

    def copy(self, source: str, target: str, query: dict[str, str], move: bool) -> dict[str, Any]:
        with self._lock:
            if source not in self.blobs:
                raise Refused(404)
            self._require_generation(target, query)
            blob = self.blobs[target] = self._made(self.blobs[source].data)
            self.writes.append(target)
            if move:
                del self.blobs[source]
        self.after_write(target)
        return blob.resource(target)

    def get(self, name: str, query: dict[str, str]) -> Blob:
        with self._lock:
            self._require_generation(name, query)
            blob = self.blobs.get(name)
        if blob is None:
            raise Refused(404)
        if query.get("ifGenerationNotMatch") == str(blob.generation):
            raise Refused(304)
        return blob

    def listing(self, query: dict[str, str]) -> dict[str, Any]:
        """A page of objects and, with a delimiter, of what is before it in longer names."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start, end = query.get("startOffset", ""), query.get("endOffset", "")
        after, most = query.get("pageToken", ""), int(query.get("maxResults", 1000))
        with self._lock:
            blobs = dict(self.blobs)
        entries: dict[str, Blob | None] = {}
        for name in sorted(blobs):
            if name.startswith(prefix) and name >= start and (not end or name < end):
                cut = name.find(delimiter, len(prefix)) if delimiter else -1
                entries[name[: cut + 1] if cut >= 0 else name] = None if cut >= 0 else blobs[name]
        left = [name for name in entries if name > after]
        page: dict[str, Any] = {"kind": "storage#objects", "items": [], "prefixes": []}
        for name in left[:most]:
            blob = entries[name]
            if blob is None:
                page["prefixes"].append(name)
            else:
                page["items"].append(blob.resource(name))
        return page | ({"nextPageToken": left[most - 1]} if len(left) > most else {})

    def begin_upload(self, name: str, query: dict[str, str]) -> str:
        """The id of an upload in parts; its object appears with the last one."""
        number = f"upload-{next(self._generations)}"
        self._uploads[number] = name, query, bytearray()
        return number

    def extend_upload(self, number: str, data: bytes, of: str) -> dict[str, Any] | int:
        """The finished object, or how many bytes there are so far."""
        name, query, so_far = self._uploads[number]
        so_far += data
        if of == "*" or len(so_far) < int(of):
            return len(so_far)
        del self._uploads[number]
        return self.put(name, bytes(so_far), query)

    def drop_upload(self, number: str) -> None:
        self._uploads.pop(number, None)

    def _made(self, data: bytes) -> Blob:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return Blob(data, next(self._generations), now)

    def _require_generation(self, name: str, query: dict[str, str]) -> None:
        wanted = query.get("ifGenerationMatch")
        found = self.blobs[name].generation if name in self.blobs else 0
        if wanted is not None and int(wanted) != found:
            raise Refused(412, "conditionNotMet")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    bucket: Bucket

    def _answer(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if not isinstance(body, bytes):
            self.send_header("Content-Type", "application/json; charset=UTF-8")
        if status != 304:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # who sent it is gone, and nothing is written
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            for method, pattern, serve in _ROUTES:
                match = re.fullmatch(pattern, parts.path)
                if self.command in method.split() and match:
                    names = [unquote(name) for name in match.groups()]
                    if names and names[0] != NAME:
                        raise Refused(404)
                    serve(self, query, body, *names[1:])
                    return
            self.bucket.unknown.append(f"{self.command} {self.path}")
            raise Refused(501)
        except Refused as refused:
            error = {"code": refused.status, "message": refused.why}
            self._answer(refused.status, {"error": error} if refused.status != 304 else b"")

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _about(self, query: dict[str, str], body: bytes) -> None:
        self._answer(200, {"kind": "storage#bucket", "id": NAME, "name": NAME})

    def _list(self, query: dict[str, str], body: bytes) -> None:
        self._answer(200, self.bucket.listing(query))

    def _get(self, query: dict[str, str], body: bytes, name: str) -> None:
        blob = self.bucket.get(name, query)
        if query.get("alt") != "media":
            self._answer(200, blob.resource(name))
            return
        about = {"x_goog_generation": str(blob.generation), "ETag": str(blob.generation)}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            self._answer(200, blob.data, **about)
            return
        size = len(blob.data)
        first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        last = min(size, int(asked[2]) + 1) if asked[1] and asked[2] else size
        if first >= size:
            raise Refused(416)
        place = f"bytes {first}-{last - 1}/{size}"
        self._answer(206, blob.data[first:last], Content_Range=place, **about)

    def _delete(self, query: dict[str, str], body: bytes, name: str) -> None:
        self.bucket.delete(name, query)
        self._answer(204)

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        kind = query["uploadType"]
        if kind == "media":
            self._answer(200, self.bucket.put(query["name"], body, query))
        elif kind == "multipart":
            about, data = _parts(body, self.headers["Content-Type"])
            self._answer(200, self.bucket.put(about["name"], data, query))
        else:
            name = query.get("name") or json.loads(body)["name"]
            number = self.bucket.begin_upload(name, query)
            place = f"{self.bucket.address}/resumable/{number}"
            self._answer(200, {}, Location=place)

    def _resume(self, query: dict[str, str], body: bytes) -> None:
        number = self.path.rsplit("/", 1)[1]
        of = self.headers["Content-Range"].rsplit("/", 1)[1]
        found = self.bucket.extend_upload(number, body, of)
        if isinstance(found, int):
            self._answer(308, Range=f"bytes=0-{found - 1}")
        else:
            self._answer(200, found)

    def _cancel(self, query: dict[str, str], body: bytes) -> None:
        self.bucket.drop_upload(self.path.rsplit("/", 1)[1])
        self._answer(499)

    def _move(self, query: dict[str, str], body: bytes, source: str, target: str) -> None:
        self._answer(200, self.bucket.copy(source, target, query, move=True))

    def _rewrite(
        self, query: dict[str, str], body: bytes, source: str, bucket: str, target: str
    ) -> None:
        found = self.bucket.copy(source, target, query, move=False)
        self._answer(200, {"kind": "storage#rewriteResponse", "done": True, "resource": found})

    def log_message(self, form: str, *values: object) -> None:
        pass


_OBJECT = "/storage/v1/b/([^/]+)/o/([^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/storage/v1/b/([^/]+)", _Handler._about),
    ("GET", "/storage/v1/b/([^/]+)/o", _Handler._list),
    ("GET", f"(?:/download)?{_OBJECT}", _Handler._get),
    ("DELETE", _OBJECT, _Handler._delete),
    ("POST", "/upload/storage/v1/b/([^/]+)/o", _Handler._upload),
    ("POST PUT", "/resumable/[^/]+", _Handler._resume),
    ("DELETE", "/resumable/[^/]+", _Handler._cancel),
    ("POST", f"{_OBJECT}/moveTo/o/([^/]+)", _Handler._move),
    ("POST", f"{_OBJECT}/rewriteTo/b/([^/]+)/o/([^/]+)", _Handler._rewrite),
]


def _parts(body: bytes, content_type: str) -> tuple[dict[str, Any], bytes]:
    """The JSON and the bytes of an upload of two parts, each behind its own headers."""
    found = re.search(r'boundary="?([^";]+)', content_type)
    assert found
    mark = b"--" + found[1].encode()
    about, data = body.split(mark)[1], body.split(mark, 2)[2]
    ending = data.rfind(b"\n" + mark)
    data = data[:ending].removesuffix(b"\r")
    blank = re.compile(rb"\r?\n\r?\n")
    return json.loads(blank.split(about, 1)[1]), blank.split(data, 1)[1]


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave out clients that are gone: some tests kill them."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def served() -> Iterator[Bucket]:
    """A bucket of the name `NAME`, until the block ends."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    with _Server(("127.0.0.1", 0), handler) as server:
        bucket.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield bucket
        finally:
            server.shutdown()
