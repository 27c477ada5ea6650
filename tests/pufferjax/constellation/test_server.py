"""What the server answers, and what it does not."""

import json
import socket
from pathlib import Path

import pytest

from pufferjax.constellation import server
from pufferjax.constellation.collection import Collection
from pufferjax.constellation.folders import roots_of
from pufferjax.constellation.samples import rounded

testclient = pytest.importorskip("starlette.testclient")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def runs(tmp_path, make_run):
    make_run(tmp_path / "runs" / "e" / "a", lines=4, top=0.8)
    make_run(tmp_path / "runs" / "e" / "b", lines=400)
    (tmp_path / "runs" / "e" / "a" / "states.png").write_bytes(PNG)
    (tmp_path / "runs" / "e" / "a" / "solve.GIF").write_bytes(b"GIF89a")
    (tmp_path / "runs" / "e" / "a" / "page.svg").write_text("<svg/>")
    (tmp_path / "secret.png").write_bytes(PNG)
    return tmp_path / "runs"


@pytest.fixture
def client(runs):
    return testclient.TestClient(server.make_app(Collection(roots_of([runs])), "127.0.0.1"), "http://127.0.0.1:8420")


@pytest.fixture
def ids(rows_of):
    """`ids(client)`: {name: id} of the runs."""
    return lambda client: {name: x["id"] for (_, name), x in rows_of(client.get("/api/runs").json()).items()}


def test_the_page_and_its_files(client):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert page.status_code == 200 and "script-src 'self';" in policy and "default-src 'none'" in policy
    assert "unsafe" not in policy and page.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in page.text and "style=" not in page.text
    for name in server.SCRIPTS:
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/javascript"), name
    assert {x.name for x in server.PAGE.iterdir()} - set(server.SCRIPTS) == {"index.html", "app.css", "data_flow.svg"}
    assert len(client.get("/page/plotly.min.js").content) > 1_000_000


def test_an_opened_run(client, ids):
    details = client.get(f"/api/run/{ids(client)['a']}").json()
    assert details["status"] == "finished" and details["images"] == ["solve.GIF", "states.png"]
    assert details["curves"]["step"] == [1000, 2000, 3000, 4000]
    assert details["curves"]["perf"] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert details["last"]["priority_max"] == 0.3
    assert len(client.get(f"/api/run/{ids(client)['b']}").json()["curves"]["step"]) == 200
    assert client.get("/api/run/0000").status_code == 404


def test_curves_of_many_runs(client, ids):
    known = ids(client)
    asked = {"ids": [*known.values(), "unknown"], "figure": "perf"}
    curves = client.post("/api/curves", content=json.dumps(asked)).json()
    assert curves["unknown"] is None and set(curves) == {*known.values(), "unknown"}
    assert curves[known["a"]] == {
        "step": [1000, 2000, 3000, 4000],
        "seconds": [0.5, 1.0, 1.5, 2.0],
        "values": [rounded(x / 5) for x in (1, 2, 3, 4)],
    }
    assert (
        client.post("/api/curves", content=json.dumps({**asked, "figure": "nothing"})).json()[known["a"]]["step"] == []
    )


@pytest.mark.parametrize(
    "body", ["", "[]", "3", '{"ids": 1, "figure": "x"}', '{"ids": [1], "figure": "x"}', "[" * 9999]
)
def test_a_bad_question_is_refused(client, body):
    assert client.post("/api/curves", content=body).status_code == 400


def test_too_long_a_question_is_refused(client):
    assert client.post("/api/curves", content="x" * (2 << 20)).status_code == 413


def test_pictures_of_a_run(client, ids):
    name = ids(client)["a"]
    answer = client.get(f"/api/image/{name}", params={"name": "states.png"})
    assert answer.content == PNG and answer.headers["content-type"] == "image/png"
    assert client.get(f"/api/image/{name}", params={"name": "solve.GIF"}).headers["content-type"] == "image/gif"


@pytest.mark.parametrize("name", [
    "../../../secret.png", "/etc/passwd", "..%2f..%2f..%2fsecret.png", "config.toml", "page.svg", "", "states.png\0",
    "./states.png", "a/states.png", "link.png", "../a/states.png",
])  # fmt: skip
def test_no_other_file_is_given(client, runs, name, ids):
    (runs / "e" / "a" / "link.png").symlink_to(runs.parent / "secret.png")
    answer = client.get(f"/api/image/{ids(client)['a']}", params={"name": name})
    assert answer.status_code == 404 and PNG not in answer.content


@pytest.mark.parametrize("path", [
    "/page/../server.py", "/page/..%2fserver.py", "/page/%2e%2e/server.py", "/page/index.html", "/page//etc/passwd",
    "/page/..%5cserver.py", "/../../../../etc/passwd", "//etc/passwd", "/api/image/..%2f..%2fsecret.png", "/secret.png",
    "/api/run/..%2f..", "/page/app.js%00", "/page/__init__.py", "/api/run/", "/page/",
])  # fmt: skip
def test_no_path_leads_out(client, path):
    assert client.get(path).status_code == 404


def test_nothing_can_be_written(client, runs, ids):
    def files():
        return {x: (x.stat().st_mtime_ns, x.stat().st_size) for x in sorted(runs.rglob("*"))}

    before, name = files(), ids(client)["a"]
    for method in ("PUT", "DELETE", "PATCH", "POST"):
        for path in ("/", "/api/runs", f"/api/run/{name}", f"/api/image/{name}?name=states.png", "/page/app.js"):
            assert client.request(method, path).status_code == 405
    client.get(f"/api/run/{name}")
    client.post("/api/curves", content=json.dumps({"ids": [name], "figure": "perf"}))
    assert files() == before


def test_another_name_of_this_host_is_refused(runs):
    def status(bound, host):
        app = server.make_app(Collection(roots_of([runs])), bound)
        return testclient.TestClient(app, "http://127.0.0.1").get("/api/runs", headers={"host": host}).status_code

    assert status("127.0.0.1", "evil.example:8420") == status("127.0.0.1", "") == 403
    assert status("127.0.0.1", "localhost:8420") == status("127.0.0.1", "127.0.0.1") == 200
    assert status("::1", "[::1]:8420") == status("::1", "[::1]") == 200
    assert status("box.lan", "BOX.lan:1") == status("0.0.0.0", "anything") == 200


def test_where_nobody_can_listen_the_flag_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ValueError, match=r"--host 127.0.0.1 --port \d+: Address already in use"):
            server.bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ValueError, match=r"--host 203.0.113.7 --port 0: Cannot assign"):
        server.bind("203.0.113.7", 0)
    listener = server.bind("127.0.0.1", 0)
    assert listener.getsockname()[0] == "127.0.0.1"
    listener.close()


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(
        ValueError, match=r"needs uvicorn, which is not installed: pip install 'pufferjax\[constellation\]'"
    ):
        server.check_packages()


def test_the_diagram_of_the_documentation_is_that_of_the_page():
    root = Path(__file__).resolve().parents[3]
    assert (root / "docs" / "images" / "data_flow.svg").read_bytes() == (server.PAGE / "data_flow.svg").read_bytes()
    assert "images/data_flow.svg" in (root / "docs" / "design.md").read_text()
