// Charts of structure: page maps, layers against layers, growth, clusters, heads, norms.
const NO_PAIR = -128;

function decodeMap(map) {
  const bytes = atob(map.data);
  const rows = [];
  for (let i = 0; i < map.bins; i += 1) {
    const row = [];
    for (let j = 0; j < map.bins; j += 1) {
      const value = (bytes.charCodeAt(i * map.bins + j) << 24) >> 24;
      row.push(value === NO_PAIR ? null : value * map.scale);
    }
    rows.push(row);
  }
  return rows;
}

// From the 1st to the 99th percentile of all cells of all layers.
function commonRange(maps) {
  const values = Float64Array.from(maps.flatMap((map) => map.rows.flat()).filter((value) => value !== null)).sort();
  if (!values.length) return [-1, 1];
  const low = Math.floor(10 * values[Math.floor(0.01 * (values.length - 1))]) / 10;
  return [low, Math.max(low + 0.1, Math.ceil(10 * values[Math.floor(0.99 * (values.length - 1))]) / 10)];
}

const pageMaps = report.heatmaps ? report.heatmaps.filter((map) => map.bins > 0).map((map) => ({ ...map, rows: decodeMap(map) })) : [];
const mapRange = commonRange(pageMaps);
const setAt = (share) => (report.heatmap_sets.find((set) => share >= set.first && share < set.last) || { set: "" }).set;

function boundaries(bins, index) {
  const shapes = [];
  const suffix = index === 0 ? "" : String(index + 1);
  const line = { color: "rgba(255,255,255,0.85)", width: 1.5 };
  for (const set of report.heatmap_sets.slice(0, -1)) {
    const place = set.last * bins - 0.5;
    shapes.push({ type: "line", xref: "x" + suffix, yref: "y" + suffix, x0: place, x1: place, y0: -0.5, y1: bins - 0.5, line },
      { type: "line", xref: "x" + suffix, yref: "y" + suffix, y0: place, y1: place, x0: -0.5, x1: bins - 0.5, line });
  }
  return shapes;
}

function drawHeatmap(state) {
  const list = seriesList();
  const maps = pageMaps.filter((map) => map.layer === state.layer);
  const layout = { height: 540, shapes: [], annotations: [], margin: { l: 90, r: 20, t: 40, b: 40 } };
  const traces = maps.map((map, index) => {
    const suffix = index === 0 ? "" : String(index + 1);
    const width = (1 - 0.12 * (maps.length - 1)) / maps.length;
    const domain = [index * (width + 0.12), index * (width + 0.12) + width];
    const ticks = {
      tickvals: report.heatmap_sets.map((set) => ((set.first + set.last) / 2) * map.bins - 0.5),
      ticktext: report.heatmap_sets.map((set) => plain(set.set)), showgrid: false, zeroline: false, constrain: "domain",
    };
    layout["xaxis" + suffix] = { ...ticks, domain };
    layout["yaxis" + suffix] = { ...ticks, autorange: "reversed", anchor: "x" + suffix, scaleanchor: "x" + suffix, tickangle: -90 };
    layout.shapes.push(...boundaries(map.bins, index));
    const series = list.find((one) => isOf(map, one)) || { label: map.side };
    layout.annotations.push({ text: `<b>${series.label}</b>`, xref: "paper", yref: "paper", x: (domain[0] + domain[1]) / 2, y: 1.07, showarrow: false });
    const names = map.rows.map((_, i) => plain(setAt((i + 0.5) / map.bins)));
    return {
      type: "heatmap", z: map.rows, zmin: mapRange[0], zmax: mapRange[1], colorscale: SCALE, xaxis: "x" + suffix, yaxis: "y" + suffix,
      showscale: index === maps.length - 1, colorbar: { title: { text: "centred cosine", side: "right" }, thickness: 14 },
      customdata: map.rows.map((row, i) => row.map((_, j) => `${names[i]} × ${names[j]}`)),
      hovertemplate: `%{customdata}<br>%{z:.2f}<extra>${series.label}</extra>`,
    };
  });
  return { traces, layout };
}

