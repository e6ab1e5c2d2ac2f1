// The charts of the A/B page and their controls.
function addCharts() {
  const bits = { key: "bits", label: "Bytes", options: [["bits_per_value", "at the last scored token"], ["bits_per_value_over_time", "mean over time"]] };
  addChart("front", [{ key: "quality", label: "Quality", options: [["kl_mean", "mean KL"], ["kl_p99", "99% of KL"]] }, bits], drawFront, true);
  addChart("perplexity", [bits], drawPerplexity, true);
  addChart("positions", [], drawPositions, true);
  addChart("bytes", [], drawBytes, true);
  addChart("layers", [{ key: "form", label: "Form", options: [["map", "map"], ["bars", "bars"]] }], drawLayers, true);
  addChart("errors", [{ key: "side", label: "Of", options: [["k", "keys"], ["v", "values"], ["missing", "tokens gone"]] }], drawErrors, true);
  addChart("passkey", [], drawPasskey, true);
  const budgets = budgetOptions();
  if (budgets.length) addChart("capacity", [{ key: "budget", label: "Budget", options: budgets }], drawCapacity, true);
  addChart("speed", [], drawSpeed, true);
}
