"""`kvanalyze dashboard`: its files, and its page in a headless Chromium.

dashboard_test.py KVANALYZE
"""
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import example_trials
from browser import Browser, find_chromium

SKIPPED = 77
PROGRAM = sys.argv[1]
CHARTS = ["tradeoff", "cache", "layers", "times", "tokentimes", "memory", "quality", "counters"]
failures = []


def check(condition, message):
    if not condition:
        failures.append(message)
        print("FAILED:", message, flush=True)


def cached_plotly():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = pathlib.Path(os.environ.get("KVANALYZE_PLOTLY") or pathlib.Path(cache) / "kvanalyze/assets/plotly.min.js")
    return path if path.is_file() else None


def dashboard(folder, *options, plotly=None):
    options = [*options, *(["--plotly", str(plotly)] if plotly else [])]
    return subprocess.run([PROGRAM, "dashboard", str(folder), *options], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
                          env={**os.environ, "XDG_CACHE_HOME": "/nonexistent", "HOME": "/nonexistent"})


def check_files(folder, rows, done):
    check(done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-300:]}")
    check((folder / "keep.txt").read_text() == "mine" and (folder / "plots/mine.png").read_text() == "mine", "files of others are gone")
    with open(folder / "dashboard.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    check(len(lines) == len(rows), f"dashboard.csv has {len(lines)} rows of {len(rows)}")
    for line, row in zip(lines, rows):
        check((line["trial"], line["status"], line["strategy"]) == (row["trial"], row["status"], row["strategy"]), f"dashboard.csv: {line['trial']}")
        if row["status"] == "ok":
            held = sum(row["ledger"][part] for part in ("payload", "scales", "side", "tables", "slack"))
            check(float(line["held_bytes"]) == held, f"dashboard.csv: {line['held_bytes']} bytes, not {held}")
            check(abs(float(line["prefill_s"]) - row["timing"]["prefill_s"]) < 1e-8, "dashboard.csv: prefill")
    comparison = (folder / "comparison.md").read_text()
    for wanted in ("## Failed trials", "### Worst samples", "bytes a token", "**Smallest cache.**", "lines ", "Prompt set code"):
        check(wanted in comparison, f"comparison.md lacks {wanted}")
    if shutil.which("gnuplot"):
        pictures = sorted(path.name for path in (folder / "plots").glob("dashboard_*.png"))
        check(len(pictures) == 8, f"pictures: {pictures}")


def check_quiet(browser, label):
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))]
    check(not outside, f"{label}: the page asked for {outside[:3]}")
    check(not browser.problems, f"{label}: the console says {browser.problems[:3]}")


def open_page(browser, folder):
    browser.open(folder / "dashboard.html")
    browser.wait("document.documentElement.dataset.charts !== undefined")


def chart(browser, name):
    data = browser.value(f"({{...document.querySelector('#chart-{name}').dataset}})")
    return int(data.get("points") or 0), int(data.get("traces") or 0)


def choose(browser, key, value):
    """Ticks the filter's box whose name is `value`."""
    browser.value(f"""(() => {{
      const chip = [...document.querySelectorAll('[data-filter={key}] .chip')].find((one) => one.textContent === {json.dumps(value)});
      chip.querySelector('input').click(); }})()""")
    browser.wait("document.documentElement.dataset.charts !== undefined")


def pick(browser, name, control, value):
    browser.value(f"""(() => {{ const select = document.querySelector('#controls-{name} select[name={control}]');
      select.value = {json.dumps(value)}; select.dispatchEvent(new Event('change')); }})()""")


def table_rows(browser, place):
    return browser.value(f"document.querySelectorAll('#{place} tbody tr').length")


def groups_of(rows):
    return {(row["model"]["name"], row["strategy"]) for row in rows}


