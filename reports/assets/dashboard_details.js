// Filters, tables, and one sample under two strategies.
const FIRST_ROWS = 500;

// Filters: one box for each value, in words; a choice redraws all that the page shows.
function addFilters(changed) {
  const place = document.getElementById("filter-groups");
  for (const [key, label] of FILTERS) {
    const values = [...new Set(trials.map((trial) => valueOf(trial, key)))];
    if (key === "strategy") values.sort((a, b) => strategyOrder.indexOf(a) - strategyOrder.indexOf(b));
    if (key === "context") values.sort((a, b) => (a ?? 0) - (b ?? 0));
    if (key === "context" && values.length < 2) continue;
    const group = element("div", "filter"), chips = element("div", "chips");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", label);
    group.dataset.filter = key;
    chips.append(...values.map((value) => filterChip(key, value, changed)));
    group.append(element("span", "", label), chips);
    place.append(group);
  }
  const clear = document.createElement("button");
  clear.type = "button";
  clear.id = "filter-clear";
  clear.textContent = "Show all trials";
  clear.addEventListener("click", () => {
    for (const [key] of FILTERS) chosen[key].clear();
    place.querySelectorAll("input").forEach((input) => { input.checked = false; });
    changed();
  });
  place.append(clear);
}

function filterChip(key, value, changed) {
  const label = document.createElement("label"), input = document.createElement("input"), text = document.createElement("span");
  label.className = "chip";
  input.type = "checkbox";
  input.value = value === null ? "" : String(value);
  input.addEventListener("change", () => {
    if (input.checked) chosen[key].add(value);
    else chosen[key].delete(value);
    changed();
  });
  text.textContent = shortText(filterText(key, value), 70);
  text.title = filterText(key, value);
  label.append(input);
  if (key === "strategy") {
    const swatch = document.createElement("i");
    swatch.dataset.strategy = value;
    label.append(swatch);
  }
  label.append(text);
  return label;
}

function showFilterSummary() {
  const parts = FILTERS.map(([key, , several]) => {
    const all = new Set(trials.map((trial) => valueOf(trial, key))).size;
    return chosen[key].size ? `${chosen[key].size} of ${all} ${several}` : "";
  }).filter(Boolean);
  const shown = shownTrials().length;
  document.getElementById("filter-summary").textContent = `Filters: ${parts.length ? parts.join(", ") : "none chosen, everything is shown"} · ${countText(shown)} of ${countOf(trials.length, "trial", "trials")}`;
  document.querySelectorAll("i[data-strategy]").forEach((swatch) => { swatch.style.background = strategyColor(Number(swatch.dataset.strategy)); });
}

const plainSeconds = (value) => secondsText(value);
const meanColumn = (name, of, text) => ({ name, value: (group) => meanOf(valuesOf(group, of)), text });
const changeColumn = (name, of) => ({ name, value: (group) => (group.baseline ? null : changeAgainstBaseline(group, of)), text: changeText });

function showStrategyTable() {
  const groups = shownGroups();
  const columns = [
    { name: "strategy", words: true, value: (group) => nameOf(group.strategy) },
    ...(severalModels(groups) ? [{ name: "model", words: true, value: (group) => nameOf(group.model) }] : []),
    { name: "trials", value: (group) => group.trials.length, text: countText }, { name: "failed", value: (group) => group.failed, text: countText },
    meanColumn("bytes held", held, bytesText), meanColumn("bytes a token", heldAToken, bytesText), changeColumn("against Baseline", heldAToken), meanColumn("tokens kept", keptShare, shareText),
    meanColumn("prefill", (trial) => trial.timing.prefill_s, plainSeconds), meanColumn("first token", (trial) => trial.timing.first_token_s, plainSeconds),
    meanColumn("time a token", tokenTime, plainSeconds), changeColumn("against Baseline", tokenTime),
    meanColumn("mean KL", klMean, significant), { name: "perplexity", value: (group) => meanOf(valuesOf(group, perplexityChange)), text: changeText },
    meanColumn("top-1", topAgreement, shareText), meanColumn("ROUGE-L", rougeL, significant), meanColumn("edit distance", (trial) => trial.quality.edit_distance, significant),
    meanColumn("judge", judgeScore, significant),
  ].filter((column) => ["strategy", "trials", "bytes held"].includes(column.name) || groups.some((group) => { const value = column.value(group); return value !== null && value !== 0 && !Number.isNaN(value); }));
  fillTable("strategy-table", columns, groups, "Strategies of the trials shown", groups.length);
}

