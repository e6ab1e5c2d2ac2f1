"use strict";
// Shared by the charts: the data, colours, number formats, controls, and one way to draw.
const report = JSON.parse(document.getElementById("report-data").textContent);

// Plotly reads a little HTML in its texts; names in a report are plain text.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

const METRICS = {
  cosine_centered: "centred cosine",
  cosine: "cosine",
  l2_similarity: "relative L2 similarity",
  hamming: "Hamming similarity",
  jaccard: "Jaccard similarity",
};
const SET_COLORS = ["#7c4dcc", "#d1345b", "#2a9d5c", "#c99700", "#1f8fc4", "#a0522d", "#5b6b8c", "#b83fa0"];
const THRESHOLD_COLORS = ["#8ecae6", "#3a9bdc", "#3f6fe0", "#9a6be8", "#d1345b"];
const SCALE = [[0, "#440154"], [0.125, "#482878"], [0.25, "#3e4a89"], [0.375, "#31688e"], [0.5, "#26828e"],
  [0.625, "#1f9e89"], [0.75, "#35b779"], [0.875, "#6ece58"], [0.95, "#b5de2b"], [1, "#fde725"]];

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const setColor = (name) => SET_COLORS[Math.max(0, setNames().indexOf(name)) % SET_COLORS.length];
const setNames = () => report.sets.map((set) => set.name);
const blue = () => (isDark() ? "#6f9bff" : "#2f5fd0");
const teal = () => (isDark() ? "#2dc4b4" : "#0d9488");
const orange = () => (isDark() ? "#f0963c" : "#d9730d");
const faded = (color, alpha) => color + Math.round(255 * alpha).toString(16).padStart(2, "0");

// Kinds of pages, as in the C++ side: the stored key basis first, values last.
function seriesList() {
  const seen = new Map();
  for (const row of report.similarity) {
    if (row.scope !== "layer") continue;
    const key = row.side + "/" + (row.basis || "");
    if (!seen.has(key)) seen.set(key, makeSeries(row, key));
  }
  const rank = (s) => (s.side === "V" ? 2 : s.basis === report.key_basis ? 0 : 1);
  return [...seen.values()].sort((a, b) => rank(a) - rank(b));
}

function makeSeries(row, key) {
  const rope = report.model.position_encoding === "rope";
  const names = { rotated: "K after RoPE", plain: "K before RoPE", "page-relative": "K page-relative" };
  const label = row.side === "V" || !rope ? row.side : names[row.basis];
  const color = row.side === "V" ? orange() : rope && row.basis === "plain" ? teal() : blue();
  return { key, side: row.side, basis: row.basis || null, label, color };
}

const isOf = (row, series) => row.side === series.side && (row.basis || null) === series.basis;

function storedSeries() {
  const stored = [];
  for (const series of seriesList()) if (!stored.some((known) => known.side === series.side)) stored.push(series);
  return stored;
}

function similarityRows(filter) {
  return report.similarity.filter((row) => Object.entries(filter).every(([key, value]) => row[key] === value))
    .sort((a, b) => a.layer - b.layer);
}

const percent = (share) => (share === null || share === undefined ? null : 100 * share);
const at = (object, key) => (object ? object[key] ?? null : null);

function bytesUnit(most) {
  if (most >= 1 << 20) return { divisor: 1 << 20, name: "MiB" };
  if (most >= 1 << 10) return { divisor: 1 << 10, name: "KiB" };
  return { divisor: 1, name: "bytes" };
}

function metricOptions(rows) {
  const present = new Set(rows.map((row) => row.metric));
  return Object.keys(METRICS).filter((name) => present.has(name)).map((name) => [name, METRICS[name]]);
}

const seriesOptions = (list) => list.map((series) => [series.key, series.label]);
const thresholdOptions = () => report.thresholds.map((t) => [String(t), String(t)]);
const thresholdNear = (wanted) => String(report.thresholds.reduce(
  (best, t) => (Math.abs(t - wanted) < Math.abs(best - wanted) ? t : best), report.thresholds[0]));

