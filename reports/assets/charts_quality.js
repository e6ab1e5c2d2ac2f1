// Charts of quality: against bytes, and by position.
const LABEL_FONT = 12;
const LETTER_WIDTH = 6.7;
const POINT_MARGIN = { l: 78, r: 20, t: 20, b: 60 };
const POINT_HEIGHT = 560;

// The chosen measure: which figure, its axis and its words.
const QUALITIES = {
  kl_mean: { name: "mean KL (nats, log scale)", scale: klScale, text: significant },
  kl_p99: { name: "KL of the worst 1% of tokens (nats, log scale)", scale: klScale, text: significant },
  delta_perplexity: { name: "change of perplexity", scale: changeScale, text: changeText },
};

// Recipes without effect stand where the baseline does, whose name counts them.
function qualityMarks(key, bits) {
  return rows.map((row, index) => {
    const [low, high] = row.intervals[key] || [null, null];
    return { row, index, x: row[bits], value: row[key], low, high };
  }).filter((mark) => Number.isFinite(mark.value) && Number.isFinite(mark.x) && mark.row.effect !== "no effect");
}

function markText(mark) {
  const { row } = mark;
  const bounds = (key, text) => `${text(row[key])} [${text(row.intervals[key][0])}, ${text(row.intervals[key][1])}]`;
  return `<b>${recipeName(row, 90)}</b><br>${bytesText(row.bytes_held)}, ${row.bits_per_value.toFixed(2)} bits, ${row.compression.toFixed(2)}×`
    + `<br>mean KL ${bounds("kl_mean", significant)}<br>perplexity ${bounds("delta_perplexity", changeText)}`
    + `<br>top-1 ${bounds("top1_agreement", shareText)}<br>${plain(row.effect)}`;
}

// Small boxes along a line of pixels, so that names keep off it.
function alongLine(points) {
  return points.slice(1).flatMap((b, i) => {
    const a = points[i], steps = Math.max(1, Math.ceil(Math.hypot(b.x - a.x, b.y - a.y) / 5));
    return Array.from({ length: steps + 1 }, (_, k) => boxAround(a.x + ((b.x - a.x) * k) / steps, a.y + ((b.y - a.y) * k) / steps, 2));
  });
}

// Annotations at places where they cover nothing; plot coordinates to pixels as Plotly will lay them out. `lines`:
// traces that names keep off.
function markLabels(marks, scale, range, width, lines) {
  const inner = { width: Math.max(120, width - POINT_MARGIN.l - POINT_MARGIN.r), height: POINT_HEIGHT - POINT_MARGIN.t - POINT_MARGIN.b };
  const px = (x) => (inner.width * (x - range[0])) / (range[1] - range[0]);
  const py = (at) => inner.height * (1 - (at - scale.low) / (scale.high - scale.low));
  const most = Math.max(10, Math.min(52, Math.floor(inner.width / (2.2 * LETTER_WIDTH))));
  const idle = rows.filter((row) => row.effect === "no effect").length;
  const names = marks.map((mark) => shortText(mark.row.recipe + (mark.index === 0 && idle ? ` and ${idle} without effect` : ""), most));
  const points = marks.map((mark, i) => ({ x: px(mark.x), y: py(scale.at(mark.value)), width: LETTER_WIDTH * names[i].length + 4, height: LABEL_FONT + 5 }));
  const bars = marks.filter((mark) => Number.isFinite(mark.low))
    .map((mark) => ({ left: px(mark.x) - 4, right: px(mark.x) + 4, top: py(scale.at(mark.high)), bottom: py(scale.at(mark.low)) }));
  const taken = [...bars, ...lines.flatMap((line) => alongLine(line.x.map((x, i) => ({ x: px(x), y: py(line.y[i]) }))))];
  const places = placeLabels(points, { left: 2, top: 2, right: inner.width - 2, bottom: inner.height - 2 }, taken);
  return places.map((place, i) => ({
    x: marks[i].x, y: scale.at(marks[i].value), text: plain(names[i]), showarrow: true, arrowhead: 0, arrowwidth: 1,
    arrowcolor: place.joined ? recipeColor(marks[i].index) : "rgba(0,0,0,0)", standoff: 5,
    ax: place.lineX - points[i].x, ay: place.lineY - points[i].y, xanchor: place.dx > 0 ? "left" : place.dx < 0 ? "right" : "center",
    yanchor: place.dx !== 0 ? "middle" : place.dy < 0 ? "bottom" : "top", borderpad: 0,
    font: { size: LABEL_FONT, color: recipeColor(marks[i].index) },
  }));
}

function pointTraces(marks, scale) {
  return marks.map((mark) => ({
    x: [mark.x], y: [scale.at(mark.value)], mode: "markers", name: recipeName(mark.row), showlegend: false, cliponaxis: false,
    marker: { size: 10, color: recipeColor(mark.index) },
    error_y: Number.isFinite(mark.low) ? { type: "data", symmetric: false, array: [scale.at(mark.high) - scale.at(mark.value)],
      arrayminus: [scale.at(mark.value) - scale.at(mark.low)], color: recipeColor(mark.index), thickness: 2, width: 5 } : undefined,
    text: [markText(mark)], hovertemplate: "%{text}<extra></extra>",
  }));
}

