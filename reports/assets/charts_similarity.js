// Charts of similarity: distributions, layers, opportunities, comparisons of sets.
const DASHED = "dash";
const DOTTED = "dot";

function sumHistograms(rows, pick) {
  let sum = null;
  for (const row of rows) {
    const counts = pick(row);
    if (!counts) continue;
    sum = sum || new Array(counts.length).fill(0);
    counts.forEach((count, i) => { sum[i] += count; });
  }
  const total = sum ? sum.reduce((a, b) => a + b, 0) : 0;
  return total > 0 ? sum.map((count) => (100 * count) / total) : null;
}

function drawDistribution(state) {
  const series = seriesList().find((one) => one.key === state.series);
  const bins = report.histogram_bins[state.metric];
  const filter = { scope: "layer", metric: state.metric, side: series.side, basis: series.basis };
  if (state.layer !== "all") filter.layer = Number(state.layer);
  const traces = [];
  const add = (name, shares, line, fill) => {
    if (!shares) return;
    const width = (bins.high - bins.low) / shares.length;
    traces.push({
      x: shares.map((_, i) => bins.low + (i + 0.5) * width), y: shares, name: plain(name), mode: "lines", line,
      fill: fill ? "tozeroy" : "none", fillcolor: fill, hovertemplate: "%{x:.2f}: %{y:.2f}% of pairs",
    });
  };
  for (const set of setNames())
    add(set, sumHistograms(similarityRows({ ...filter, group: set }), (row) => row.histogram),
      { color: setColor(set), width: 2.2 }, faded(setColor(set), 0.09));
  const all = similarityRows({ ...filter, group: "all" });
  if (setNames().length > 1)
    add("all sets together", sumHistograms(all, (row) => row.histogram), { color: cssColor("--ink"), width: 1.4 });
  add("shuffled tokens (control)", sumHistograms(all, (row) => row.controls.shuffled.histogram),
    { color: cssColor("--control"), dash: DASHED, width: 2 });
  const shown = traces.flatMap((trace) => trace.x.filter((_, i) => trace.y[i] > 0.01));
  return {
    traces,
    layout: {
      xaxis: { title: { text: METRICS[state.metric] + " of two pages" }, range: [Math.min(...shown) - 0.02, Math.max(...shown) + 0.02] },
      yaxis: { title: { text: "share of pairs (%)" }, rangemode: "tozero" }, hovermode: "x unified",
    },
  };
}

function layerTraces(series, state) {
  const rows = similarityRows({ scope: "layer", metric: state.metric, group: state.group, side: series.side, basis: series.basis });
  const x = rows.map((row) => row.layer);
  const line = (name, y, style, axis, shown) => ({
    x, y, name, legendgroup: series.key, showlegend: shown, mode: shown ? "lines+markers" : "lines", line: style, yaxis: axis,
    hovertemplate: `layer %{x}: %{y:.3f}${axis === "y2" ? "%" : ""}<extra>${series.label}${shown ? "" : ", " + name}</extra>`,
  });
  const control = (pick, dash) => ({ values: rows.map(pick), style: { color: series.color, dash, width: 1.4 } });
  const shuffled = control((row) => at(row.controls.shuffled, "mean"), DASHED);
  const shuffledShare = control((row) => percent(at(row.controls.shuffled.redundancy, state.threshold)), DASHED);
  const randomShare = control((row) => percent(at(row.controls.random.redundancy, state.threshold)), DOTTED);
  const low = rows.map((row) => at(row.percentiles, "5")), high = rows.map((row) => at(row.percentiles, "95"));
  const band = {
    x: [...x, ...x.slice().reverse()], y: [...high, ...low.reverse()], fill: "toself", fillcolor: faded(series.color, 0.1),
    line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: series.key, mode: "lines",
  };
  const solid = { color: series.color, width: 2.4 };
  return [band, line("shuffled", shuffled.values, shuffled.style, "y", false),
    line(series.label, rows.map((row) => at(row, "mean")), solid, "y", true),
    line("shuffled", shuffledShare.values, shuffledShare.style, "y2", false),
    line("random", randomShare.values, randomShare.style, "y2", false),
    { ...line(series.label, rows.map((row) => percent(at(row.redundancy, state.threshold))), solid, "y2", true), showlegend: false }];
}

