// The page that shows new keys once: copy buttons, and an address that a reload can ask for without issuing a key again.
"use strict";
for (const button of document.querySelectorAll("[data-copies]")) {
  const key = document.getElementById(button.dataset.copies);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(key.textContent);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(key); // no clipboard on plain http://: select the text instead
      button.textContent = "Press Ctrl+C";
    }
  });
}
history.replaceState(null, "", document.getElementById("issued").dataset.list);
