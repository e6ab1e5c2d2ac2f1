// The dashboard: its charts, and what a choice of filters redraws.
function addCharts() {
  const losses = Object.entries(LOSSES).filter(([, loss]) => shownGroups().some((group) => !group.baseline && Number.isFinite(loss.of(group)))).map(([key, loss]) => [key, loss.label]);
  const costs = Object.entries(COSTS).filter(([, cost]) => shownGroups().some((group) => !group.baseline && Number.isFinite(cost.of(group)))).map(([key, cost]) => [key, cost.label]);
  addChart("tradeoff", [{ key: "cost", label: "Cost", options: costs.length ? costs : [["bytes", "bytes a token"]] }, { key: "loss", label: "Loss", options: losses.length ? losses : [["kl", "mean KL"]] }], drawTradeoff, true);
  addChart("cache", [{ key: "of", label: "Of", options: [["bytes", "bytes"], ["kept", "tokens"]] }, LINES_CONTROL], drawCache, true);
  addChart("layers", [{ key: "of", label: "Of", options: [["bytes", "bytes"], ["tokens", "tokens"]] }], drawLayersOfTrials, true);
  addChart("times", [], drawTimes, true);
  addChart("tokentimes", [LINES_CONTROL], drawTokenTimes, true);
  addChart("memory", [LINES_CONTROL], drawMemory, true);
  addChart("quality", [], drawStrategyQuality, true);
  addChart("counters", [{ key: "counter", label: "Counter", options: counterOptions() }], drawCounters, true);
}

function showDetails() {
  showFilterSummary();
  showStrategyTable();
  showWorstTable();
  showSampleControls();
  showTrialTable();
}

addFilters(() => {
  showDetails();
  if (charts.length) drawAll();
});
if (innerWidth < 760) document.getElementById("filters").open = false;
showDetails();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showFilterSummary);
