// The trials of a run: what the filters let through, grouped by strategy, and what a group says.
const trials = report.trials;
const nameOf = (index) => report.names[index] ?? "";
const FILTERS = [["model", "Model", "models"], ["strategy", "Strategy", "strategies"], ["set", "Prompt set", "prompt sets"], ["context", "Context length", "context lengths"]];
// The chosen values of each filter; none chosen lets all through.
const chosen = Object.fromEntries(FILTERS.map(([key]) => [key, new Set()]));
const valueOf = (trial, key) => (key === "context" ? trial.context ?? null : trial[key]);
const filterText = (key, value) => (key === "context" ? (value === null ? "not set" : countText(value)) : nameOf(value));

const passes = (trial, but) => FILTERS.every(([key]) => key === but || !chosen[key].size || chosen[key].has(valueOf(trial, key)));
const shownTrials = () => trials.filter((trial) => passes(trial));

// Baselines first, then strategies as they come first in the run: the order of colours, too.
const strategyOrder = [...new Set([...trials.filter((trial) => trial.baseline), ...trials].map((trial) => trial.strategy))];
const baselineCount = new Set(trials.filter((trial) => trial.baseline).map((trial) => trial.strategy)).size;
const modelOrder = [...new Set(trials.map((trial) => trial.model))];
const strategyColor = (strategy) => recipeColor(Math.max(0, strategyOrder.indexOf(strategy) - baselineCount + 1));
const MODEL_DASHES = ["solid", "dot", "dash", "dashdot", "longdash"];
const MODEL_SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x"];

// The trials of a strategy on a model. `trials` ended well.
function groupsOf(some) {
  const groups = new Map();
  for (const trial of some) {
    const key = trial.model + "|" + trial.strategy;
    if (!groups.has(key)) groups.set(key, { model: trial.model, strategy: trial.strategy, baseline: trial.baseline, trials: [], failed: 0 });
    if (trial.ok) groups.get(key).trials.push(trial);
    else groups.get(key).failed += 1;
  }
  const rank = (group) => modelOrder.indexOf(group.model) * strategyOrder.length + strategyOrder.indexOf(group.strategy);
  return [...groups.values()].sort((a, b) => rank(a) - rank(b));
}
const shownGroups = () => groupsOf(shownTrials());
// Baseline stands behind every comparison, whether its strategy is shown or not.
const baselineOf = (model) => groupsOf(trials.filter((trial) => trial.baseline && passes(trial, "strategy"))).find((group) => group.model === model);

const severalModels = (groups) => new Set(groups.map((group) => group.model)).size > 1;
// With several models the strategy's name gives way to the model's.
function groupText(group, groups, most) {
  if (!severalModels(groups)) return shortText(nameOf(group.strategy), most);
  const model = shortText(nameOf(group.model), Math.max(8, Math.floor(most / 2)));
  return shortText(nameOf(group.strategy), Math.max(8, most - model.length - 3)) + " · " + model;
}
const groupLabel = (group, groups, most) => plain(groupText(group, groups, most));

// Figures of a trial; undefined or NaN where it does not have them.
const held = (trial) => trial.ledger.held;
const seenTokens = (trial) => (trial.steps.tokens.length ? lastOf(trial.steps.tokens) : trial.prompt_tokens + trial.generated_tokens);
// Answers differ in length, and with them what a cache holds.
const heldAToken = (trial) => held(trial) / seenTokens(trial);
const peakAToken = (trial) => trial.ledger.peak / seenTokens(trial);
const tokenTime = (trial) => trial.timing.token_s;
const klMean = (trial) => trial.quality.kl_mean;
const perplexityChange = (trial) => trial.quality.perplexity / trial.quality.perplexity_base - 1;
const topAgreement = (trial) => trial.quality.top1_agreement;
const rougeL = (trial) => trial.quality.rouge_l;
const judgeScore = (trial) => at(trial.judge, "score");
const lastOf = (values) => (values.length ? values[values.length - 1] : NaN);
const keptShare = (trial) => lastOf(trial.steps.kept) / lastOf(trial.steps.tokens);

const valuesOf = (group, of) => finite(group.trials.map(of));
const meanOf = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);
const medianOf = (values) => {
  const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length ? (sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2) : null;
};

