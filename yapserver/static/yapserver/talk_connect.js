/** The dialog "Connect your own client": one page of settings for each client, with this server's address. */

const dialog = document.getElementById("connect");
const COPIED_MS = 1_500;

/**
 * Show the dialog.
 * @param {string} [slug] the character to name as model
 */
export function openConnect(slug = "mia") {
  for (const code of dialog.querySelectorAll("pre")) {
    code.dataset.template ??= code.textContent;
    code.textContent = code.dataset.template
      .replaceAll("http://127.0.0.1:8000", location.origin)
      .replaceAll("ws://127.0.0.1:8000", location.origin.replace(/^http/, "ws"))
      .replaceAll(/\bmia\b/g, slug);
  }
  dialog.showModal();
}

function select(tab) {
  for (const other of dialog.querySelectorAll("[role=tab]")) {
    other.setAttribute("aria-selected", other === tab);
    document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
}

async function copy(button) {
  const code = button.parentElement.querySelector("pre");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch { // a page without https has no clipboard: select the text instead
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, COPIED_MS);
}

dialog?.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (target === dialog || button?.dataset.do === "close") dialog.close();
  else if (button?.role === "tab" || button?.getAttribute("role") === "tab") select(button);
  else if (button) copy(button);
});
