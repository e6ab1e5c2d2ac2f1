// Puts the page together: tables always, charts (the page's addCharts()) where Plotly was inlined.

// One chart at a time, so that the page answers while it draws.
function drawFrom(index) {
  if (index >= charts.length) {
    document.documentElement.dataset.charts = String(charts.length);
    return;
  }
  charts[index].redraw();
  setTimeout(() => drawFrom(index + 1), 0);
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
if (typeof Plotly !== "undefined") {
  addCharts();
  drawFrom(0);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.redraw()));
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => charts.filter((chart) => chart.sized).forEach((chart) => chart.redraw()), 150);
  });
}
