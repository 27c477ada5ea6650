"""A pytest plugin for a child of `pufferjax bench gpu`: it runs every n-th test and sends the outcome of each.

python -m pytest -p pufferjax.bench.gpu.pytest_part TESTS
"""

import os

from pufferjax.bench.gpu.child import AGAIN, Sender, order, still_works

PHASE = "tests"
_LIMIT = 120.0  # seconds for one test
_LONGEST = 600  # characters of an error in its row

_sender: Sender
_failed = False


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
    global _failed
    _failed |= report.failed
    if report.failed:
        lines = [line for line in str(report.longrepr).splitlines() if line.strip()]
        error = " | ".join(line[1:].strip() for line in lines if line.startswith("E "))[:_LONGEST] or lines[-1:]
        _sender.row(PHASE, report.nodeid, "failed", seconds=report.duration, error=error, trace="\n".join(lines[-60:]))
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _sender.row(PHASE, report.nodeid, "skipped", error=reason)
    elif report.when == "call":
        _sender.row(PHASE, report.nodeid, "ok", seconds=report.duration)


def pytest_runtest_logfinish(nodeid, location):
    global _failed
    _sender.end(PHASE, nodeid)
    if _failed and not still_works():  # all further tests of this process would fail
        os._exit(AGAIN)
    _failed = False


def pytest_collectreport(report):
    if report.failed:
        _sender.row(PHASE, f"collecting {report.nodeid}", "failed", error=str(report.longrepr)[-2000:])
