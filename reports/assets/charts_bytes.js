// Charts of bytes and of what they buy: by part, by layer, capacity, speed.
const rowTicks = (width) => ({
  tickvals: rows.map((_, index) => index), ticktext: rows.map((row) => axisName(row, width)), range: [rows.length - 0.4, -0.6], zeroline: false,
  showgrid: false,
});
const rowsHeight = () => 150 + 34 * rows.length;

function drawBytes(state, width) {
  const dense = rows.length ? rows[0].dense_f16_bytes : 0;
  const most = Math.max(1, dense, ...rows.map((row) => row.bytes_held));
  const unit = bytesUnit(most);
  const traces = report.parts.map((part, index) => ({
    type: "bar", orientation: "h", name: part.name, y: rows.map((_, i) => i), x: rows.map((row) => row.ledger[part.key] / unit.divisor),
    marker: { color: PART_COLORS[index] }, text: rows.map((row) => recipeName(row, 90)), textposition: "none",
    customdata: rows.map((row) => bytesText(row.ledger[part.key])), hovertemplate: `%{text}<br>${part.name}: %{customdata}<extra></extra>`,
  })).filter((trace) => trace.x.some((value) => value > 0));
  traces.push({ x: [null], y: [null], name: "the same in dense f16", mode: "lines", line: { color: cssColor("--control"), dash: "dash", width: 1.8 } });
  return {
    traces,
    layout: {
      barmode: "stack", height: rowsHeight(), xaxis: { title: { text: unit.name + " held" }, range: [0, (1.25 * most) / unit.divisor] },
      yaxis: rowTicks(width), bargap: 0.3,
      shapes: [{ type: "line", yref: "paper", y0: 0, y1: 1, x0: dense / unit.divisor, x1: dense / unit.divisor,
        line: { color: cssColor("--control"), dash: "dash", width: 1.8 } }],
      annotations: (width < 600 ? [] : rows).map((row, index) => ({ x: 1, xref: "x domain", y: index, xanchor: "right", showarrow: false,
        text: `${bytesText(row.bytes_held)} · ${row.compression.toFixed(2)}×`, font: { size: 12, color: cssColor("--soft") } })),
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" }, margin: { l: 20, r: 20, t: 50, b: 50 },
    },
  };
}

const layerShare = (row, layer) => (row.dense_f16_bytes > 0 ? (100 * layer.bytes * report.model.layers) / row.dense_f16_bytes : null);

function layerHeatmap(width) {
  const cells = rows.map((row) => row.layers.map((layer) => layerShare(row, layer)));
  return {
    traces: [{ type: "heatmap", z: cells, zmin: 0, zmax: Math.max(100, ...finite(cells.flat())), colorscale: SCALE, ygap: 3,
      colorbar: { title: { text: "% of dense f16", side: "right" }, thickness: 14 },
      customdata: rows.map((row) => row.layers.map((layer) => [recipeName(row, 90), bytesText(layer.bytes)])),
      hovertemplate: "%{customdata[0]}<br>layer %{x}: %{customdata[1]}, %{z:.1f}%<extra></extra>" }],
    layout: { height: rowsHeight(), xaxis: layerAxis({ showgrid: false, zeroline: false }), yaxis: rowTicks(width), margin: { l: 20, r: 20, t: 20, b: 50 } },
  };
}

function layerBars(width) {
  const unit = bytesUnit(Math.max(1, ...rows.flatMap((row) => row.layers.map((layer) => layer.bytes))));
  return {
    traces: rows.map((row, index) => ({ type: "bar", name: recipeName(row, legendLetters(width)), x: row.layers.map((layer) => layer.layer),
      y: row.layers.map((layer) => layer.bytes / unit.divisor), marker: { color: recipeColor(index) },
      hovertemplate: `layer %{x}: %{y:.3g} ${unit.name}<extra>${recipeName(row)}</extra>` })),
    layout: { height: 480 + 10 * rows.length, barmode: "group", bargap: 0.15, xaxis: layerAxis({ showgrid: false }),
      yaxis: { title: { text: `payload and scales (${unit.name})` }, rangemode: "tozero" } },
  };
}

const drawLayers = (state, width) => (state.form === "bars" ? layerBars(width) : layerHeatmap(width));

// Two measures of each row, side by side on one axis of names; a row without a figure has no bar.
function pairedBars(panels, width) {
  const narrow = width < 700;
  const domains = narrow ? [[0, 1], [0, 1]] : [[0, 0.47], [0.53, 1]];
  const heights = narrow ? [[0.56, 1], [0, 0.44]] : [[0, 1], [0, 1]];
  const layout = { height: rowsHeight() * (narrow ? 1.8 : 1), margin: { l: 20, r: 20, t: 20, b: 50 }, bargap: 0.35, showlegend: false, shapes: [] };
  const traces = panels.map((panel, index) => {
    const suffix = index === 0 ? "" : "2";
    const most = Math.max(0, ...finite(panel.values));
    layout["xaxis" + suffix] = { title: { text: panel.title }, domain: domains[index], anchor: "y" + suffix, range: [0, 1.25 * most || 1], nticks: 6 };
    layout["yaxis" + suffix] = { ...rowTicks(width), domain: heights[index], anchor: "x" + suffix, showticklabels: narrow || index === 0 };
    if (panel.level > 0 && panel.level < 1.25 * most)
      layout.shapes.push({ type: "line", xref: "x" + suffix, yref: `y${suffix} domain`, y0: 0, y1: 1, x0: panel.level, x1: panel.level,
        line: { color: cssColor("--control"), dash: "dash", width: 1.8 } });
    return { type: "bar", orientation: "h", x: panel.values, y: rows.map((_, i) => i), xaxis: "x" + suffix, yaxis: "y" + suffix,
      marker: { color: rows.map((_, i) => recipeColor(i)) }, text: panel.values.map(panel.text), textposition: panel.inside ? "auto" : "outside", insidetextanchor: "start",
      textangle: 0, cliponaxis: false,
      customdata: rows.map((row) => recipeName(row, 90)), hovertemplate: "%{customdata}<br>%{text}<extra></extra>" };
  });
  return { traces, layout };
}

const budgetOptions = () => (rows.length ? rows[0].capacity.budgets : [])
  .map((budget, index) => [String(index), (budget.budget_bytes / 2 ** 30).toLocaleString("en") + " GiB"]);

function drawCapacity(state, width) {
  const of = (key) => rows.map((row) => at(row.capacity.budgets[Number(state.budget)], key));
  const length = rows.length ? rows[0].capacity.sequence_tokens : 0;
  return pairedBars([
    { title: width < 700 ? "tokens of one sequence" : "tokens of one sequence (dashed: the model's positions)", values: of("tokens"), text: countText, level: report.model.max_positions },
    { title: `sequences of ${countText(length)} tokens`, values: of("sequences"), text: countText },
  ], width);
}

function drawSpeed(state, width) {
  const rate = (value) => (Number.isFinite(value) ? value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0) : "");
  return pairedBars([
    { title: "decode, tokens/s (dashed: the baseline)", values: rows.map((row) => row.decode_tokens_per_s), text: rate, level: at(rows[0], "decode_tokens_per_s"), inside: true },
    { title: "prefill, tokens/s", values: rows.map((row) => row.prefill_tokens_per_s), text: rate, level: at(rows[0], "prefill_tokens_per_s"), inside: true },
  ], width);
}
