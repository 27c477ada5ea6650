"""Hooks of MkDocs: the package as it is installed, for the reference pages; pictures and files from outside docs/.

The folders xla_ops/ and envs/ are subpackages of pufferjax only where it is installed, so their Python files are copied
to build/docs/pufferjax/, where mkdocstrings reads them; nothing is imported.

Pages link to a picture as a reader of the repository would, `../experiments/results/x.png`; on the site the pictures
lie in `experiments/results/`. `<!-- file: PATH -->` is replaced by the file, in a fence if it is Python, and
`<!-- settings: PATH CLASS PREFIX -->` by a table of the flags that the fields of a dataclass become.
"""

import ast
import re
import shutil
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "build" / "docs" / "pufferjax"  # its parent: `paths` in mkdocs.yml


def on_config(config):
    shutil.rmtree(PACKAGE, ignore_errors=True)
    for source, target in (("pufferjax", PACKAGE), ("xla_ops", PACKAGE / "xla_ops"), ("envs", PACKAGE / "envs")):
        for path in (ROOT / source).rglob("*.py"):
            copy = target / path.relative_to(ROOT / source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return config


def on_files(files, config):
    for path in sorted((ROOT / "experiments" / "results").iterdir()):
        if path.suffix in (".png", ".gif"):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def _file(match):
    path = ROOT / match[1]
    text = path.read_text()
    return f"```python\n{text}```" if path.suffix == ".py" else text


def _settings(match):
    """Default and meaning of each field: the comment beside it, or the lines of comment above."""
    source = (ROOT / match[1]).read_text()
    lines = source.splitlines()
    (body,) = (node.body for node in ast.parse(source).body if getattr(node, "name", "") == match[2])
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    for node in body:
        if not isinstance(node, ast.AnnAssign) or isinstance(node.value, ast.Call):  # a nested section
            continue
        meaning = [lines[node.end_lineno - 1][node.end_col_offset :].strip()]
        if not meaning[0]:
            first = node.lineno - 1
            while lines[first - 1].strip().startswith("#"):
                first -= 1
            meaning = lines[first : node.lineno - 1]
        text = " ".join(line.strip().removeprefix("# ") for line in meaning).replace("|", "\\|")
        assert text, f"{match[2]}.{node.target.id} has no comment"
        flag = f"--{match[3]}{node.target.id}".replace("_", "-")
        rows.append(f"| `{flag}` | `{ast.unparse(node.value)}` | {text} |")
    return "\n".join(rows)


def on_page_markdown(markdown, page, config, files):
    markdown = re.sub(r"^<!-- file: (\S+) -->$", _file, markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^<!-- settings: (\S+) (\w+) ?(\S*) -->$", _settings, markdown, flags=re.MULTILINE)
    return markdown.replace("](../experiments/results/", "](experiments/results/")
