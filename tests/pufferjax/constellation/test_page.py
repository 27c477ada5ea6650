"""The page in a real browser: every view drawn, filters, opening a run, a live one, keys, and the exported file."""

import base64
import contextlib
import json
import threading
import time

import pytest

from pufferjax.constellation import server
from pufferjax.constellation.collection import Collection
from pufferjax.constellation.export import export
from pufferjax.constellation.folders import roots_of
from pufferjax.runs.files import locked

# One pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
EVIL = "<img src=x onerror=\"document.title='owned'\">"

# The number of pixels of the first canvas in the view that something is drawn on.
DRAWN = """[...document.querySelectorAll('#view canvas')].map((canvas) => {
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 3; i < data.length; i += 4) if (data[i]) count++;
  return count;
})"""


@contextlib.contextmanager
def serving(folder):
    """The address of a server of the runs in `folder`."""
    listener = server.bind("127.0.0.1", 0)
    running = server.make_server(Collection(roots_of([folder])), "127.0.0.1")
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        running.should_exit = True
        thread.join()
        listener.close()


def text_of(browser, selector):
    return browser.ask(f"document.querySelector({json.dumps(selector)}).textContent")


def go(browser, tab, until):
    browser.ask(f"document.getElementById('tab-{tab}').click()")
    return browser.wait_for(until)


def label(browser):
    return browser.ask("document.querySelector('#view canvas')?.getAttribute('aria-label') ?? ''")


def test_the_page_in_a_browser(tmp_path, make_run, write_lines, record, browser_module):
    if browser_module.find_browser() is None:
        pytest.skip(f"none of {', '.join(browser_module.NAMES)} is installed")
    runs = tmp_path / "runs"
    for i in range(6):
        make_run(runs / "rates" / f"trial-{i:04d}", lines=20 + i, top=(i + 1) / 6, learning_rate=0.001 * 4**i, seed=i)
    make_run(runs / EVIL / "x", top=0.4, learning_rate=0.5)
    (runs / "rates" / "trial-0000" / "states.png").write_bytes(PNG)
    make_run(runs / "rates" / "broken", top=0.0).joinpath("config.toml").write_text(f"a = {EVIL}")
    live = make_run(runs / "now" / "live", finished=False, lines=30)
    page = tmp_path / "page.html"
    with locked(live), serving(runs) as address, browser_module.Browser() as browser:
        export(Collection(roots_of([runs])), page)
        browser.open(address)
        check_views(browser)
        check_filters(browser)
        check_table_and_run(browser)
        check_live_run(browser, live, write_lines, record)
        check_keys(browser)
        # Plotly asks for a style of its maps' library, and whether it may make functions of texts. It may not.
        complaints = [x for x in browser.complaints if "Content Security Policy" not in x and "Canvas2D" not in x]
        assert complaints == []
        browser.open("about:blank")
        check_exported(browser, page)
        assert browser.ask("document.title") == "Constellation"


def check_views(browser):
    browser.wait_for("document.querySelector('.plot')?.dataset.points")
    # The broken run has figures, but no setting; the live one no final evaluation.
    assert browser.ask("document.querySelector('.plot').dataset.points") == "7"
    assert text_of(browser, "#state") == "9 runs, 1 live"
    assert "2 of 9 runs have no place here" in text_of(browser, "#view .note")
    assert browser.ask("document.querySelectorAll('#view .gl-container canvas').length") > 0
    assert browser.ask("[...document.querySelectorAll('.legend span')].map((x) => x.textContent)") == [EVIL, "rates"]
    go(browser, "cost", "document.querySelector('#view canvas')?.getAttribute('aria-label')")
    assert label(browser) == "evaluation.perf against wall_seconds: 8 runs, 5 on the Pareto front"
    assert browser.ask(DRAWN)[0] > 1000
    go(browser, "settings", "document.querySelectorAll('#view canvas[aria-label]').length >= 2")
    labels = browser.ask("[...document.querySelectorAll('#view canvas')].map((x) => x.getAttribute('aria-label'))")
    assert "evaluation.perf by ppo.learning_rate: 7 boxes" in labels
    assert min(browser.ask(DRAWN)) > 500
    go(browser, "curves", "document.querySelector('#view canvas')?.getAttribute('aria-label')")
    assert label(browser) == "perf over steps: 3 experiments" and browser.ask(DRAWN)[0] > 1000
    assert "rates (7)" in browser.ask("[...document.querySelectorAll('.legend span')].map((x) => x.textContent)")
    browser.ask("""(() => {
      const select = document.querySelector('#view [aria-label=Over]');
      select.value = 'seconds';
      select.dispatchEvent(new Event('change'));
    })()""")
    browser.wait_for(
        "document.querySelector('#view canvas').getAttribute('aria-label') === 'perf over seconds: 3 experiments'"
    )


