"""report.html in a headless Chromium: its charts have content, it logs no error and asks the network for nothing.

html_test.py RENDER_EXAMPLE   (the test program that writes an example report into a folder)
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from browser import Browser, find_chromium

SKIPPED = 77
CHARTS = ["distribution", "differences", "layers", "opportunities", "heatmap", "matrix", "adjacent", "growth", "clusters",
          "heads", "norms"]
# Of the A/B example: points, and traces where their number tells something. Eight rows, one without a finite KL and one
# without effect, which stands where the baseline does.
AB_CHARTS = {"front": (6 + 5 + 3 + 2 + 2, 6 + 2 + 1 + 1), "perplexity": (6 + 3 + 2 + 2, 6 + 2 + 1), "positions": (7 * 16, 8),
             "bytes": (8 * 5, 6), "layers": (8 * 4, 1), "capacity": (16, 2), "speed": (16, 2)}
failures = []


def check(condition, message):
    if not condition:
        failures.append(message)
        print("FAILED:", message, flush=True)


def cached_plotly():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = pathlib.Path(os.environ.get("KVANALYZE_PLOTLY") or pathlib.Path(cache) / "kvanalyze/assets/plotly.min.js")
    return path if path.is_file() else None


def render(kind, folder, plotly):
    subprocess.run([sys.argv[1], kind, folder, *([str(plotly)] if plotly else [])], check=True, timeout=120,
                   env={**os.environ, "XDG_CACHE_HOME": "/nonexistent", "HOME": "/nonexistent"})


def own_text(page):
    """The page without the library and the embedded pictures."""
    text = re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "", page, flags=re.S)
    return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "data:", text)


def check_offline(browser, label):
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))]
    check(not outside, f"{label}: the page asked for {outside[:3]}")
    check(not browser.problems, f"{label}: the console says {browser.problems[:3]}")


def check_static(page, label):
    check(not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", own_text(page)), f"{label}: a link leads outside")
    check("connect-src" in page or "default-src 'none'" in page, f"{label}: no content security policy")
    for setting in ("displaylogo: false", 'plotlyServerURL: ""', "sendChartToCloud"):
        check(setting in own_text(page), f"{label}: {setting} is not set")


def ink(browser, selector):
    """How many distinct colours and how much of the area differ from the background, counted by the browser."""
    return browser.value(f"""(async () => {{
      const chart = document.querySelector({selector!r});
      const url = await Plotly.toImage(chart, {{format: 'png', width: 500, height: 300}});
      const image = new Image(); image.src = url; await image.decode();
      const canvas = document.createElement('canvas'); canvas.width = 500; canvas.height = 300;
      const context = canvas.getContext('2d'); context.fillStyle = '#fff'; context.fillRect(0, 0, 500, 300);
      context.drawImage(image, 0, 0);
      const data = context.getImageData(0, 0, 500, 300).data; const colours = new Set(); let drawn = 0;
      for (let i = 0; i < data.length; i += 4) {{
        const colour = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2]; colours.add(colour);
        if (Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 40) drawn += 1;
      }}
      return [colours.size, drawn]; }})()""")


def check_charts(browser, label):
    for name in CHARTS:
        selector = f"#chart-{name}"
        check(browser.value(f"document.querySelector('{selector}').classList.contains('js-plotly-plot')"), f"{label}: {name} is not drawn")
        points = int(browser.value(f"document.querySelector('{selector}').dataset.points") or 0)
        check(points > 5, f"{label}: {name} has {points} points")
        colours, drawn = ink(browser, selector)
        check(colours > 10 and drawn > 100, f"{label}: {name} looks blank ({colours} colours, {drawn} coloured pixels)")


def check_ab(browser, label):
    for name, (points, traces) in AB_CHARTS.items():
        data = browser.value(f"({{...document.querySelector('#chart-{name}').dataset}})")
        check((data.get("points"), data.get("traces")) == (str(points), str(traces)), f"{label}: {name} shows {data}")
        colours, drawn = ink(browser, f"#chart-{name}")
        check(colours > 10 and drawn > 100, f"{label}: {name} looks blank ({colours} colours, {drawn} coloured pixels)")
    for name in ("front", "perplexity"):
        # Names of recipes lie inside the plot and not on one another.
        crossing = browser.value(f"""(() => {{
          const chart = document.querySelector('#chart-{name}');
          const boxes = [...chart.querySelectorAll('.annotation-text-g .bg')].map((text) => text.getBoundingClientRect());
          const plot = chart.querySelector('.nsewdrag').getBoundingClientRect(); let crossing = 0;
          boxes.forEach((a, i) => {{
            if (a.left < plot.left - 1 || a.right > plot.right + 1 || a.top < plot.top - 1 || a.bottom > plot.bottom + 1) crossing += 1;
            for (const b of boxes.slice(0, i))
              if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) crossing += 1; }});
          return [boxes.length, crossing]; }})()""")
        check(crossing == [6, 0], f"{label}: names in {name}, and those in the way of one another: {crossing}")


def check_ab_page(browser, folder, plotly):
    render("ab", folder, plotly)
    check_static((folder / "report.html").read_text(), "ab")
    for scheme in ("light", "dark"):
        browser.appearance(scheme)
        browser.open(folder / "report.html")
        browser.wait("document.documentElement.dataset.charts !== undefined")
        check_ab(browser, "ab " + scheme)
        check_offline(browser, "ab " + scheme)
    browser.value("""document.querySelectorAll('.controls select').forEach((select) => {
      for (const option of [...select.options].reverse()) { select.value = option.value; select.dispatchEvent(new Event('change')); } })""")
    check_ab(browser, "ab after every control")
    order = browser.value("""(() => { const table = document.querySelector('#table-ab');
      const headers = [...table.tHead.rows[0].cells]; const column = headers.findIndex((h) => h.textContent === 'bits/value');
      headers[column].querySelector('button').click();
      return [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.sort)); })()""")
    check(len(order) == 8 and order == sorted(order), f"sorting by bits gives {order}")
    browser.size(390, 800)
    browser.wait("document.documentElement.scrollWidth <= innerWidth + 1", 10)
    browser.wait("document.querySelector('#chart-front .nsewdrag').getBoundingClientRect().width < 390", 10)
    browser.size(1280, 1000)
    check_offline(browser, "ab after every control")


def check_judged_page(browser, folder, plotly):
    """A redundancy report that ends with recipes: their chart stands among the others."""
    render("judged", folder, plotly)
    browser.open(folder / "report.html")
    browser.wait("document.documentElement.dataset.charts !== undefined")
    check_charts(browser, "judged")
    data = browser.value("({...document.querySelector('#chart-front').dataset})")
    points, traces = AB_CHARTS["front"]
    check((data.get("points"), data.get("traces")) == (str(points), str(traces)), f"judged: front shows {data}")
    check_offline(browser, "judged")


def check_controls(browser):
    """Every choice of every control draws; a header sorts its table."""
    count = browser.value("document.querySelectorAll('.controls select, .controls input').length")
    check(count >= 12, f"{count} controls")
    browser.value("""document.querySelectorAll('.controls select').forEach((select) => {
      const first = select.value;
      for (const option of select.options) { select.value = option.value; select.dispatchEvent(new Event('change')); }
      select.value = first; select.dispatchEvent(new Event('change')); })""")
    browser.value("""document.querySelectorAll('.controls input').forEach((input) => {
      input.value = input.max; input.dispatchEvent(new Event('input')); })""")
    check(browser.value("document.querySelector('#controls-heatmap output').textContent") == "3", "the layer slider shows the last layer")
    sorted_column = browser.value("""(() => { const table = document.querySelector('#table-heads table');
      const headers = [...table.tHead.rows[0].cells]; const column = headers.findIndex((h) => h.textContent === 'mean');
      headers[column].querySelector('button').click();
      return [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.sort)); })()""")
    check(len(sorted_column) == 8 and sorted_column == sorted(sorted_column), f"sorting by mean gives {sorted_column}")


def check_hostile(browser, kind, folder, plotly):
    render(kind, folder, plotly)
    browser.open(folder / "report.html")
    browser.wait("document.documentElement.dataset.charts !== undefined")
    check(not browser.value("window.pwned"), "script in a name ran")
    check(browser.value("document.querySelectorAll('img[src=\"x\"], main b b, iframe').length") == 0, "markup in a name became elements")
    check(browser.value("[...document.querySelectorAll('svg a')].every((a) => !a.getAttribute('xlink:href'))"), "a link in a name works")
    check_offline(browser, kind)


def main():
    program = find_chromium()
    plotly = cached_plotly()
    if not program or not plotly:
        print(f"skipped: {'chromium' if not program else 'plotly.min.js (scripts/fetch_plotly.py)'} is not here")
        return SKIPPED
    work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-html-"))
    browser = Browser(program)
    try:
        render("plain", work / "full", plotly)
        check_static((work / "full/report.html").read_text(), "full")
        for scheme in ("light", "dark"):
            browser.appearance(scheme)
            browser.open(work / "full/report.html")
            browser.wait("document.documentElement.dataset.charts !== undefined")
            check_charts(browser, scheme)
            check_offline(browser, scheme)
        check_controls(browser)
        check_offline(browser, "after every control")
        browser.size(390, 800)
        browser.wait("document.documentElement.scrollWidth <= innerWidth + 1", 10)  # a phone does not scroll sideways
        browser.size(1280, 1000)
        check_hostile(browser, "hostile", work / "hostile", plotly)
        check_ab_page(browser, work / "ab", plotly)
        check_judged_page(browser, work / "judged", plotly)
        check_hostile(browser, "hostile-ab", work / "hostile-ab", plotly)
        # Without the library: the summary, the tables and the pictures, and a line that says how to get more.
        render("plain", work / "static", None)
        page = (work / "static/report.html").read_text()
        check("fetch_plotly.py" in page, "static: no line says how to get charts")
        browser.open(work / "static/report.html")
        if shutil.which("gnuplot"):
            check(browser.value("[...document.images].length >= 8 && [...document.images].every((i) => i.naturalWidth > 500)"),
                  "static: the pictures are missing")
        check(browser.value("document.querySelectorAll('table').length") >= 8, "static: tables are missing")
        check_offline(browser, "static")
        render("ab", work / "static-ab", None)
        browser.open(work / "static-ab/report.html")
        if shutil.which("gnuplot"):
            check(browser.value("[...document.images].length == 4 && [...document.images].every((i) => i.naturalWidth > 500)"),
                  "static ab: the pictures are missing")
        check_offline(browser, "static ab")
    finally:
        browser.close()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