// Rows that differ in numbers alone, joined in the order of their bytes.
function familyTraces(marks, scale) {
  const families = new Map();
  for (const mark of marks) families.set(mark.row.family, [...(families.get(mark.row.family) || []), mark]);
  return [...families.values()].filter((family) => family.length > 1).map((family) => {
    const color = recipeColor(family[0].index);
    family.sort((a, b) => a.x - b.x);
    return { x: family.map((mark) => mark.x), y: family.map((mark) => scale.at(mark.value)), mode: "lines", hoverinfo: "skip", showlegend: false,
      line: { color, width: 1.4, dash: "dot" } };
  });
}

function frontTrace(marks, scale) {
  const front = marks.filter((mark) => mark.row.on_front).sort((a, b) => a.x - b.x);
  return { x: front.map((mark) => mark.x), y: front.map((mark) => scale.at(mark.value)), mode: "lines+markers", hoverinfo: "skip",
    cliponaxis: false, name: "the front", line: { color: cssColor("--ink"), width: 1.6 },
    marker: { size: 17, color: "rgba(0,0,0,0)", line: { color: cssColor("--ink"), width: 1.6 } } };
}

function levelTrace(level, range, name) {
  return { x: range, y: [level, level], mode: "lines", name, hoverinfo: "skip", line: { color: cssColor("--control"), dash: "dash", width: 1.8 } };
}

function bitsRange(bits) {
  const low = Math.min(...bits), high = Math.max(...bits), margin = Math.max(0.3, 0.07 * (high - low));
  return [Math.max(0, low - margin), high + margin];
}

function drawQuality(key, bits, width) {
  const marks = qualityMarks(key, bits);
  const log = key !== "delta_perplexity";
  const floor = Math.max(...finite(report.noise_floor.map((row) => row.kl_mean)));
  const scale = QUALITIES[key].scale([...marks.flatMap((mark) => [mark.value, mark.low, mark.high]), ...(key === "kl_mean" && floor > 0 ? [floor] : [])]);
  const range = bitsRange(marks.map((mark) => mark.x));
  const traces = familyTraces(marks, scale);
  if (key === "kl_mean" && floor > 0) traces.push(levelTrace(scale.at(floor), range, `noise floor, ${significant(floor)}`));
  if (!log) traces.push(levelTrace(0, range, "no change"));
  if (key === "kl_mean" && bits === "bits_per_value") traces.push(frontTrace(marks, scale));
  return {
    traces: [...traces, ...pointTraces(marks, scale)],
    layout: {
      height: POINT_HEIGHT + 40, margin: { ...POINT_MARGIN, b: POINT_MARGIN.b + 40 }, hovermode: "closest",
      xaxis: { title: { text: width < 600 ? "bits a cached number takes" : "bits a cached number takes, everything held counted" }, range, zeroline: false, automargin: false },
      yaxis: { ...scaleAxis(scale, QUALITIES[key].name), automargin: false }, annotations: markLabels(marks, scale, range, width, traces),
      legend: { orientation: "h", y: -0.13, x: 0 },
    },
  };
}

const drawFront = (state, width) => drawQuality(state.quality, state.bits, width);
const drawPerplexity = (state, width) => drawQuality("delta_perplexity", state.bits, width);

function drawPositions(state, width) {
  const first = Math.floor(report.protocol.context / 2);
  const scale = klScale(rows.flatMap((row) => row.kl_by_position.map((bin) => bin.kl_mean)));
  const traces = rows.map((row, index) => ({
    x: row.kl_by_position.map((bin) => first + (bin.first + bin.last) / 2), y: row.kl_by_position.map((bin) => scale.at(bin.kl_mean)),
    mode: "lines+markers", name: recipeName(row, legendLetters(width)), line: { color: recipeColor(index), width: 2.2 }, marker: { size: 5 },
    text: row.kl_by_position.map((bin) => `tokens ${countText(first + bin.first)} to ${countText(first + bin.last - 1)}: KL ${significant(bin.kl_mean)}`),
    hovertemplate: `%{text}<extra>${recipeName(row)}</extra>`,
  }));
  return {
    traces,
    layout: { height: 470 + 10 * rows.length, hovermode: "closest", xaxis: { title: { text: "position in the window (tokens)" } },
      yaxis: scaleAxis(scale, "mean KL (nats, log scale)") },
  };
}

const BITS_CONTROL = { key: "bits", label: "Bytes", options: [["bits_per_value", "at the last scored token"], ["bits_per_value_over_time", "mean over time"]] };

function addFrontChart() {
  addChart("front", [{ key: "quality", label: "Quality", options: [["kl_mean", "mean KL"], ["kl_p99", "99% of KL"]] }, BITS_CONTROL], drawFront, true);
}