function drawMatrix(state) {
  const matrix = report.layer_matrix.find((row) => isOf(row, seriesList().find((one) => one.key === state.series)));
  const values = matrix ? matrix.values.map((row, i) => row.map((value, j) => (i === j ? null : value))) : [];
  return {
    traces: [{ type: "heatmap", z: values, colorscale: SCALE, hovertemplate: "layers %{y} and %{x}: %{z:.3f}<extra></extra>",
      colorbar: { title: { text: "centred cosine", side: "right" }, thickness: 14 } }],
    layout: {
      height: 470, xaxis: layerAxis({ showgrid: false, zeroline: false, constrain: "domain" }),
      yaxis: layerAxis({ autorange: "reversed", showgrid: false, zeroline: false, scaleanchor: "x", constrain: "domain" }),
    },
  };
}

function drawAdjacent(state) {
  const traces = [];
  for (const series of seriesList()) {
    const rows = report.adjacent_layers.filter((row) => row.scope === "layer" && row.metric === state.metric && isOf(row, series))
      .sort((a, b) => a.layer - b.layer);
    const line = (name, pick, dash, shown) => ({
      x: rows.map((row) => row.layer + 0.5), y: rows.map(pick), name, legendgroup: series.key, showlegend: shown,
      mode: shown ? "lines+markers" : "lines", line: { color: series.color, dash, width: shown ? 2.4 : 1.4 },
      customdata: rows.map((row) => `layers ${row.layer} and ${row.next}`),
      hovertemplate: `%{customdata}: %{y:.3f}<extra>${series.label}${shown ? "" : ", " + name}</extra>`,
    });
    if (!rows.length) continue;
    traces.push(line("random pairs", (row) => at(row.controls.random, "mean"), DOTTED, false),
      line("shuffled", (row) => at(row.controls.shuffled, "mean"), DASHED, false),
      line(series.label, (row) => row.mean, "solid", true));
  }
  return { traces, layout: { height: 470, xaxis: layerAxis({ title: { text: "layer l (a point lies between l and l + 1)" } }), yaxis: { title: { text: METRICS[state.metric] } } } };
}

function drawGrowth(state) {
  const series = seriesList().find((one) => one.key === state.series);
  const rows = report.growth.filter((row) => isOf(row, series));
  const traces = rows.flatMap((row) => {
    const color = setColor(row.set);
    const shared = { x: row.context_tokens, legendgroup: row.set };
    return [
      { ...shared, y: row.shuffled.map(percent), name: "shuffled", showlegend: false, mode: "lines", line: { color, dash: DASHED, width: 1.4 },
        hovertemplate: `%{x} tokens: %{y:.1f}%<extra>${plain(row.set)}, shuffled</extra>` },
      { ...shared, y: row.redundancy.map(percent), name: plain(row.set), mode: "lines+markers", line: { color, width: 2.4 },
        hovertemplate: `%{x} tokens: %{y:.1f}%<extra>${plain(row.set)}</extra>` }];
  });
  const threshold = rows.length ? rows[0].threshold : "";
  return {
    traces,
    layout: { xaxis: { title: { text: "tokens of context" }, rangemode: "tozero" },
      yaxis: { title: { text: `pages with a partner over ${threshold} (%)` }, rangemode: "tozero" } },
  };
}

function drawClusters() {
  const traces = [];
  const most = Math.max(1, ...report.clusters.map((row) => Math.abs(row.sharing.freed_bytes)));
  const unit = bytesUnit(most);
  for (const series of seriesList()) {
    const rows = report.clusters.filter((row) => isOf(row, series)).sort((a, b) => a.layer - b.layer);
    const x = rows.map((row) => row.layer);
    const line = (name, pick, dash, shown) => ({
      x, y: rows.map(pick), name, legendgroup: series.key, showlegend: shown, mode: shown ? "lines+markers" : "lines",
      line: { color: series.color, dash, width: shown ? 2.4 : 1.4 },
      hovertemplate: `layer %{x}: %{y:.1f}%<extra>${series.label}${shown ? "" : ", " + name}</extra>`,
    });
    traces.push(line("shuffled", (row) => percent(row.explained_shuffled), DASHED, false),
      line(series.label, (row) => percent(row.explained), "solid", true),
      { type: "bar", x, y: rows.map((row) => row.sharing.freed_bytes / unit.divisor), xaxis: "x2", yaxis: "y2", showlegend: false,
        legendgroup: series.key, marker: { color: series.color }, name: series.label,
        customdata: rows.map((row) => [row.k, at(row.sharing, "relative_error")]),
        hovertemplate: `layer %{x}: %{y:.3g} ${unit.name} freed, k = %{customdata[0]}, relative error %{customdata[1]:.2f}<extra>${series.label}</extra>` });
  }
  return {
    traces,
    layout: {
      xaxis: layerAxis({ domain: [0, 0.45] }), yaxis: { title: { text: "variance explained (%)" }, rangemode: "tozero" },
      xaxis2: layerAxis({ domain: [0.56, 1], anchor: "y2" }),
      yaxis2: { title: { text: `freed by sharing centroids (${unit.name})` }, anchor: "x2" }, barmode: "group",
    },
  };
}

