// The dashboard refreshes by itself: what is shown now is replaced, the charts get their new numbers.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const EVERY_MS = 3000;
  const page = document.getElementById("dashboard");
  if (!page) return;
  const now = document.getElementById("now");
  const stale = document.getElementById("dashboard-stale");
  const script = document.getElementById("charts");
  const buttons = [...page.querySelectorAll("[data-span]")];
  let charts = script ? JSON.parse(script.textContent) : null;
  let span = "hour";
  let before = JSON.parse(document.getElementById("counters").textContent);
  const rates = {};

  const draw = () => {
    for (const place of page.querySelectorAll("[data-chart]")) {
      const chart = Chart.getChart(place.querySelector("canvas"));
      const fresh = charts && charts[span][place.dataset.chart];
      if (!chart || !fresh) continue;
      chart.data.labels = fresh.labels;
      fresh.datasets.forEach(({ data }, index) => { chart.data.datasets[index].data = data; });
      chart.update("none");
    }
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      span = button.dataset.span;
      for (const other of buttons) {
        const chosen = other === button;
        other.setAttribute("aria-pressed", String(chosen));
        for (const name of ["bg-base-100", "dark:bg-base-800"]) other.classList.toggle(name, chosen);
      }
      draw();
    });
  }

  // The engines of each process count what they generate; the rate is what they did between two reports of a process.
  const rate = (counters) => {
    let total = null;
    for (const [process, [tokens, at]] of Object.entries(counters)) {
      const [tokensBefore, atBefore] = before[process] || [tokens, at];
      if (at > atBefore && tokens >= tokensBefore) rates[process] = (tokens - tokensBefore) / (at - atBefore);
      if (process in rates) total = (total || 0) + rates[process];
    }
    const shown = now.querySelector("[data-tile=rate] [data-value]");
    if (shown && total !== null) shown.textContent = total.toFixed(total < 10 ? 1 : 0);
    before = counters;
  };
  const refresh = async () => {
    if (!document.hidden) {
      try {
        const response = await fetch(page.dataset.url, { headers: { Accept: "application/json" } });
        if (response.redirected || response.status === 403) return location.reload(); // logged out meanwhile
        if (!response.ok) throw new Error(String(response.status));
        const fresh = await response.json();
        now.innerHTML = fresh.now; // rendered and escaped by the server
        charts = fresh.charts;
        rate(fresh.counters);
        draw();
        stale.hidden = true;
      } catch {
        stale.hidden = false;
      }
    }
    setTimeout(refresh, EVERY_MS);
  };
  setTimeout(refresh, EVERY_MS);
});
