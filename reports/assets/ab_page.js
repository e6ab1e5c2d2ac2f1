// The charts of the A/B page and their controls.
function addCharts() {
  addFrontChart();
  addChart("perplexity", [BITS_CONTROL], drawPerplexity, true);
  addChart("positions", [], drawPositions, true);
  addChart("bytes", [], drawBytes, true);
  addChart("layers", [{ key: "form", label: "Form", options: [["map", "map"], ["bars", "bars"]] }], drawLayers, true);
  const budgets = budgetOptions();
  if (budgets.length) addChart("capacity", [{ key: "budget", label: "Budget", options: budgets }], drawCapacity, true);
  addChart("speed", [], drawSpeed, true);
}