function fillTable(place, columns, lines, label, most) {
  const table = buildTable(columns, lines.slice(0, most), label);
  document.getElementById(place).replaceChildren(lines.length ? table : noneText("No trial passes the filters."));
  return table;
}

function noneText(text) {
  const none = document.createElement("p");
  none.className = "none";
  none.textContent = text;
  return none;
}

const TRIAL_COLUMNS = [
  { name: "line", value: (trial) => trial.line, text: countText },
  { name: "strategy", words: true, value: (trial) => nameOf(trial.strategy) }, { name: "model", words: true, value: (trial) => nameOf(trial.model) },
  { name: "prompt set", words: true, value: (trial) => nameOf(trial.set) }, { name: "sample", words: true, value: (trial) => shortText(nameOf(trial.sample), 60) },
  { name: "repeat", value: (trial) => trial.repeat, text: countText }, { name: "status", words: true, value: (trial) => (trial.ok ? "ok" : "failed: " + (trial.error || "no reason given")) },
  { name: "context", value: (trial) => trial.context ?? null, text: countText }, { name: "prompt tokens", value: (trial) => trial.prompt_tokens ?? null, text: countText },
  { name: "generated", value: (trial) => trial.generated_tokens ?? null, text: countText }, { name: "bytes held", value: (trial) => held(trial) ?? null, text: bytesText },
  { name: "peak", value: (trial) => trial.ledger.peak ?? null, text: bytesText }, { name: "process peak", value: (trial) => trial.ledger.process_peak ?? null, text: bytesText },
  { name: "prefill", value: (trial) => trial.timing.prefill_s ?? null, text: plainSeconds }, { name: "first token", value: (trial) => trial.timing.first_token_s ?? null, text: plainSeconds },
  { name: "a token", value: (trial) => tokenTime(trial) ?? null, text: plainSeconds }, { name: "total", value: (trial) => trial.timing.total_s ?? null, text: plainSeconds },
  { name: "perplexity", value: (trial) => trial.quality.perplexity ?? null, text: significant }, { name: "mean KL", value: (trial) => klMean(trial) ?? null, text: significant },
  { name: "top-1", value: (trial) => topAgreement(trial) ?? null, text: shareText }, { name: "ROUGE-L", value: (trial) => rougeL(trial) ?? null, text: significant },
  { name: "edits", value: (trial) => trial.quality.edit_distance ?? null, text: countText }, { name: "judge", value: (trial) => judgeScore(trial), text: significant },
];

const MOST_WORST = 12;
function showWorstTable() {
  const worst = shownTrials().filter((trial) => trial.ok && !trial.baseline && Number.isFinite(klMean(trial))).sort((a, b) => klMean(b) - klMean(a)).slice(0, MOST_WORST);
  const kept = ["line", "strategy", "model", "prompt set", "sample", "context", "perplexity", "mean KL", "top-1", "ROUGE-L", "edits", "judge"];
  const columns = TRIAL_COLUMNS.filter((column) => kept.includes(column.name) && worst.some((trial) => (column.value(trial) ?? null) !== null));
  const table = buildTable(columns, worst, "Worst samples");
  document.getElementById("worst-table").replaceChildren(worst.length ? table : noneText("No trial shown was scored."));
}

