// Series of trials as lines: the cache over tokens, layers, time, and the time of each token.
const MOST_LINES = 300;
const LINES_CONTROL = { key: "lines", label: "Lines", options: [["mean", "mean of each strategy"], ["each", "each trial"]] };

const lineStyle = (group, width = 2.2) => ({ color: strategyColor(group.strategy), width, dash: MODEL_DASHES[modelOrder.indexOf(group.model) % MODEL_DASHES.length] });

// One trace for each group that has points.
function meanTraces(groups, x, y, unit, text, width) {
  let counted = 0;
  const traces = groups.map((group) => {
    const mean = meanSeries(group, x, y);
    counted += mean.of;
    return { x: mean.x, y: mean.y.map((value) => value / unit), mode: mean.x.length < 40 ? "lines+markers" : "lines", name: groupLabel(group, groups, legendLetters(width)),
      line: lineStyle(group), marker: { size: 5 }, text: mean.y.map((value, i) => `${text(value)}, mean of ${countOf(mean.trials[i], "trial", "trials")}`),
      hovertemplate: `%{text}<extra>${groupLabel(group, groups, 60)}</extra>` };
  }).filter((trace) => trace.x.length);
  return { traces, sentence: overTrials("Means over", groups, counted) };
}

function eachTrace(groups, x, y, unit, text, width) {
  const drawn = groups.flatMap((group) => group.trials.filter((trial) => x(trial).length && x(trial).length === y(trial).length).map((trial) => ({ group, trial })));
  const first = new Set();
  const traces = drawn.slice(0, MOST_LINES).map(({ group, trial }) => {
    const name = groupLabel(group, groups, legendLetters(width)), showlegend = !first.has(name);
    first.add(name);
    return { x: x(trial), y: y(trial).map((value) => (value === null ? null : value / unit)), mode: "lines", name, legendgroup: name, showlegend, opacity: 0.6,
      line: lineStyle(group, 1.2), text: y(trial).map((value) => `${text(value)}, ${plain(shortText(nameOf(trial.set), 30))}, sample ${plain(shortText(nameOf(trial.sample), 30))}`),
      hovertemplate: `%{text}<extra>${groupLabel(group, groups, 60)}</extra>` };
  });
  const sentence = overTrials("Lines of", groups, traces.length) + (drawn.length > MOST_LINES ? ` These are the first ${MOST_LINES} of ${countText(drawn.length)}.` : "");
  return { traces, sentence };
}

function drawSeries(state, width, { x, y, unit, text, xTitle, yTitle }) {
  const groups = shownGroups();
  const { traces, sentence } = (state.lines === "each" ? eachTrace : meanTraces)(groups, x, y, unit, text, width);
  return { traces, sentence, layout: { height: 470 + 10 * groups.length, hovermode: "closest", xaxis: { title: { text: xTitle } },
    yaxis: { title: { text: yTitle }, rangemode: "tozero" } } };
}

const mostOf = (some, of) => some.reduce((most, trial) => of(trial).reduce((sum, value) => Math.max(sum, value ?? 0), most), 0);

function drawCache(state, width) {
  const x = (trial) => trial.steps.tokens;
  if (state.of === "kept") {
    const y = (trial) => trial.steps.kept;
    return drawSeries(state, width, { x, y, unit: 1, text: (value) => countText(Math.round(value)) + " tokens kept", xTitle: "tokens seen", yTitle: "tokens kept (mean of the tables)" });
  }
  const y = (trial) => trial.steps.bytes, unit = bytesUnit(mostOf(shownTrials(), y));
  return drawSeries(state, width, { x, y, unit: unit.divisor, text: bytesText, xTitle: "tokens seen", yTitle: `cache (${unit.name})` });
}

function drawMemory(state, width) {
  const y = (trial) => trial.steps.bytes, unit = bytesUnit(mostOf(shownTrials(), y));
  return drawSeries(state, width, { x: (trial) => trial.steps.elapsed, y, unit: unit.divisor, text: bytesText, xTitle: "seconds since the start of the trial", yTitle: `cache (${unit.name})` });
}

const drawTokenTimes = (state, width) => drawSeries(state, width, { x: (trial) => trial.timing.at, y: (trial) => trial.timing.tokens, unit: 0.001, text: secondsText,
  xTitle: "generated tokens", yTitle: "time a token (ms)" });

function drawLayersOfTrials(state, width) {
  const groups = shownGroups(), of = (trial) => trial.layers[state.of] || [];
  const unit = state.of === "bytes" ? bytesUnit(mostOf(shownTrials(), of)) : { divisor: 1, name: "tokens" };
  const layers = Math.max(0, ...shownTrials().map((trial) => of(trial).length));
  let counted = 0;
  const traces = groups.map((group) => {
    const having = group.trials.filter((trial) => of(trial).length);
    counted += having.length;
    const means = Array.from({ length: layers }, (_, layer) => meanOf(finite(having.map((trial) => of(trial)[layer]))));
    return { x: means.map((_, layer) => layer), y: means.map((value) => (value === null ? null : value / unit.divisor)), mode: "lines+markers", name: groupLabel(group, groups, legendLetters(width)),
      line: lineStyle(group), marker: { size: 6 }, hovertemplate: `layer %{x}: %{y:.4~g} ${unit.name}<extra>${groupLabel(group, groups, 60)}</extra>` };
  }).filter((trace) => trace.y.some((value) => value !== null));
  return { traces, sentence: overTrials("Means over", groups, counted), layout: { height: 450 + 10 * groups.length, hovermode: "closest",
    xaxis: { title: { text: "layer" }, dtick: Math.max(1, Math.ceil(layers / 16)) }, yaxis: { title: { text: state.of === "bytes" ? `held at the end (${unit.name})` : "tokens kept at the end (mean of the heads)" }, rangemode: "tozero" } } };
}