def check_filters(browser):
    """A range of the rate, an experiment, the name; then none of them."""
    go(browser, "table", "document.querySelectorAll('tbody tr.run').length === 9")

    def add_range(key, end, value):
        browser.ask(f"""(() => {{
          const column = document.querySelector('[aria-label="Figure or setting of a new range"]');
          column.value = '{key}';
          column.nextElementSibling.click();
          const input = document.querySelector('[aria-label="{key.partition(":")[2]}, {end}"]');
          input.value = '{value}';
          input.dispatchEvent(new Event('input'));
        }})()""")

    def names():
        return sorted(browser.ask("[...document.querySelectorAll('tbody tr.run button')].map((x) => x.textContent)"))

    add_range("setting:ppo.learning_rate", "least", 0.01)
    browser.wait_for("document.querySelectorAll('tbody tr.run').length === 6")
    assert names() == ["live", "trial-0002", "trial-0003", "trial-0004", "trial-0005", "x"]
    assert text_of(browser, "#state") == "6 of 9 runs, 1 live"
    add_range("figure:evaluation.perf", "most", 0.7)
    browser.wait_for("document.querySelectorAll('tbody tr.run').length === 3")
    assert names() == ["trial-0002", "trial-0003", "x"]
    slide = "const x = document.querySelector('[aria-label=\"evaluation.perf, most, slider\"]'); x.value = 1000;"
    browser.ask(f"(() => {{ {slide} x.dispatchEvent(new Event('input')); }})()")
    browser.wait_for("document.querySelectorAll('tbody tr.run').length === 6")
    browser.ask("[...document.querySelectorAll('#filters li input')].find((x) => x.value === 'rates').click()")
    browser.wait_for("document.querySelectorAll('tbody tr.run').length === 2")
    browser.ask(
        "[...document.querySelectorAll('#filters button')].find((x) => x.textContent === 'Clear all filters').click()"
    )
    browser.wait_for("document.querySelectorAll('tbody tr.run').length === 9")


def check_table_and_run(browser):
    """Sorting, the reason of the broken run, and a click that opens a run."""
    head = "[...document.querySelectorAll('thead button')].find((x) => x.textContent.startsWith('evaluation.perf'))"
    browser.ask(f"{head}.click()")
    cells = browser.ask("[...document.querySelectorAll('tbody tr.run')].map((x) => x.cells[3].textContent)")
    values = [float(x) for x in cells if x != "–"]
    assert len(values) == 8 and values == sorted(values, reverse=True) and cells[-1] == "–"
    assert browser.ask("document.querySelector('th[aria-sort=descending]').textContent") == "evaluation.perf ▼"
    assert "config.toml: " in text_of(browser, "td.status-broken .problem")
    assert browser.ask("[...document.querySelectorAll('thead th')].some((x) => x.textContent === 'ppo.learning_rate')")
    browser.ask(
        "[...document.querySelectorAll('tbody tr.run')].find((x) => x.cells[1].textContent === 'trial-0000').click()"
    )
    browser.wait_for("document.querySelectorAll('#view canvas[aria-label]').length >= 5")
    assert browser.ask("location.hash").startswith("#run/")
    assert text_of(browser, "h2") == "rates / trial-0000"
    settings = browser.ask("[...document.querySelectorAll('#view table tr')].map((x) => x.textContent)")
    assert "ppo.learning_rate0.001" in settings
    browser.wait_for("document.querySelector('.images img')?.naturalWidth === 1")
    flow = browser.ask("[...document.querySelectorAll('[data-figure]')].map((x) => x.textContent)")
    assert "2k steps/s" in flow and "500 ms per epoch" in flow and "4 inserted per epoch" in flow
    assert "25 % of environments" in flow and "3 rewards per epoch" in flow
    # No time of a stage was written, and none is shown.
    assert set(browser.ask("[...document.querySelectorAll('[data-stage]')].map((x) => x.textContent)")) == {""}


