// Figures of each strategy: boxes of times, intervals of quality, counters, and what one buys with another.
const groupTicks = (groups, width) => ({ tickvals: groups.map((_, index) => index), range: [groups.length - 0.4, -0.6], zeroline: false, showgrid: false,
  ticktext: groups.map((group) => groupLabel(group, groups, Math.max(12, Math.min(42, Math.floor(width / 20))))) });

// Panels with a line for each group: two columns of them, or one where the window is narrow. `panel.traces(index, axes)`.
function groupPanels(panels, groups, width) {
  const narrow = width < 600, columns = width < 760 || panels.length < 2 ? 1 : 2, count = Math.ceil(panels.length / columns);
  const each = 60 + 30 * Math.max(2, groups.length), gap = 74, height = 60 + count * each + (count - 1) * gap;
  const layout = { height, margin: { l: 20, r: 20, t: narrow ? 64 : 36, b: 56 }, showlegend: false, annotations: [], shapes: [], hovermode: "closest" };
  const inner = height - (narrow ? 120 : 92), traces = [];
  panels.forEach((panel, index) => {
    const suffix = index === 0 ? "" : String(index + 1), column = index % columns, line = Math.floor(index / columns);
    const top = 1 - (line * (each + gap)) / inner, bottom = Math.max(0, top - each / inner);
    const x = columns === 1 ? [0, 1] : column === 0 ? [0, 0.48] : [0.52, 1];
    layout["xaxis" + suffix] = { title: { text: panel.unit }, domain: x, anchor: "y" + suffix, zeroline: panel.zero ?? false, nticks: narrow ? 4 : 7, ...(panel.fromZero ? { rangemode: "tozero" } : {}), ...panel.axis };
    layout["yaxis" + suffix] = { ...groupTicks(groups, width), domain: [bottom, top], anchor: "x" + suffix, showticklabels: column === 0 };
    layout.annotations.push({ text: `<b>${panel.title}</b>`, x: narrow ? 1 : x[0], y: top, xref: "paper", yref: "paper", xanchor: narrow ? "right" : "left", yanchor: "bottom", showarrow: false });
    traces.push(...panel.traces({ xaxis: "x" + suffix, yaxis: "y" + suffix }));
  });
  return { traces, layout };
}

const TIMES = [
  { title: "Prefill", unit: "seconds", of: (trial) => trial.timing.prefill_s },
  { title: "First token", unit: "seconds", of: (trial) => trial.timing.first_token_s },
  { title: "A generated token", unit: "milliseconds", of: (trial) => 1000 * tokenTime(trial) },
  { title: "Generation", unit: "seconds", of: (trial) => trial.timing.generation_s },
];

function drawTimes(state, width) {
  const groups = shownGroups().filter((group) => group.trials.length);
  const panels = TIMES.filter((time) => groups.some((group) => valuesOf(group, time.of).length)).map((time) => ({ ...time, fromZero: true,
    traces: (axes) => groups.map((group, index) => ({ type: "box", orientation: "h", ...axes, x: valuesOf(group, time.of), y: valuesOf(group, time.of).map(() => index),
      boxpoints: false, whiskerwidth: 0.5, width: 0.6, marker: { color: strategyColor(group.strategy) }, line: { width: 1.6 }, name: groupLabel(group, groups, 60), hoverinfo: "x+name" }))
      .filter((trace) => trace.x.length) }));
  return { ...groupPanels(panels, groups, width), sentence: overTrials("Spread of", groups, groups.reduce((sum, group) => sum + valuesOf(group, (trial) => trial.timing.total_s ?? trial.timing.prefill_s).length, 0)) };
}

const QUALITY_PANELS = [
  { title: "Perplexity against Baseline", unit: "change", scale: changeScale, of: perplexityChange, text: changeText },
  { title: "Mean KL", unit: "nats a token, log scale", scale: logScale, of: klMean, text: significant },
  { title: "Top-1 agreement", unit: "% of tokens", of: (trial) => 100 * topAgreement(trial), text: (value) => value.toFixed(2) + "%" },
  { title: "ROUGE-L against Baseline's text", unit: "F1", fromZero: true, of: rougeL, text: significant },
  { title: "Score of the judge", unit: "1 to 10", of: judgeScore, text: significant },
];