// A figure of each sample, repeats averaged, so that every sample counts alike.
function bySample(group, of) {
  const samples = new Map();
  for (const trial of group.trials) {
    const value = of(trial);
    if (!Number.isFinite(value)) continue;
    const key = JSON.stringify([trial.set, trial.sample, trial.device, trial.context ?? -1, trial.batch]);
    if (!samples.has(key)) samples.set(key, []);
    samples.get(key).push(value);
  }
  return new Map([...samples].map(([key, values]) => [key, meanOf(values)]));
}

// Mulberry32: the same numbers at every opening of the page.
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const LEAST_SAMPLES = 8, RESAMPLES = 2000;
// The mean with its 95% interval from a bootstrap over samples, as comparison.md has it.
function estimate(values) {
  const value = meanOf(values);
  if (values.length < LEAST_SAMPLES) return { value, low: null, high: null, samples: values.length };
  const random = seeded(1), means = new Float64Array(RESAMPLES);
  for (let i = 0; i < RESAMPLES; i += 1) {
    let sum = 0;
    for (let k = 0; k < values.length; k += 1) sum += values[Math.floor(random() * values.length)];
    means[i] = sum / values.length;
  }
  means.sort();
  const quantile = (q) => {
    const place = q * (RESAMPLES - 1), below = Math.floor(place);
    return means[below] + (place - below) * (means[Math.min(below + 1, RESAMPLES - 1)] - means[below]);
  };
  return { value, low: quantile(0.025), high: quantile(0.975), samples: values.length };
}
const sampleMean = (group, of) => estimate([...bySample(group, of).values()]);

// Of figure / Baseline's figure - 1 on the same samples; null where there are none.
function changeAgainstBaseline(group, of) {
  const baseline = baselineOf(group.model);
  if (!baseline) return null;
  const base = bySample(baseline, of);
  return meanOf([...bySample(group, of)].filter(([key]) => base.get(key) > 0).map(([key, value]) => value / base.get(key) - 1));
}

// At places evenly apart, the mean of the trials that reach there, linear between their points; where under half of
// them do, the few that are left would say more of themselves than of the strategy.
function meanSeries(group, x, y, places = 120) {
  const series = group.trials.map((trial) => ({ x: x(trial), y: y(trial) })).filter((one) => one.x.length && one.x.length === one.y.length);
  const result = { x: [], y: [], trials: [], of: series.length };
  if (!series.length) return result;
  const low = Math.min(...series.map((one) => one.x[0])), high = Math.max(...series.map((one) => lastOf(one.x)));
  const count = high > low ? places : 1;
  for (let i = 0; i < count; i += 1) {
    const place = i + 1 === count ? high : low + (i * (high - low)) / (count - 1);
    const values = finite(series.filter((one) => place >= one.x[0] && place <= lastOf(one.x)).map((one) => between(one, place)));
    if (2 * values.length < series.length) continue;
    result.x.push(place);
    result.y.push(meanOf(values));
    result.trials.push(values.length);
  }
  return result;
}

function between(series, place) {
  let low = 0, above = series.x.length - 1;
  while (low < above) {
    const middle = (low + above) >> 1;
    if (series.x[middle] < place) low = middle + 1;
    else above = middle;
  }
  if (above === 0 || series.x[above] === series.x[above - 1]) return series.y[above];
  const share = (place - series.x[above - 1]) / (series.x[above] - series.x[above - 1]);
  return series.y[above - 1] + share * (series.y[above] - series.y[above - 1]);
}

const countOf = (count, one, several) => `${countText(count)} ${count === 1 ? one : several}`;
// "Means over 24 trials of 3 strategies; 2 failed trials are left out."
function overTrials(what, groups, counted) {
  const strategies = new Set(groups.filter((group) => group.trials.length).map((group) => group.strategy)).size;
  const failed = groups.reduce((sum, group) => sum + group.failed, 0);
  return `${what} ${countOf(counted, "trial", "trials")} of ${countOf(strategies, "strategy", "strategies")}`
    + (severalModels(groups) ? ` on ${new Set(groups.map((group) => group.model)).size} models` : "")
    + (failed ? `; ${countOf(failed, "failed trial is", "failed trials are")} left out.` : ".");
}

function secondsText(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1e-3) return (1e6 * seconds).toPrecision(3) + " µs";
  if (seconds < 1) return (1e3 * seconds).toPrecision(3) + " ms";
  return seconds < 100 ? seconds.toPrecision(3) + " s" : Math.round(seconds).toLocaleString("en") + " s";
}
