"""One file with the page, its scripts and what it shows: it opens without a server or a network."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pufferjax.constellation import one_run
from pufferjax.constellation.collection import Collection
from pufferjax.constellation.folders import IMAGES
from pufferjax.constellation.server import EMPTY, PAGE, SCRIPTS, details, plotly_script
from pufferjax.runs.files import write_atomically

_NUMBERS = 3_000_000  # in all curves together
_MAX_POINTS = 200
_IMAGE_BYTES, _ALL_IMAGE_BYTES = 4 << 20, 64 << 20
# Where many runs share the numbers, curves are of these alone.
_MAIN = ("step", "wall_seconds", "perf", "score", "episode_return", "steps_per_second", "loss", "entropy",
         "state_set_size", "restarted_share")  # fmt: skip
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([a-z]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)


def export(collection: Collection, path: Path) -> int:
    """Writes the page with every run; how many these are. ValueError if there is none, OSError if `path` cannot be
    written. More runs have fewer points in each of their curves, and of very many only the main figures have curves."""
    collection.refresh()
    ids = collection.ids()
    if not ids:
        raise ValueError("there is no run in the folders: no config.toml, metrics.jsonl or summary.json")
    runs = collection.changes()
    data = f'{{"runs": {runs}, "details": {json.dumps(_details(collection, ids))}}}'
    write_atomically(path, page_of(data))
    return len(ids)


def _details(collection: Collection, ids: list[str]) -> dict:
    is_few = len(ids) <= 1000
    count = max(8, min(_MAX_POINTS, _NUMBERS // (len(ids) * (60 if is_few else len(_MAIN)))))
    left, all_details = _ALL_IMAGE_BYTES, {}
    for name in ids:
        found = collection.find(name)
        facts = details(collection, found, count)
        if not is_few:
            facts["curves"] = {x: facts["curves"][x] for x in _MAIN if x in facts["curves"]}
        images = []
        for image in facts["images"]:
            try:
                content = one_run.file_of(found, image, min(_IMAGE_BYTES, left))
            except OSError:
                continue
            left -= len(content)
            kind = IMAGES[os.path.splitext(image)[1].lower()]
            images.append({"name": image, "data": f"data:{kind};base64,{base64.b64encode(content).decode()}"})
        facts["images"] = images
        all_details[name] = facts
    return all_details


def page_of(data: str) -> str:
    """The page with `data`, JSON, in it."""
    plotly = plotly_script().decode()
    scripts = [_inline(plotly), _inline(_one_script())]
    svg = (PAGE / "data_flow.svg").read_text(encoding="utf-8")
    style = "\n" + (PAGE / "app.css").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes([style])} {EMPTY}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    embedded = json.dumps({"svg": svg})[:-1] + ", " + data[1:]
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n'
        f'<script type="application/json" id="embedded">{_as_text(embedded)}</script>\n'
        f"<script>{scripts[0]}</script>\n"
        f'<script type="module">{scripts[1]}</script>\n'
    )
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    begin, end = page.index("<!-- files -->"), page.index("<!-- end of files -->")
    return page[:begin] + head + page[end:]


def _one_script() -> str:
    """The page's modules as one: a file opened without a server may not import another."""
    modules = ["const modules = {};\n"]
    for name in SCRIPTS:
        source = (PAGE / name).read_text(encoding="utf-8")
        exported = ", ".join(match[2] for match in _EXPORT.finditer(source))
        body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(r'const \1 = modules["\2"];', source))
        modules.append(f'modules["{name}"] = (() => {{\n{body}return {{ {exported} }};\n}})();\n')
    return "".join(modules)


def _as_text(data: str) -> str:
    """JSON within which no HTML is seen."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inline(script: str) -> str:
    """A script that does not end the element it is in; in JavaScript these are the same strings."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hashes(scripts: Iterable[str]) -> str:
    digests = (hashlib.sha256(x.encode()).digest() for x in scripts)
    return " ".join(f"'sha256-{base64.b64encode(x).decode()}'" for x in digests)