def check_counts(browser, label, rows):
    """What the page shows against what the rows say."""
    ok = [row for row in rows if row["status"] == "ok"]
    groups = len(groups_of(ok))
    check(table_rows(browser, "trial-table") == len(rows), f"{label}: {table_rows(browser, 'trial-table')} trials of {len(rows)}")
    check(table_rows(browser, "strategy-table") == len(groups_of(rows)), f"{label}: {table_rows(browser, 'strategy-table')} strategies")
    for name in ("cache", "memory", "tokentimes", "layers"):
        pick(browser, name, "lines", "mean") if name != "layers" else None
        check(chart(browser, name)[1] == groups, f"{label}: {name} has {chart(browser, name)} for {groups} strategies")
    check(chart(browser, "layers")[0] == groups * 6, f"{label}: layers show {chart(browser, 'layers')}")
    check(chart(browser, "times") == (4 * len(ok), 4 * groups), f"{label}: times show {chart(browser, 'times')}")
    scored = sorted((row["quality"]["kl_mean"] for row in ok if "quality" in row and row["strategy"] != "Baseline"), reverse=True)
    check(table_rows(browser, "worst-table") == min(12, len(scored)), f"{label}: {table_rows(browser, 'worst-table')} worst samples of {len(scored)}")
    judged = groups_of([row for row in ok if "quality" in row])
    expected = (4 * len(judged), 4) if judged else (0, 0)
    check(chart(browser, "quality") == expected, f"{label}: quality shows {chart(browser, 'quality')} for {expected}")
    for name, x, y in (("cache", "tokens", "bytes"), ("memory", "tokens", "bytes")):
        pick(browser, name, "lines", "each")
        points = sum(len(row["steps"][y]) for row in ok)
        check(chart(browser, name) == (points, len(ok)), f"{label}: {name} has {chart(browser, name)} for {points} points of {len(ok)} trials")
        pick(browser, name, "lines", "mean")
    says = browser.value("document.getElementById('says-cache').textContent")
    check(f"over {len(ok)} trial" in says, f"{label}: the sentence says {says}")
    failed = len(rows) - len(ok)
    check((f"{failed} failed trial" in says) == (failed > 0), f"{label}: the sentence says {says}")


def check_filters(browser, rows):
    check_counts(browser, "all", rows)
    strategy, model = rows[2]["strategy"], rows[2]["model"]["name"]
    choose(browser, "model", model)
    check_counts(browser, model, [row for row in rows if row["model"]["name"] == model])
    choose(browser, "strategy", strategy)
    check_counts(browser, strategy, [row for row in rows if (row["model"]["name"], row["strategy"]) == (model, strategy)])
    choose(browser, "set", "code")
    check_counts(browser, "one set", [row for row in rows if (row["model"]["name"], row["strategy"], row["prompt_set"]) == (model, strategy, "code")])
    choose(browser, "strategy", "Baseline")
    check_counts(browser, "two strategies", [row for row in rows if row["model"]["name"] == model and row["prompt_set"] == "code" and row["strategy"] in (strategy, "Baseline")])
    browser.value("document.getElementById('filter-clear').click()")
    browser.wait("document.documentElement.dataset.charts !== undefined")
    check_counts(browser, "all again", rows)


def check_samples(browser, rows):
    texts = browser.value("[...document.querySelectorAll('#sample-view .generated')].map((box) => box.textContent)")
    wanted = [turn["text"] for pair in zip(rows[0]["turns"], rows[1]["turns"]) for turn in pair]
    check(texts == wanted, f"the drill-down shows {texts}, not {wanted}")
    # What is not marked is the same on both sides.
    kept = browser.value("""[...document.querySelectorAll('#sample-view .generated')].map((box) =>
      [...box.childNodes].filter((node) => node.nodeName !== 'MARK').map((node) => node.textContent).join(' ').split(/\\s+/).filter(Boolean).join(' '))""")
    check(kept[0] == kept[1] and kept[2] == kept[3] and len(kept[0]) > 10, f"unmarked words differ: {kept}")
    browser.value("""(() => { const select = document.querySelector('#sample-controls select[name=right]'); select.value = select.options[2].value;
      select.dispatchEvent(new Event('change')); })()""")
    check(browser.value("document.querySelectorAll('#sample-view h3')[1].textContent") == rows[2]["strategy"], "the right side does not follow its control")


def check_controls(browser, label):
    # Some choices make the controls anew.
    browser.value("""[...document.querySelectorAll('section .controls select')].map((select) => [select.closest('.controls').id, select.name])
      .forEach(([id, name]) => {
        const now = () => document.querySelector(`#${id} select[name=${name}]`);
        for (let i = now().options.length - 1; i >= 0; i -= 1) {
          now().selectedIndex = Math.min(i, now().options.length - 1); now().dispatchEvent(new Event('change')); } })""")
    for name in CHARTS:
        check(chart(browser, name)[0] > 0, f"{label}: {name} is empty after its controls")
    check_quiet(browser, label)


