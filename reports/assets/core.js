"use strict";
// Shared by the charts: the data, colours, number formats, controls, and one way to draw.
const report = JSON.parse(document.getElementById("report-data").textContent);

// Plotly reads a little HTML in its texts; names in a report are plain text.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

const SCALE = [[0, "#440154"], [0.125, "#482878"], [0.25, "#3e4a89"], [0.375, "#31688e"], [0.5, "#26828e"],
  [0.625, "#1f9e89"], [0.75, "#35b779"], [0.875, "#6ece58"], [0.95, "#b5de2b"], [1, "#fde725"]];

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const blue = () => (isDark() ? "#6f9bff" : "#2f5fd0");
const teal = () => (isDark() ? "#2dc4b4" : "#0d9488");
const orange = () => (isDark() ? "#f0963c" : "#d9730d");
const faded = (color, alpha) => color + Math.round(255 * alpha).toString(16).padStart(2, "0");

const percent = (share) => (share === null || share === undefined ? null : 100 * share);
const at = (object, key) => (object ? object[key] ?? null : null);

function bytesUnit(most) {
  if (most >= 1 << 20) return { divisor: 1 << 20, name: "MiB" };
  if (most >= 1 << 10) return { divisor: 1 << 10, name: "KiB" };
  return { divisor: 1, name: "bytes" };
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
  for (const trace of traces) {
    const values = trace.z || (trace.orientation === "h" ? trace.x : trace.y) || [];
    for (const value of values.flat()) if (Number.isFinite(value)) points += 1;
  }
  return points;
}

const charts = [];
// controls: [{key, label, options | layers, initial}]; draw(state, width) gives {traces, layout}. `sized`: the layout
// was made for one width in pixels and is made again for another. A `sentence` beside them goes where the page has a
// place for it.
function addChart(name, controls, draw, sized = false) {
  const element = document.getElementById("chart-" + name);
  if (!element) return;
  const state = {};
  for (const control of controls) state[control.key] = control.initial ?? (control.layers ? control.layers[0] : control.options[0]?.[0]);
  const redraw = () => {
    const { traces, layout, sentence } = draw(state, element.clientWidth);
    const says = document.getElementById("says-" + name);
    if (says) says.textContent = sentence || "";
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
  charts.push({ name, redraw, sized });
}
