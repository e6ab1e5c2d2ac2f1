// Puts the page together: tables always, charts (the page's addCharts()) where Plotly was inlined.

// One chart at a time, so that the page answers while it draws; a later call takes over from one that goes on.
let drawing = 0;
function drawAll() {
  drawing += 1;
  delete document.documentElement.dataset.charts;
  drawFrom(0, drawing);
}

function drawFrom(index, call) {
  if (call !== drawing) return;
  if (index >= charts.length) {
    document.documentElement.dataset.charts = String(charts.length);
    return;
  }
  charts[index].redraw();
  setTimeout(() => drawFrom(index + 1, call), 0);
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
if (typeof Plotly !== "undefined") {
  addCharts();
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => charts.filter((chart) => chart.sized).forEach((chart) => chart.redraw()), 150);
  });
}