def hostile_rows():
    evil = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1"><a href="javascript:1">%{y}\u2028</a>{{model}}'
    rows = example_trials.rows(samples=2, models=[evil, "b"], failures=True)
    for row in rows:
        row.update(experiment=evil, sample=evil + row["sample"], prompt_set=evil + row["prompt_set"], remarks=[evil], recipe=evil)
        if row["strategy"] != "Baseline":
            row["strategy"] += evil
        row["judge"] = {"model": evil, "rubric": evil, "score": 5, "reason": evil}
        if row["status"] == "ok":
            row["turns"] = [{"prompt": evil, "text": evil + " and more", "tokens": 1}]
            row["counters"] = {evil: 3, "x." + evil: 4, "__proto__": 1}
        else:
            row["error"] = evil
    return rows


def check_hostile(browser, folder, plotly):
    example_trials.write(folder, hostile_rows())
    done = dashboard(folder, plotly=plotly)
    check(done.returncode == 0, f"hostile: {done.stderr[-300:]}")
    open_page(browser, folder)
    check_controls(browser, "hostile")
    check(not browser.value("window.pwned"), "script in a name ran")
    check(browser.value("document.querySelectorAll('img[src=\"x\"], iframe, main a[href^=javascript]').length") == 0, "markup in a name became elements")
    check(browser.value("[...document.querySelectorAll('svg a')].every((a) => !a.getAttribute('xlink:href'))"), "a link in a name works")
    check("<script>" not in (folder / "comparison.md").read_text() and "<img" not in (folder / "comparison.md").read_text(), "comparison.md holds markup")


def check_refusals(work):
    folder = example_trials.write(work / "bad", example_trials.rows(samples=1))
    with open(folder / "results.jsonl", "a") as file:
        file.write('{"trial": 7}\n')
    done = dashboard(folder)
    check(done.returncode == 1 and "results.jsonl:25: trial" in done.stderr and done.stderr.count("\n") == 1, f"a bad line: {done.returncode} {done.stderr}")
    check(sorted(path.name for path in folder.iterdir()) == ["results.jsonl"], "a refused folder was written to")
    done = dashboard(work / "nowhere")
    check(done.returncode == 1 and "results.jsonl" in done.stderr, f"no folder: {done.returncode} {done.stderr}")
    folder = example_trials.write(work / "failed", [row for row in example_trials.rows(samples=1) if row["status"] == "failed"])
    check(dashboard(folder).returncode == 0, "a run whose trials all failed has no dashboard")


def main():
    program, plotly = find_chromium(), cached_plotly()
    work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-dashboard-"))
    browser = None
    try:
        check_refusals(work)
        rows = example_trials.rows()
        folder = example_trials.write(work / "run", rows)
        (folder / "keep.txt").write_text("mine")
        (folder / "plots").mkdir()
        (folder / "plots/mine.png").write_text("mine")
        check_files(folder, rows, dashboard(folder, plotly=plotly))
        if not program or not plotly:
            print(f"skipped: {'chromium' if not program else 'plotly.min.js (scripts/fetch_plotly.py)'} is not here")
            return 1 if failures else SKIPPED
        browser = Browser(program)
        for scheme in ("light", "dark"):
            browser.appearance(scheme)
            open_page(browser, folder)
            for name in CHARTS:
                check(chart(browser, name)[0] > 5, f"{scheme}: {name} has {chart(browser, name)}")
            check_quiet(browser, scheme)
        check_samples(browser, rows)
        check_filters(browser, rows)
        check_controls(browser, "every control")
        browser.size(390, 800)
        browser.wait("document.documentElement.scrollWidth <= innerWidth + 1", 10)
        browser.size(1280, 1000)
        check_hostile(browser, work / "hostile", plotly)
        # Without the library: pictures instead of charts; filters and tables work.
        check(dashboard(folder).returncode == 0, "no dashboard without plotly")
        browser.open(folder / "dashboard.html")
        if shutil.which("gnuplot"):
            check(browser.value("[...document.images].length === 8 && [...document.images].every((i) => i.naturalWidth > 500)"), "static: the pictures are missing")
        check(table_rows(browser, "trial-table") == len(rows), "static: no table of trials")
        check_quiet(browser, "static")
    finally:
        if browser:
            browser.close()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