def check_live_run(browser, live, write_lines, record):
    """What is appended to a live run is seen without a reload, and what a stage takes once that is written."""
    go(browser, "table", "document.querySelectorAll('tbody tr.run').length === 9")
    browser.ask("[...document.querySelectorAll('tbody tr.run')].find((x) => x.cells[1].textContent === 'live').click()")
    browser.wait_for("document.querySelector('h2')?.textContent === 'now / live'")
    browser.wait_for("!!document.querySelector('.flow-picture.live')")
    stages = {"rollout": 0.03, "minibatches": 0.01}
    write_lines(live, [record(31, 0.875, steps_per_second=123456.0, stage_seconds=stages)])
    started = time.monotonic()
    browser.wait_for("document.querySelector('[data-figure=steps_per_second]').textContent === '123k steps/s'")
    assert time.monotonic() - started < 8
    assert text_of(browser, "[data-figure=perf]") == "87.5 % of episodes solved"
    assert text_of(browser, "[data-stage=rollout]") == "30 ms, 75 %" and text_of(browser, "[data-stage=heap]") == ""


def check_keys(browser):
    """Tabs, points and the scatter without a mouse; a click on a point."""
    browser.ask("document.getElementById('tab-run').focus()")
    for _ in range(2):
        browser.press("ArrowRight")
    browser.wait_for("document.getElementById('tab-cost').getAttribute('aria-selected') === 'true'")
    browser.wait_for("document.querySelector('#view canvas')?.width > 600")
    browser.ask("document.querySelector('#view canvas').focus()")
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    hint = browser.wait_for("!document.getElementById('hint').hidden && document.getElementById('hint').textContent")
    assert hint == f"{EVIL} / x\nwall_seconds  2.5\nevaluation.perf  0.4\nexperiment  {EVIL}"
    browser.press("Enter")
    browser.wait_for("document.querySelector('h2')?.textContent.endsWith(' / x')")
    browser.ask("history.back()")
    browser.wait_for("document.querySelector('#view canvas')?.getAttribute('aria-label')?.includes('Pareto')")
    x, y = browser.ask("""(() => {
      const box = document.querySelector('#view canvas').getBoundingClientRect();
      return [box.right - 14, box.top];
    })()""")
    found = None
    for down in range(10, 200, 6):  # the best and dearest run is at the upper right
        for left in range(10, 60, 8):
            browser.move(x - left, y + down)
            if not browser.ask("document.getElementById('hint').hidden"):
                found = x - left, y + down
                break
        if found:
            break
    browser.click(*found)
    browser.wait_for("document.querySelector('h2')?.textContent === 'rates / trial-0005'")
    go(browser, "scatter", "document.querySelector('.plot')?.dataset.points")
    eye = "JSON.stringify(document.querySelector('.plot').layout.scene.camera?.eye)"
    before = browser.ask(eye)
    browser.ask("document.querySelector('.plot').focus()")
    browser.press("ArrowLeft")
    browser.wait_for(f"{eye} && {eye} !== {json.dumps(before)}")
    browser.prefer("dark")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 26)"


def check_exported(browser, page):
    """The one file, opened from the disk."""
    browser.complaints.clear()
    browser.open(page.as_uri())
    browser.wait_for("document.querySelector('.plot')?.dataset.points === '7'")
    assert text_of(browser, "#state") == "9 runs, 1 live · exported"
    go(browser, "cost", "document.querySelector('#view canvas')?.getAttribute('aria-label')")
    assert "8 runs, 5 on the Pareto front" in label(browser) and browser.ask(DRAWN)[0] > 1000
    go(browser, "curves", "document.querySelector('#view canvas')?.getAttribute('aria-label')")
    assert label(browser) == "perf over steps: 3 experiments" and browser.ask(DRAWN)[0] > 1000
    go(browser, "table", "document.querySelectorAll('tbody tr.run').length === 9")
    browser.ask(
        "[...document.querySelectorAll('tbody tr.run')].find((x) => x.cells[1].textContent === 'trial-0000').click()"
    )
    browser.wait_for("document.querySelector('.images img')?.naturalWidth === 1")
    browser.wait_for("document.querySelectorAll('#view canvas[aria-label]').length >= 5")
    assert text_of(browser, "[data-figure=steps_per_second]") == "2k steps/s"
    complaints = [x for x in browser.complaints if "Content Security Policy" not in x and "Canvas2D" not in x]
    assert complaints == []
    assert (
        browser.ask("performance.getEntriesByType('resource').filter((x) => !x.name.startsWith('data:')).length") == 0
    )
