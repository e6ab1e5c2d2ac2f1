// The charts of the redundancy page and their controls.

// The pages whose redundancy grows most, so that the chart opens on something to see.
function mostGrowing(list) {
  const last = (series) => Math.max(0, ...report.growth.filter((row) => isOf(row, series)).map((row) => row.redundancy[row.redundancy.length - 1] || 0));
  return list.reduce((best, series) => (last(series) > last(best) ? series : best), list[0])?.key;
}

function addCharts() {
  const list = seriesList();
  const layerRows = report.similarity.filter((row) => row.scope === "layer");
  const headRows = report.similarity.filter((row) => row.scope === "head");
  const layers = [...new Set(layerRows.map((row) => row.layer))].sort((a, b) => a - b);
  const metric = { key: "metric", label: "Similarity", options: metricOptions(layerRows) };
  const series = { key: "series", label: "Pages", options: seriesOptions(list) };
  const stored = { key: "series", label: "Pages", options: seriesOptions(list), initial: storedSeries()[0]?.key };
  const threshold = { key: "threshold", label: "Threshold", options: thresholdOptions(), initial: tellingThreshold() };
  if (list.length) {
    addChart("distribution", [series, metric,
      { key: "layer", label: "Layer", options: [["all", "all, summed"], ...layers.map((layer) => [String(layer), String(layer)])] }], drawDistribution);
    addChart("layers", [metric, threshold,
      { key: "group", label: "Prompt set", options: [["all", "all together"], ...setNames().map((name) => [name, name])] }], drawLayers);
    addChart("opportunities", [stored,
      { key: "metric", label: "Similarity", options: metricOptions(report.opportunity), initial: "cosine" }], drawOpportunities);
    addChart("differences", [{ ...metric, options: metricOptions(report.set_differences) },
      { key: "statistic", label: "Statistic", options: [...new Set(report.set_differences.map((row) => row.statistic))].map((name) => [name, name]) },
      { key: "series", label: "Pages", options: [["all", "all"], ...seriesOptions(list)] }], drawDifferences);
    addChart("matrix", [series], drawMatrix);
    addChart("adjacent", [{ ...metric, options: metricOptions(report.adjacent_layers) }], drawAdjacent);
    addChart("growth", [{ ...series, initial: mostGrowing(list) }], drawGrowth);
    addChart("clusters", [], drawClusters);
    addChart("heads", [series, { ...metric, options: metricOptions(headRows) }, threshold,
      { key: "figure", label: "Colour", options: [["redundancy", "redundancy"], ["mean", "mean similarity"]] }], drawHeads);
  }
  if (rows.length) addFrontChart();
  const mapped = [...new Set(pageMaps.map((map) => map.layer))].sort((a, b) => a - b);
  addChart("heatmap", mapped.length ? [{ key: "layer", label: "Layer", layers: mapped }] : [], drawHeatmap);
  addChart("norms", [], drawNorms);
}