// 0.9, or the highest lower threshold at which any page has a partner; as in the C++ side.
function tellingThreshold() {
  const wanted = thresholdNear(0.9);
  const rows = report.similarity.filter((row) => row.scope === "layer" && row.metric === "cosine_centered" && row.group === "all");
  const tells = (threshold) => rows.some((row) => at(row.redundancy, String(threshold)) > 0);
  return String([...report.thresholds].sort((a, b) => b - a).filter((t) => t <= Number(wanted)).find(tells) ?? wanted);
}

// A labelled <select>, or a slider for layers; calls back with the chosen value.
function addControl(container, control, state, changed) {
  const label = document.createElement("label");
  label.append(control.label + " ");
  if (control.layers) return addLayerSlider(label, container, control, state, changed);
  const select = document.createElement("select");
  select.name = control.key;
  for (const [value, text] of control.options) {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text;
    option.selected = value === state[control.key];
    select.append(option);
  }
  select.addEventListener("change", () => { state[control.key] = select.value; changed(); });
  label.append(select);
  container.append(label);
}

function addLayerSlider(label, container, control, state, changed) {
  const input = document.createElement("input");
  const shown = document.createElement("output");
  Object.assign(input, { type: "range", name: control.key, min: 0, max: control.layers.length - 1, value: 0 });
  const show = () => { shown.textContent = state[control.key]; };
  input.addEventListener("input", () => { state[control.key] = control.layers[Number(input.value)]; show(); changed(); });
  show();
  label.append(input, shown);
  container.append(label);
}

function baseLayout(extra) {
  const axis = { gridcolor: cssColor("--plot-grid"), zerolinecolor: cssColor("--line"), linecolor: cssColor("--line"), automargin: true };
  const layout = {
    modebar: { bgcolor: "rgba(0,0,0,0)", color: cssColor("--line"), activecolor: cssColor("--accent") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height: 430, margin: { l: 60, r: 20, t: 30, b: 50 },
    font: { color: cssColor("--ink"), family: "system-ui, sans-serif", size: 13 },
    legend: { orientation: "h", y: -0.2, x: 0, font: { size: 13 } },
    hoverlabel: { bgcolor: cssColor("--card"), bordercolor: cssColor("--line"), font: { color: cssColor("--ink") } },
    ...extra,
  };
  for (const name of Object.keys(layout)) {
    if (!/^[xy]axis\d*$/.test(name)) continue;
    layout[name] = { ...axis, ...layout[name] };
    if (layout[name].title) layout[name].title = { standoff: 10, font: { size: 13, color: cssColor("--soft") }, ...layout[name].title };
  }
  return layout;
}

// An axis of layers: whole numbers only.
const layerAxis = (extra) => ({ title: { text: "layer" }, dtick: Math.max(1, Math.ceil(report.model.layers / 16)), ...extra });

const CONFIG = {
  displaylogo: false, plotlyServerURL: "", modeBarButtonsToRemove: ["sendChartToCloud", "lasso2d", "select2d"], responsive: true,
};

// Numbers that a chart really shows, for tests and for the "nothing to show" line.
function countPoints(traces) {
  let points = 0;
  for (const trace of traces) for (const value of (trace.z || trace.y || []).flat()) if (Number.isFinite(value)) points += 1;
  return points;
}

const charts = [];
// controls: [{key, label, options | layers, initial}]; draw(state) gives {traces, layout}.
function addChart(name, controls, draw) {
  const element = document.getElementById("chart-" + name);
  if (!element) return;
  const state = {};
  for (const control of controls) state[control.key] = control.initial ?? (control.layers ? control.layers[0] : control.options[0]?.[0]);
  const redraw = () => {
    const { traces, layout } = draw(state);
    element.dataset.points = countPoints(traces);
    element.dataset.traces = traces.length;
    if (element.dataset.points === "0") {
      Plotly.purge(element);
      element.textContent = "Nothing to show for this choice.";
    } else {
      if (!element.classList.contains("js-plotly-plot")) element.textContent = "";
      Plotly.react(element, traces, baseLayout(layout), CONFIG);
    }
  };
  const container = document.getElementById("controls-" + name);
  for (const control of controls)
    if ((control.options || control.layers).length > 1) addControl(container, control, state, redraw);
  charts.push({ name, redraw });
}
