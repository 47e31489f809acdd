"use strict";
for (const script of document.querySelectorAll("script.figure")) {
  const { data, layout } = JSON.parse(script.textContent);
  const place = document.getElementById(script.dataset.for);
  if (layout.height) place.style.height = `${layout.height}px`;
  const options = { responsive: true, displayModeBar: false };
  Plotly.newPlot(place, data, { ...layout, autosize: true }, options);
}
// A page of paper is narrower than most windows, and two figures are to fit one below the other.
const paper = 660;
addEventListener("beforeprint", () => {
  for (const plot of document.querySelectorAll(".plot")) {
    Plotly.relayout(plot, { width: paper, height: 0.8 * plot.offsetHeight });
  }
});
addEventListener("afterprint", () => {
  for (const plot of document.querySelectorAll(".plot")) {
    Plotly.relayout(plot, { width: null, height: null, autosize: true });
  }
});
