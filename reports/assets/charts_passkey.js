// Passkey retrieval: a grid of lengths and depths for each recipe.
const GRID_GAP = 0.05;

// Where grid number `index` stands, as shares of the chart; rows of grids from the top.
function gridPlace(index, columns, gridRows) {
  const width = (1 - GRID_GAP * (columns - 1)) / columns, gap = 0.42 / gridRows, height = (1 - gap * (gridRows - 1)) / gridRows;
  const left = (index % columns) * (width + GRID_GAP), top = 1 - Math.floor(index / columns) * (height + gap);
  return { x: [left, Math.min(1, left + width)], y: [Math.max(0, top - height), top] };
}

function drawPasskey(state, width) {
  const { lengths, depths, informative, rows: grids } = report.passkey;
  const columns = Math.min(grids.length, width < 600 ? 1 : width < 1000 ? 2 : 4), gridRows = Math.ceil(grids.length / columns);
  const layout = { height: 60 + gridRows * (70 + 34 * lengths.length), margin: { l: 60, r: 20, t: 40, b: 50 }, annotations: [], showlegend: false };
  const byLength = (values) => lengths.map((_, i) => values.slice(i * depths.length, (i + 1) * depths.length));
  const traces = grids.map((row, index) => {
    const suffix = index === 0 ? "" : String(index + 1), place = gridPlace(index, columns, gridRows);
    layout["xaxis" + suffix] = { domain: place.x, anchor: "y" + suffix, showgrid: false, zeroline: false, type: "category", nticks: 9,
      ...(index + columns >= grids.length ? { title: { text: "depth of the key" } } : {}) };
    layout["yaxis" + suffix] = { domain: place.y, anchor: "x" + suffix, showgrid: false, zeroline: false, type: "category", autorange: "reversed",
      ...(index % columns === 0 ? { title: { text: "tokens" } } : {}) };
    layout.annotations.push({ text: plain(shortText(row.recipe, Math.max(14, Math.floor(width / columns / 8)))), x: place.x[0], y: place.y[1], xref: "paper", yref: "paper",
      xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12 } });
    return {
      type: "heatmap", z: byLength(row.accuracy.map((value) => percent(value))), x: depths.map(String), y: lengths.map(String), zmin: 0, zmax: 100,
      colorscale: SCALE, xgap: 2, ygap: 2, xaxis: "x" + suffix, yaxis: "y" + suffix, showscale: index === 0,
      colorbar: { title: { text: "% exact", side: "right" }, thickness: 14 },
      text: byLength(row.accuracy.map((value, i) => (informative[i] ? "" : "×") + (depths.length > 8 || value === null ? "" : (100 * value).toFixed(0)))), texttemplate: "%{text}",
      customdata: byLength(informative.map((yes) => (yes ? "" : "<br>not informative: the base fails too often"))),
      hovertemplate: `%{y} tokens, depth %{x}: %{z:.1f}%%{customdata}<extra>${plain(shortText(row.recipe, 60))}</extra>`,
    };
  });
  return { traces, layout };
}
