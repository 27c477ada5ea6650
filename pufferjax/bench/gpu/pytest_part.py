"""A pytest plugin for a child of `pufferjax bench gpu`: it runs every n-th test and sends the outcome of each.

python -m pytest -p pufferjax.bench.gpu.pytest_part TESTS
"""

from pufferjax.bench.gpu.child import Sender, order

PHASE = "tests"
_LIMIT = 120.0  # seconds for one test

_sender: Sender


def pytest_configure():
    global _sender
    _sender = Sender(order()["events"])


def pytest_collection_modifyitems(config, items):
    (part, parts), done = order()["part"], set(order()["done"])
    chosen = [item for item in items[part::parts] if item.nodeid not in done]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def pytest_runtest_logstart(nodeid, location):
    _sender.begin(PHASE, nodeid, _LIMIT)


def pytest_runtest_logreport(report):
    if report.failed:
        lines = [line for line in str(report.longrepr).splitlines() if line.strip()]
        error = next((line for line in reversed(lines) if line.startswith("E ")), lines[-1] if lines else "")
        _sender.row(PHASE, report.nodeid, "failed", seconds=report.duration, error=error, trace="\n".join(lines[-60:]))
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _sender.row(PHASE, report.nodeid, "skipped", error=reason)
    elif report.when == "call":
        _sender.row(PHASE, report.nodeid, "ok", seconds=report.duration)


def pytest_runtest_logfinish(nodeid, location):
    _sender.end(PHASE, nodeid)


def pytest_collectreport(report):
    if report.failed:
        _sender.row(PHASE, f"collecting {report.nodeid}", "failed", error=str(report.longrepr)[-2000:])