function showTrialTable(most = FIRST_ROWS) {
  const shown = shownTrials(), failed = shown.filter((trial) => !trial.ok).length;
  const columns = TRIAL_COLUMNS.filter((column) => column.words || shown.some((trial) => { const value = column.value(trial); return value !== null && value !== undefined; }));
  const table = fillTable("trial-table", columns, shown, "Trials", most);
  [...table.querySelectorAll("tbody tr")].forEach((row, index) => { if (!shown[index].ok) row.className = "failed"; });
  document.getElementById("says-trials").textContent = `${countOf(shown.length, "trial", "trials")}${failed ? `, ${failed} failed` : ""}.`
    + (shown.length > most ? ` The first ${countText(most)} are shown.` : "");
  if (shown.length <= most) return;
  const more = document.createElement("button");
  more.type = "button";
  more.textContent = `Show all ${countText(shown.length)}`;
  more.addEventListener("click", () => showTrialTable(Infinity));
  document.getElementById("trial-table").append(more);
}

// Which words of a and of b have no partner in their longest common subsequence: [a, b], true where it is missing.
const MOST_WORDS = 1500;
function differingWords(a, b) {
  const width = b.length + 1, lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1)
    for (let j = b.length - 1; j >= 0; j -= 1)
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
  const missing = [a.map(() => true), b.map(() => true)];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { missing[0][i] = missing[1][j] = false; i += 1; j += 1; }
    else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return missing;
}

// A text whose marked words stand out; spaces between marked words are marked, too.
function markedText(words, missing, rest) {
  const box = document.createElement("div");
  box.className = "generated";
  for (let i = 0; i < words.length;) {
    let end = i;
    while (end < words.length && missing[end] === missing[i]) end += 1;
    const piece = words.slice(i, end).join("");
    if (missing[i]) {
      const mark = document.createElement("mark");
      mark.textContent = piece;
      box.append(mark);
    } else box.append(piece);
    i = end;
  }
  if (rest) box.append(rest);
  if (!words.length && !rest) box.append(noneText("Nothing was generated."));
  return box;
}

// Words with the space behind them, so that they join to the text again.
const wordsOf = (text) => text.match(/\S+\s*|\s+/g) || [];

function comparedTexts(left, right) {
  const all = [wordsOf(left), wordsOf(right)], [a, b] = all.map((words) => words.slice(0, MOST_WORDS));
  const missing = differingWords(a.map((word) => word.trim()), b.map((word) => word.trim()));
  return [markedText(a, missing[0], all[0].slice(MOST_WORDS).join("")), markedText(b, missing[1], all[1].slice(MOST_WORDS).join(""))];
}

const sampleKey = (trial) => [trial.model, trial.set, trial.sample, trial.context ?? -1, trial.repeat, trial.batch, trial.device].join("|");
const sampleState = { sample: null, left: null, right: null };

function sampleText(trial) {
  const repeats = trials.some((other) => other.repeat > 0);
  return [modelOrder.length > 1 ? shortText(nameOf(trial.model), 30) : "", shortText(nameOf(trial.set), 30), "sample " + shortText(nameOf(trial.sample), 40),
    Number.isFinite(trial.context) ? countText(trial.context) + " tokens" : "", repeats ? "repeat " + trial.repeat : ""].filter(Boolean).join(" · ");
}

