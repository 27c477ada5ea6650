"""The page and its data over HTTP: read-only, and nothing but runs by their ids, so that no request names a path."""

import contextlib
import importlib.resources
import importlib.util
import json
import socket
from collections.abc import Callable
from typing import Any

from pufferjax.constellation import one_run
from pufferjax.constellation.collection import Collection
from pufferjax.constellation.folders import IMAGES, Found, images_of, opened

PACKAGES = ("starlette", "uvicorn", "plotly")
PAGE = importlib.resources.files("pufferjax.constellation") / "page"
SCRIPTS = (  # each after those it imports
    "dom.js", "figures.js", "store.js", "source.js", "plane.js", "pickers.js", "scatter.js", "pareto.js", "boxes.js",
    "curves.js", "table.js", "filters.js", "flow.js", "run.js", "app.js",
)  # fmt: skip
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
MAX_IMAGE_BYTES = 32 << 20
_CURVE_POINTS = 200
_POINTS_OF_ALL = 50_000  # of all curves of an answer together
# Of no characters: Plotly makes a style element without any, and puts rules into it by the script it is.
EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
_HEADERS = {
    # Nothing but our own files; what they get is put into the page as text.
    "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self' {EMPTY}; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def check_packages(names: tuple[str, ...] = PACKAGES) -> None:
    """ValueError that says what to install if a package is missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"constellation needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'pufferjax[constellation]'"
        )


def plotly_script() -> bytes:
    """Plotly's script, as its Python package brings it."""
    return (importlib.resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()


def details(collection: Collection, found: Found, count: int = _CURVE_POINTS) -> dict[str, Any]:
    """What the page shows of an opened run besides its row."""
    status, problem = collection.status(found.id)
    facts: dict[str, Any] = {
        "id": found.id,
        "status": status,
        "problem": problem,
        "curves": {},
        "last": {},
        "images": [],
    }
    with contextlib.suppress(OSError):  # it has no line yet; what is wrong with it, its row says
        facts["curves"], facts["last"] = one_run.curves(found, count), one_run.last_record(found)
    with contextlib.suppress(OSError), opened(found) as folder:
        facts["images"] = images_of(folder)
    return facts


def make_app(collection: Collection, host: str):
    """The Starlette application."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    files: dict[str, Callable[[], bytes]] = {x.name: x.read_bytes for x in PAGE.iterdir() if x.name != "index.html"}
    files["plotly.min.js"] = plotly_script
    index = (PAGE / "index.html").read_bytes()

    def answer(content: bytes | str, kind: str, status: int = 200) -> Response:
        return Response(content, status, _HEADERS, kind)

    def refused(status: int, reason: str) -> Response:
        return answer(reason + "\n", "text/plain", status)

    def get_page(request: Request) -> Response:
        return answer(index, "text/html")

    def get_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            return refused(404, "no such file")
        return answer(files[name](), _TYPES["." + name.rpartition(".")[2]])

    def get_runs(request: Request) -> Response:
        collection.refresh()
        return answer(collection.changes(request.query_params.get("since", "")), "application/json")

    def get_run(request: Request) -> Response:
        collection.refresh()
        found = collection.find(request.path_params["id"])
        if found is None:
            return refused(404, "no such run")
        return answer(json.dumps(details(collection, found)), "application/json")

    def get_image(request: Request) -> Response:
        found, name = collection.find(request.path_params["id"]), request.query_params.get("name", "")
        try:
            if found is not None:
                with opened(found) as folder:
                    if name in images_of(folder):  # and so no path
                        kind = IMAGES[name[-4:].lower()]
                        return answer(one_run.file_of(found, name, MAX_IMAGE_BYTES), kind)
        except OSError as error:
            return refused(404, f"it cannot be read: {error.strerror}")
        return refused(404, "no such picture")

    async def post_curves(request: Request) -> Response:
        """{ids, figure, total: curves in all} -> {id: curve}; POST, since ten thousand ids are no address."""
        from starlette.concurrency import run_in_threadpool

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > 1 << 20:
                return refused(413, "too long")
        try:
            asked = json.loads(body)
            ids, figure, total = asked["ids"], asked["figure"], int(asked.get("total", 0))
            assert isinstance(figure, str) and isinstance(ids, list) and all(isinstance(x, str) for x in ids)
        except (ValueError, KeyError, TypeError, AssertionError, OverflowError, RecursionError):
            return refused(400, "expected {ids: [id], figure: name, total: number}")
        return answer(
            await run_in_threadpool(lambda: json.dumps(_curves(collection, ids, figure, total))), "application/json"
        )

    routes = [
        Route("/", get_page),
        Route("/page/{name}", get_file),
        Route("/api/runs", get_runs),
        Route("/api/run/{id}", get_run),
        Route("/api/image/{id}", get_image),
        Route("/api/curves", post_curves, methods=["POST"]),
    ]
    return _OnlyFor(Starlette(routes=routes), host)


def _curves(collection: Collection, ids: list[str], figure: str, total: int) -> dict[str, Any]:
    """The curves of a figure; the more runs the fewer points of each."""
    count = max(10, min(_CURVE_POINTS, _POINTS_OF_ALL // max(len(ids), total, 1)))
    curves = {}
    for name in ids:
        found = collection.find(name)
        try:
            curves[name] = one_run.curve(found, figure, count) if found else None
        except OSError:
            curves[name] = None
    return curves


class _OnlyFor:
    """Requests by the name of this host alone: another site's name that leads here is that site's attempt to read."""

    def __init__(self, app, host: str):
        self._app = app
        self._names = (
            None if host in ("0.0.0.0", "::") else {host.lower(), "localhost", "127.0.0.1", "[::1]", f"[{host}]"}
        )

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and self._names is not None:
            header = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
            name = header if header.endswith("]") else header.rpartition(":")[0] or header
            if name not in self._names:
                from starlette.responses import PlainTextResponse

                await PlainTextResponse("unknown host\n", 403, _HEADERS)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there. ValueError if that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ValueError(f"--host {host!r} is no address of this machine: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ValueError(f"--host {host} --port {port}: {error.strerror}") from None
    return listener


def make_server(collection: Collection, host: str):
    """A uvicorn.Server of the page: `run(sockets=[listener])` answers until its `should_exit`, Ctrl-C or SIGTERM."""
    import uvicorn

    config = uvicorn.Config(
        make_app(collection, host), log_level="warning", access_log=False, ws="none", lifespan="off"
    )
    return uvicorn.Server(config)


def serve(collection: Collection, host: str, listener: socket.socket) -> None:
    """Answers until Ctrl-C or SIGTERM."""
    try:
        make_server(collection, host).run(sockets=[listener])
    finally:
        collection.close()