// Ticks whose texts do not touch in a panel, those nearest to 0 first.
const LEAST_TICK_SHARE = 0.13;
function apartTicks(scale) {
  const kept = [];
  for (const tick of [...scale.ticks].sort((a, b) => Math.abs(a[0]) - Math.abs(b[0])))
    if (kept.every((other) => Math.abs(other[0] - tick[0]) >= LEAST_TICK_SHARE * (scale.high - scale.low))) kept.push(tick);
  return kept;
}

// A panel's measure of each group, on the panel's axis.
function qualityPanel(panel, groups) {
  const found = groups.map((group) => sampleMean(group, panel.of));
  const scale = panel.scale ? panel.scale(found.flatMap((one) => [one.value, one.low ?? NaN, one.high ?? NaN])) : { at: (value) => value };
  const bound = (key) => found.map((one) => (one.low === null ? 0 : Math.abs(scale.at(one[key]) - scale.at(one.value))));
  const trace = { type: "scatter", mode: "markers", orientation: "h", x: found.map((one) => (one.value === null ? null : scale.at(one.value))), y: groups.map((_, index) => index), cliponaxis: false,
    marker: { size: 10, color: groups.map((group) => strategyColor(group.strategy)), symbol: groups.map((group) => MODEL_SYMBOLS[modelOrder.indexOf(group.model) % MODEL_SYMBOLS.length]) },
    error_x: { type: "data", symmetric: false, array: bound("high"), arrayminus: bound("low"), color: cssColor("--control"), thickness: 1.6, width: 5 },
    text: found.map((one, index) => (one.value === null ? "" : `${groupLabel(groups[index], groups, 70)}<br>${panel.text(one.value)}`
      + (one.low === null ? ", no interval" : ` [${panel.text(one.low)}, ${panel.text(one.high)}]`) + `<br>${countOf(one.samples, "sample", "samples")}`)),
    hovertemplate: "%{text}<extra></extra>" };
  const ticks = scale.ticks ? apartTicks(scale) : [];
  const axis = scale.ticks ? { range: [scale.low, scale.high], tickvals: ticks.map((tick) => tick[0]), ticktext: ticks.map((tick) => tick[1]), tickangle: 0 } : {};
  return { ...panel, axis, traces: (axes) => [{ ...trace, ...axes }] };
}

function drawStrategyQuality(state, width) {
  const has = (trial) => QUALITY_PANELS.some((panel) => Number.isFinite(panel.of(trial)));
  const groups = shownGroups().filter((group) => group.trials.some(has));
  const panels = QUALITY_PANELS.filter((panel) => groups.some((group) => valuesOf(group, panel.of).length)).map((panel) => qualityPanel(panel, groups));
  const counted = groups.reduce((sum, group) => sum + group.trials.filter(has).length, 0);
  return { ...groupPanels(panels, groups, width), sentence: overTrials("Means over the samples of", groups, counted) };
}

// "h2o.dropped_tokens" and "snapkv.dropped_tokens" count the same thing.
const countedName = (name) => name.slice(name.lastIndexOf(".") + 1);
const EVICTED_SHARE = { label: "share of tokens evicted", unit: "% of the tokens seen", of: (trial) => 100 * (1 - keptShare(trial)), text: (value) => value.toFixed(1) + "%" };

function counterOf(name) {
  if (name === "") return EVICTED_SHARE;
  const of = (trial) => Object.entries(trial.counters).reduce((sum, [key, value]) => (countedName(key) === name && Number.isFinite(value) ? (sum ?? 0) + value : sum), null) ?? NaN;
  return { label: name, unit: `${plain(shortText(name, 60))}, mean a trial`, of, text: (value) => (Math.abs(value) >= 100 ? countText(Math.round(value)) : significant(value)) };
}

const counterOptions = () => [["", EVICTED_SHARE.label],
  ...[...new Set(trials.flatMap((trial) => Object.keys(trial.counters).map(countedName)))].sort().map((name) => [name, shortText(name, 60)])];

