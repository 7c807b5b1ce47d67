// The page of one classifier version: reload while it is trained, and show the cost of a threshold.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const page = document.getElementById("tool-head");
  if (!page) return;
  if (page.dataset.running === "1") setTimeout(() => location.reload(), 1500);
  const form = document.getElementById("threshold-form");
  const stored = document.getElementById("curve");
  if (!form || !stored) return;
  const curve = JSON.parse(stored.textContent); // rows of threshold, recall, false alarms
  const shown = (name) => form.querySelector(`[data-show=${name}]`);
  const percent = (share) => `${(share * 100).toFixed(1)} %`;
  const show = () => {
    const threshold = Number(form.elements.threshold.value);
    const after = curve.findIndex((row) => row[0] >= threshold);
    const high = curve[after === -1 ? curve.length - 1 : after];
    const low = curve[Math.max(0, (after === -1 ? curve.length : after) - 1)];
    const part = high[0] === low[0] ? 0 : Math.min(1, Math.max(0, (threshold - low[0]) / (high[0] - low[0])));
    shown("threshold").textContent = threshold.toFixed(2);
    shown("recall").textContent = percent(low[1] + part * (high[1] - low[1]));
    shown("false-alarms").textContent = percent(low[2] + part * (high[2] - low[2]));
  };
  form.elements.threshold.addEventListener("input", show);
  show();
});