function drawLayers(state) {
  return {
    traces: seriesList().flatMap((series) => layerTraces(series, state)),
    layout: {
      height: 620, xaxis: layerAxis({ anchor: "y2" }),
      yaxis: { title: { text: METRICS[state.metric] }, domain: [0.55, 1] },
      yaxis2: { title: { text: `pages with a partner<br>over ${state.threshold} (%)` }, domain: [0, 0.45], rangemode: "tozero" },
      legend: { orientation: "h", y: -0.14, x: 0 },
    },
  };
}

function drawOpportunities(state) {
  const stored = seriesList().find((one) => one.key === state.series);
  const rows = report.opportunity.filter((row) => isOf(row, stored) && row.metric === state.metric);
  const unit = bytesUnit(Math.max(0, ...rows.map((row) => row.freed_bytes)));
  const traces = [];
  report.thresholds.forEach((threshold, i) => {
    const mine = rows.filter((row) => row.threshold === threshold).sort((a, b) => a.layer - b.layer);
    const color = THRESHOLD_COLORS[i % THRESHOLD_COLORS.length];
    const x = mine.map((row) => row.layer);
    const shuffled = mine.map((row) => (row.pages && row.shuffled_freed_pages !== null
      ? (row.shuffled_freed_pages * row.dense_bytes) / row.pages / unit.divisor : null));
    traces.push({
      x, y: mine.map((row) => row.freed_bytes / unit.divisor), name: "over " + threshold, mode: "lines+markers",
      legendgroup: String(threshold), line: { color, width: 2.4 }, customdata: mine.map((row) => percent(row.share)),
      hovertemplate: `layer %{x}: %{y:.3g} ${unit.name} (%{customdata:.1f}%)<extra>over ${threshold}</extra>`,
    }, {
      x, y: shuffled, name: "shuffled, over " + threshold, mode: "lines", legendgroup: String(threshold), showlegend: false,
      line: { color, dash: DASHED, width: 1.4 }, hovertemplate: `layer %{x}: %{y:.3g} ${unit.name}<extra>shuffled, over ${threshold}</extra>`,
    });
  });
  traces.push({ x: [null], y: [null], name: "shuffled tokens", mode: "lines", line: { color: cssColor("--control"), dash: DASHED, width: 1.6 } });
  const dense = rows.length ? rows[0].dense_bytes / unit.divisor : 0;
  return {
    traces,
    layout: {
      xaxis: layerAxis(), yaxis: { title: { text: `freed in the layer (${unit.name})` }, rangemode: "tozero" },
      title: { text: dense ? `a layer holds ${dense.toFixed(dense < 10 ? 2 : 0)} ${unit.name} of ${stored.label}` : "", font: { size: 13 } },
    },
  };
}

function drawDifferences(state) {
  const list = seriesList();
  const rows = report.set_differences.filter((row) => row.metric === state.metric && row.statistic === state.statistic
    && (state.series === "all" || isOf(row, list.find((one) => one.key === state.series))));
  const label = (row) => plain(`${row.a} − ${row.b}`) + `<br>${(list.find((one) => isOf(row, one)) || { label: row.side }).label}`;
  const found = (row) => row.verdict !== "no difference found";
  const trace = (mine, name, color, symbol) => ({
    x: mine.map((row) => row.difference), y: mine.map((row) => rows.indexOf(row)), name, mode: "markers",
    marker: { color, size: 11, symbol, line: { color, width: 2 } },
    error_x: { type: "data", symmetric: false, array: mine.map((row) => row.high - row.difference),
      arrayminus: mine.map((row) => row.difference - row.low), color, thickness: 2 },
    text: mine.map((row) => plain(`${row.a} ${row.verdict === "no difference found" ? "and" : row.verdict + " than"} ${row.b}`)
      + (found(row) ? "" : ": no difference found") + `<br>${row.prompts_a} and ${row.prompts_b} prompts`),
    hovertemplate: "%{text}<br>%{x:.3f}<extra></extra>",
  });
  return {
    traces: [trace(rows.filter(found), "a difference", blue(), "circle"),
      trace(rows.filter((row) => !found(row)), "no difference found (the interval holds 0)", cssColor("--control"), "circle-open")],
    layout: {
      height: 150 + 46 * rows.length, xaxis: { title: { text: "difference, first set − second" }, zerolinewidth: 2, zerolinecolor: cssColor("--soft") },
      yaxis: { tickvals: rows.map((_, i) => i), ticktext: rows.map(label), range: [rows.length - 0.4, -0.6] },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    },
  };
}