function drawCounters(state, width) {
  const counter = counterOf(state.counter), groups = shownGroups().filter((group) => valuesOf(group, counter.of).length);
  const means = groups.map((group) => meanOf(valuesOf(group, counter.of)));
  const traces = [{ type: "bar", orientation: "h", x: means, y: groups.map((_, index) => index), marker: { color: groups.map((group) => strategyColor(group.strategy)) },
    text: means.map(counter.text), textposition: "auto", insidetextanchor: "start", textangle: 0, cliponaxis: false, customdata: groups.map((group) => [groupLabel(group, groups, 70), countOf(valuesOf(group, counter.of).length, "trial", "trials")]),
    hovertemplate: "%{customdata[0]}<br>%{text}, mean of %{customdata[1]}<extra></extra>" }];
  return { traces, sentence: overTrials("Means over", groups, groups.reduce((sum, group) => sum + valuesOf(group, counter.of).length, 0)),
    layout: { height: 130 + 34 * Math.max(2, groups.length), margin: { l: 20, r: 20, t: 20, b: 56 }, bargap: 0.35, xaxis: { title: { text: counter.unit }, rangemode: "tozero" }, yaxis: groupTicks(groups, width) } };
}

// Measures of a group; lower is better in all of them.
const shareOfBaseline = (of) => (group) => (group.baseline ? 100 : baselineChangeShare(group, of));
function baselineChangeShare(group, of) {
  const change = changeAgainstBaseline(group, of);
  return change === null ? NaN : 100 + 100 * change;
}
const groupMean = (of) => (group) => sampleMeanValue(group, of);
const sampleMeanValue = (group, of) => meanOf([...bySample(group, of).values()]) ?? NaN;
const COSTS = {
  bytes: { label: "bytes a token", title: "bytes held a token at the end (% of Baseline's)", of: shareOfBaseline(heldAToken) },
  peak: { label: "peak bytes a token", title: "most bytes held at once, a token (% of Baseline's)", of: shareOfBaseline(peakAToken) },
  token: { label: "time a token", title: "time a generated token (% of Baseline's)", of: shareOfBaseline(tokenTime) },
  prefill: { label: "prefill time", title: "time of the prefill (% of Baseline's)", of: shareOfBaseline((trial) => trial.timing.prefill_s) },
};
const ownBase = (of) => (group) => (group.baseline && Number.isNaN(sampleMeanValue(group, of)) ? 0 : sampleMeanValue(group, of));
const LOSSES = {
  kl: { label: "mean KL", title: "mean KL (nats, log scale)", scale: logScale, text: significant, of: ownBase(klMean) },
  perplexity: { label: "perplexity", title: "change of perplexity", scale: changeScale, text: changeText, of: ownBase(perplexityChange) },
  top1: { label: "top-1 disagreement", title: "tokens with another most likely token (%)", text: (value) => value.toFixed(2) + "%", of: ownBase((trial) => 100 * (1 - topAgreement(trial))) },
  rouge: { label: "1 − ROUGE-L", title: "1 − ROUGE-L against Baseline's text", text: significant, of: ownBase((trial) => 1 - rougeL(trial)) },
  judge: { label: "10 − judge's score", title: "10 − the judge's score", text: significant, of: groupMean((trial) => 10 - (judgeScore(trial) ?? NaN)) },
};
const linearScale = (values) => {
  const known = finite(values), high = Math.max(1e-9, ...known), low = Math.min(0, ...known);
  return { low: low - 0.05 * (high - low), high: high + 0.08 * (high - low), at: (value) => value, ticks: null };
};

// Points that no other of their model beats in all measures.
const frontOf = (points, keys) => points.filter((a) => keys.every((key) => Number.isFinite(a[key])) && !points.some((b) => b.group.model === a.group.model
  && keys.every((key) => b[key] <= a[key]) && keys.some((key) => b[key] < a[key])));