function showHeadTable(rows, threshold) {
  const place = document.getElementById("table-heads");
  const whole = (value) => String(value);
  const number = (value) => value.toFixed(3).replace(/^-(0\.0*)$/, "$1");
  const share = (value) => (100 * value).toFixed(1) + "%";
  const columns = [
    { name: "layer", value: (row) => row.layer, text: whole },
    { name: "KV head", value: (row) => row.head, text: whole },
    { name: "pages", value: (row) => row.pages, text: whole },
    { name: "mean", value: (row) => at(row, "mean"), text: number },
    { name: "5%", value: (row) => at(row.percentiles, "5"), text: number },
    { name: "median", value: (row) => at(row.percentiles, "50"), text: number },
    { name: "95%", value: (row) => at(row.percentiles, "95"), text: number },
    { name: "shuffled mean", value: (row) => at(row.controls.shuffled, "mean"), text: number },
    { name: "redundancy over " + threshold, value: (row) => at(row.redundancy, threshold), text: share },
    { name: "shuffled", value: (row) => at(row.controls.shuffled.redundancy, threshold), text: share },
  ];
  place.replaceChildren(buildTable(columns, rows, "Every KV head"));
}

function drawHeads(state) {
  const series = seriesList().find((one) => one.key === state.series);
  const rows = similarityRows({ scope: "head", metric: state.metric, side: series.side, basis: series.basis });
  showHeadTable(rows, state.threshold);
  const value = (row) => (state.figure === "mean" ? row.mean : percent(at(row.redundancy, state.threshold)));
  const heads = [...new Set(rows.map((row) => row.head))].sort((a, b) => a - b);
  const layers = [...new Set(rows.map((row) => row.layer))].sort((a, b) => a - b);
  const values = new Map(rows.map((row) => [row.layer + "/" + row.head, value(row)]));
  const unit = state.figure === "mean" ? METRICS[state.metric] : `redundant over ${state.threshold} (%)`;
  return {
    traces: [{ type: "heatmap", x: layers, y: heads, z: heads.map((head) => layers.map((layer) => values.get(layer + "/" + head) ?? null)),
      colorscale: SCALE, colorbar: { title: { text: unit, side: "right" }, thickness: 14 },
      hovertemplate: "layer %{x}, KV head %{y}: %{z:.3g}<extra></extra>" }],
    layout: {
      height: Math.max(300, 120 + 26 * heads.length), xaxis: layerAxis({ showgrid: false, zeroline: false }),
      yaxis: { title: { text: "KV head" }, showgrid: false, zeroline: false, dtick: Math.max(1, Math.round(heads.length / 16)) },
    },
  };
}

function drawNorms() {
  const x = report.norms.map((row) => row.layer);
  const line = (key, name, color) => ({ x, y: report.norms.map((row) => row[key]), name, mode: "lines+markers", line: { color, width: 2.4 },
    hovertemplate: "layer %{x}: %{y:.3g}" });
  const bar = (key, name, color) => ({ type: "bar", x, y: report.norms.map((row) => row[key]), name, marker: { color }, xaxis: "x2", yaxis: "y2",
    showlegend: false, hovertemplate: "layer %{x}: %{y}" });
  return {
    traces: [line("k_norm", "K", blue()), line("v_norm", "V", orange()),
      bar("k_outlier_channels", "K", blue()), bar("v_outlier_channels", "V", orange())],
    layout: {
      xaxis: layerAxis({ domain: [0, 0.45] }), yaxis: { title: { text: "mean norm of a token (log scale)" }, type: "log", dtick: "D2" },
      xaxis2: layerAxis({ domain: [0.56, 1], anchor: "y2" }),
      yaxis2: { title: { text: "outlier channels" }, anchor: "x2", rangemode: "tozero" }, barmode: "group",
    },
  };
}
