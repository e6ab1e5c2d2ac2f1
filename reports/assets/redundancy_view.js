// What the charts of redundancy ask of the report: kinds of pages, prompt sets, metrics, thresholds.
const METRICS = {
  cosine_centered: "centred cosine",
  cosine: "cosine",
  l2_similarity: "relative L2 similarity",
  hamming: "Hamming similarity",
  jaccard: "Jaccard similarity",
};
const SET_COLORS = ["#7c4dcc", "#d1345b", "#2a9d5c", "#c99700", "#1f8fc4", "#a0522d", "#5b6b8c", "#b83fa0"];
const THRESHOLD_COLORS = ["#8ecae6", "#3a9bdc", "#3f6fe0", "#9a6be8", "#d1345b"];
const setColor = (name) => SET_COLORS[Math.max(0, setNames().indexOf(name)) % SET_COLORS.length];
const setNames = () => report.sets.map((set) => set.name);

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