// Names beside their points, off the points and the fronts.
function tradeoffLabels(points, fronts, scale, range, width, groups) {
  const inner = { width: Math.max(120, width - POINT_MARGIN.l - POINT_MARGIN.r), height: POINT_HEIGHT - POINT_MARGIN.t - POINT_MARGIN.b };
  const most = Math.max(10, Math.min(40, Math.floor(inner.width / (2.2 * LETTER_WIDTH))));
  const texts = points.map((point) => groupText(point.group, groups, most));
  const px = (x) => (inner.width * (x - range[0])) / (range[1] - range[0]), py = (y) => inner.height * (1 - (y - scale.low) / (scale.high - scale.low));
  const marks = points.map((point, i) => ({ x: px(point.x), y: py(scale.at(point.y)), width: LETTER_WIDTH * texts[i].length + 4, height: LABEL_FONT + 5 }));
  const taken = fronts.flatMap((front) => alongLine(front.x.map((x, i) => ({ x: px(x), y: py(front.y[i]) }))));
  const places = placeLabels(marks, { left: 2, top: 2, right: inner.width - 2, bottom: inner.height - 2 }, taken);
  return places.map((place, i) => {
    const color = strategyColor(points[i].group.strategy);
    return { x: points[i].x, y: scale.at(points[i].y), text: plain(texts[i]), showarrow: true, arrowhead: 0, arrowwidth: 1, arrowcolor: place.joined ? color : "rgba(0,0,0,0)", standoff: 5,
      ax: place.lineX - marks[i].x, ay: place.lineY - marks[i].y, xanchor: place.dx > 0 ? "left" : place.dx < 0 ? "right" : "center", yanchor: place.dx !== 0 ? "middle" : place.dy < 0 ? "bottom" : "top",
      borderpad: 0, font: { size: LABEL_FONT, color } };
  });
}

function drawTradeoff(state, width) {
  const groups = shownGroups().filter((group) => group.trials.length), cost = COSTS[state.cost], loss = LOSSES[state.loss];
  const points = groups.map((group) => ({ group, x: cost.of(group), y: loss.of(group), bytes: COSTS.bytes.of(group), token: COSTS.token.of(group) }))
    .filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y));
  const scale = (loss.scale || linearScale)(points.map((point) => point.y)), range = [0, 1.12 * Math.max(1e-9, ...points.map((point) => point.x))];
  const best = new Set(frontOf(points, ["bytes", "token", "y"])), traces = [];
  for (const model of new Set(points.map((point) => point.group.model))) {
    const front = frontOf(points.filter((point) => point.group.model === model), ["x", "y"]).sort((a, b) => a.x - b.x);
    traces.push({ x: front.map((point) => point.x), y: front.map((point) => scale.at(point.y)), mode: "lines+markers", hoverinfo: "skip", cliponaxis: false,
      name: "the front" + (severalModels(groups) ? " of " + plain(shortText(nameOf(model), 40)) : ""), line: { color: cssColor("--ink"), width: 1.6, dash: MODEL_DASHES[modelOrder.indexOf(model) % MODEL_DASHES.length] },
      marker: { size: 18, color: "rgba(0,0,0,0)", line: { color: cssColor("--ink"), width: 1.6 } } });
  }
  const fronts = [...traces];
  traces.push(...points.map((point) => ({ x: [point.x], y: [scale.at(point.y)], mode: "markers", name: groupLabel(point.group, groups, 60), showlegend: false, cliponaxis: false,
    marker: { size: best.has(point) ? 13 : 10, symbol: best.has(point) ? "star" : MODEL_SYMBOLS[modelOrder.indexOf(point.group.model) % MODEL_SYMBOLS.length], color: strategyColor(point.group.strategy) },
    text: [`<b>${groupLabel(point.group, groups, 90)}</b><br>${loss.label}: ${loss.text(point.y)}<br>${cost.label}: ${point.x.toFixed(1)}% of Baseline's<br>${countOf(point.group.trials.length, "trial", "trials")}`],
    hovertemplate: "%{text}<extra></extra>" })));
  if (best.size) traces.push({ x: [null], y: [null], mode: "markers", name: width < 600 ? "on the front of all three" : "on the front of bytes, time a token and quality", marker: { symbol: "star", size: 12, color: cssColor("--control") } });
  return { traces: points.length ? traces : [], sentence: overTrials("Means over the samples of", groups, points.reduce((sum, point) => sum + point.group.trials.length, 0)),
    layout: { height: POINT_HEIGHT + 40, margin: { ...POINT_MARGIN, b: POINT_MARGIN.b + 40 }, hovermode: "closest", xaxis: { title: { text: cost.title }, range, zeroline: false, automargin: false },
      yaxis: { title: { text: loss.title }, range: [scale.low, scale.high], zeroline: false, automargin: false, ...(scale.ticks ? { tickvals: scale.ticks.map((tick) => tick[0]), ticktext: scale.ticks.map((tick) => tick[1]) } : {}) },
      annotations: tradeoffLabels(points, fronts, scale, range, width, groups), legend: { orientation: "h", y: -0.13, x: 0 } } };
}
