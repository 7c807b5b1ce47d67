// Show token counts beside the prompts of a persona, by the server's own tokenizers, 250 ms after the last key.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const fields = [...document.querySelectorAll("textarea[data-token-counts]")];
  if (!fields.length) return;
  const names = [...document.querySelectorAll("input[name=name], input[name=nickname]")]; // the text of {{char}}
  const notes = new Map(fields.map((field) => {
    const note = document.createElement("p");
    note.className = "text-xs mt-1";
    note.dataset.tokensOf = field.name;
    note.setAttribute("aria-live", "polite");
    field.insertAdjacentElement("afterend", note);
    return [field.name, note];
  }));
  const show = (name, text, over = false) => {
    notes.get(name).textContent = text;
    notes.get(name).classList.toggle("text-red-600", over);
  };
  let timer = 0;
  let newest = 0;
  const count = async () => {
    const mine = ++newest;
    const body = new FormData();
    fields.forEach((field) => body.append(field.name, field.value));
    names.forEach((field) => body.append(field.name, field.value));
    body.append("csrfmiddlewaretoken", document.querySelector("[name=csrfmiddlewaretoken]").value);
    try {
      const response = await fetch(fields[0].dataset.tokenCounts, { method: "POST", body });
      if (!response.ok) throw new Error(String(response.status));
      const counts = await response.json();
      if (mine !== newest) return; // an older answer that came late
      for (const { name } of fields) {
        const { tokens, limit } = counts[name] ?? {};
        if (!counts.loaded) show(name, "no tokenizer loaded: tokens are not counted here");
        else if (tokens === null) show(name, `far over ${limit} tokens`, true);
        else show(name, `${tokens} of ${limit} tokens`, tokens > limit);
      }
    } catch {
      if (mine === newest) fields.forEach(({ name }) => show(name, "tokens could not be counted"));
    }
  };
  [...fields, ...names].forEach((field) => field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(count, 250);
  }));
  count();
});
