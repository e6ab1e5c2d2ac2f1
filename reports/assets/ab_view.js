// What the charts of recipes ask of the report: names, colours, and the axes of quality.
const RECIPE_COLORS = ["#2f5fd0", "#d9730d", "#2a9d5c", "#d1345b", "#7c4dcc", "#1f8fc4", "#c99700", "#b83fa0", "#0d9488", "#a0522d", "#65a30d"];
const RECIPE_COLORS_DARK = ["#7ea6ff", "#f0963c", "#58c98a", "#f2708f", "#ab8bf0", "#56b8e6", "#e6bd45", "#dd7fcb", "#2dc4b4", "#cf8a63", "#a3d15a"];
const PART_COLORS = ["#2f5fd0", "#d9730d", "#7c4dcc", "#c99700", "#9ca3af"];

const rows = report.rows || [];
const recipeColor = (index) => (index === 0 ? cssColor("--control")
  : (isDark() ? RECIPE_COLORS_DARK : RECIPE_COLORS)[(index - 1) % RECIPE_COLORS.length]);
const shortText = (text, most) => (text.length > most ? text.slice(0, most - 1).trimEnd() + "…" : text);
const recipeName = (row, most = 60) => plain(shortText(row.recipe, most));
// A name on an axis takes a third of the chart at most.
const axisName = (row, width) => recipeName(row, Math.max(12, Math.min(60, Math.floor(width / 21))));
const legendLetters = (width) => Math.max(12, Math.min(60, Math.floor((width - 120) / 8)));
const significant = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "–");
const changeText = (value) => (Number.isFinite(value) ? (value > 0 ? "+" : "") + (100 * value).toFixed(2) + "%" : "–");
const shareText = (value) => (Number.isFinite(value) ? (100 * value).toFixed(2) + "%" : "–");
const countText = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : "–");

function bytesText(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit + 1 < units.length; unit += 1) bytes /= 1024;
  return bytes.toFixed(unit === 0 || bytes >= 100 ? 0 : bytes < 10 ? 2 : 1) + " " + units[unit];
}

const finite = (values) => values.filter((value) => Number.isFinite(value));

// Logarithmic; values at or below 0 stand on the lower end, whose tick then says 0. As in reports/ab_scales.cc.
function logScale(values) {
  const known = finite(values), positive = known.filter((value) => value > 0);
  const zeros = known.some((value) => value <= 0);
  const least = positive.length ? Math.min(...positive) : 1e-6, most = positive.length ? Math.max(...positive) : 1e-6;
  const first = Math.floor(Math.log10(least) - 0.05);
  const high = Math.max(Math.log10(most) + 0.25, first + 1), low = zeros ? first - 1 : first;
  const ticks = zeros ? [[low, "0"]] : [];
  for (let decade = first; decade <= high; decade += Math.ceil((high - first) / 9)) ticks.push([decade, decade >= -4 ? String(Number(`1e${decade}`)) : `1e${decade}`]);
  return { low, high, ticks, at: (value) => (Number.isFinite(value) ? (value > 0 ? Math.max(low, Math.log10(value)) : low) : null) };
}

// Linear, or where some change is over 10% linear about 0 and logarithmic on both sides. As in reports/ab_scales.cc.
function changeScale(values) {
  const turn = 0.001, known = finite(values);
  const least = Math.min(0, ...known), most = Math.max(0, ...known);
  const linear = Math.max(most, -least) <= 0.1;
  const at = (value) => (Number.isFinite(value) ? (linear ? value : Math.asinh(value / turn)) : null);
  const margin = Math.max(0.06 * (at(most) - at(least)), linear ? 1e-5 : 0.05);
  const low = at(least) - margin, high = at(most) + margin;
  if (linear) return { low, high, at, ticks: null };
  const ticks = [[0, "0%"]];
  for (let size = turn; Math.asinh(size / turn) <= Math.max(high, -low); size *= 10)
    for (const value of [-size, size])
      if (at(value) >= low && at(value) <= high) ticks.push([at(value), (value > 0 ? "+" : "") + Number((100 * value).toPrecision(3)) + "%"]);
  return { low, high, at, ticks };
}

const scaleAxis = (scale, title) => ({
  title: { text: title }, range: [scale.low, scale.high], zeroline: false,
  ...(scale.ticks ? { tickvals: scale.ticks.map((tick) => tick[0]), ticktext: scale.ticks.map((tick) => tick[1]) } : { tickformat: "+.2~%" }),
});