function showSampleControls() {
  const place = document.getElementById("sample-controls"), samples = new Map();
  place.replaceChildren();
  const shown = trials.filter((trial) => passes(trial, "strategy"));
  for (const trial of shown) samples.set(sampleKey(trial), [...(samples.get(sampleKey(trial)) || []), trial]);
  if (!samples.has(sampleState.sample)) sampleState.sample = samples.size ? [...samples.keys()][0] : null;
  const here = samples.get(sampleState.sample) || [];
  const strategies = [...new Set(here.filter((trial) => trial.baseline || passes(trial)).map((trial) => trial.strategy))].sort((a, b) => strategyOrder.indexOf(a) - strategyOrder.indexOf(b));
  if (!strategies.includes(sampleState.left)) sampleState.left = strategies[0] ?? null;
  if (!strategies.includes(sampleState.right)) sampleState.right = strategies.find((strategy) => strategy !== sampleState.left) ?? strategies[0] ?? null;
  const names = strategies.map((strategy) => [strategy, shortText(nameOf(strategy), 60)]);
  const state = { ...sampleState };
  const changed = () => {
    Object.assign(sampleState, { sample: state.sample, left: state.left === null ? null : Number(state.left), right: state.right === null ? null : Number(state.right) });
    showSampleControls();
  };
  addControl(place, { key: "sample", label: "Sample", options: [...samples].map(([key, of]) => [key, sampleText(of[0])]) }, state, changed);
  addControl(place, { key: "left", label: "Left", options: names }, state, changed);
  addControl(place, { key: "right", label: "Right", options: names }, state, changed);
  showSample(here.find((trial) => trial.strategy === sampleState.left), here.find((trial) => trial.strategy === sampleState.right));
}

function trialFacts(trial) {
  const facts = [trial.ok ? "" : "failed: " + (trial.error || "no reason given"), Number.isFinite(held(trial)) ? bytesText(held(trial)) + " held" : "",
    Number.isFinite(keptShare(trial)) ? shareText(keptShare(trial)) + " of the tokens kept" : "", Number.isFinite(klMean(trial)) ? "mean KL " + significant(klMean(trial)) : "",
    Number.isFinite(topAgreement(trial)) ? "top-1 " + shareText(topAgreement(trial)) : "", Number.isFinite(rougeL(trial)) ? "ROUGE-L " + significant(rougeL(trial)) : "",
    Number.isFinite(trial.quality.edit_distance) ? countOf(trial.quality.edit_distance, "edit", "edits") : "", Number.isFinite(tokenTime(trial)) ? secondsText(tokenTime(trial)) + " a token" : "",
    trial.judge ? `judge ${trial.judge.score} of 10 (${nameOf(trial.judge.by)}): ${report.texts[trial.judge.reason] || "no reason given"}` : "", ...(trial.remarks || [])];
  return facts.filter(Boolean).join(" · ");
}

function element(name, css, text) {
  const made = document.createElement(name);
  if (css) made.className = css;
  if (text !== undefined) made.textContent = text;
  return made;
}

function showSample(left, right) {
  const view = document.getElementById("sample-view");
  view.replaceChildren();
  if (!left || !right) return view.append(noneText("No sample passes the filters."));
  const heads = element("div", "sides");
  for (const trial of [left, right]) {
    const side = element("div", trial.ok ? "" : "failed");
    side.append(element("h3", "", nameOf(trial.strategy)), element("p", "caption", trialFacts(trial)));
    heads.append(side);
  }
  view.append(heads);
  const turns = Math.max(left.turns.length, right.turns.length);
  for (let turn = 0; turn < turns; turn += 1) {
    const [promptL, textL] = left.turns[turn] || [], [promptR, textR] = right.turns[turn] || [];
    view.append(element("h4", "", turns > 1 ? `Prompt of turn ${turn + 1}` : "Prompt"), element("div", "prompt", report.texts[promptL ?? promptR] ?? ""));
    if (promptL !== undefined && promptR !== undefined && promptL !== promptR) view.append(element("h4", "", "Prompt on the right, which differs"), element("div", "prompt", report.texts[promptR]));
    const texts = element("div", "sides");
    view.append(element("h4", "", turns > 1 ? `Generated in turn ${turn + 1}` : "Generated"));
    texts.append(...comparedTexts(report.texts[textL] ?? "", report.texts[textR] ?? ""));
    [left, right].forEach((trial, side) => { texts.children[side].dataset.name = nameOf(trial.strategy); });
    view.append(texts);
  }
  if (!turns) view.append(noneText("The trials hold no texts."));
  if (report.cut_texts) view.append(element("p", "caption", `${countOf(report.cut_texts, "long text", "long texts")} of this run end in … here; results.jsonl has them whole.`));
}
