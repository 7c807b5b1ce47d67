/** The page to talk: a key, the characters that it may use, and a conversation with one of them. */

import { Conversation } from "./talk_conversation.js";
import { openConnect } from "./talk_connect.js";

const KEY = "yap.key"; // in sessionStorage: this tab's alone, gone with it
const page = document.body;
const shown = Object.fromEntries([...document.querySelectorAll("[data-show]")].map((place) => [place.dataset.show, place]));
const keyForm = document.getElementById("key");
const list = document.getElementById("personas");
const listButton = document.querySelector("#talk [data-do=side]");
const portraits = new Map(); // slug → object URL of the picture
let personas = [];
let conversation = null;

// -- the key -----------------------------------------------------------------------------------------------------

const REFUSED = {
  401: "The server does not accept this key: it is unknown, revoked or expired.",
  429: "Too many wrong keys came from this address. Wait a minute.",
};

async function read(path) {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } });
  if (!answer.ok) throw new Error(REFUSED[answer.status] ?? `The server answered with status ${answer.status}.`);
  return answer;
}

async function enter() {
  const button = keyForm.querySelector("button");
  button.disabled = true;
  shown["key-error"].textContent = "";
  try {
    personas = await (await read(page.dataset.personas)).json();
    if (!personas.length) throw new Error("This key may not use any of the stored characters.");
    keyForm.reset();
    page.dataset.view = "talk";
    draw();
    choose(personas[0]);
  } catch (error) {
    leave(error instanceof TypeError ? "The server cannot be reached." : error.message);
  } finally {
    button.disabled = false;
  }
}

function leave(reason = "") {
  sessionStorage.removeItem(KEY);
  conversation?.close();
  conversation = null;
  showList(false);
  page.dataset.view = "key";
  document.title = "Yap";
  shown["key-error"].textContent = reason;
  keyForm.elements.key.focus();
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, keyForm.elements.key.value.trim());
  enter();
});

// -- the characters ----------------------------------------------------------------------------------------------

/** Fill a round place with the character's picture; until it is there, with the first letter of the name. */
async function portray(place, persona) {
  let hue = 0;
  for (const letter of persona.slug) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  place.style.setProperty("--hue", hue);
  place.replaceChildren([...persona.name][0].toUpperCase());
  place.dataset.of = persona.slug;
  if (!persona.portrait) return;
  if (!portraits.has(persona.slug)) {
    portraits.set(persona.slug, read(persona.portrait).then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob)));
  }
  try {
    const picture = new Image();
    picture.alt = "";
    picture.src = await portraits.get(persona.slug);
    await picture.decode();
    if (place.dataset.of === persona.slug) place.replaceChildren(picture);
  } catch { // no picture, or one that this browser cannot show: the letter stays
    portraits.set(persona.slug, Promise.reject(new Error("no portrait")));
    portraits.get(persona.slug).catch(() => {});
  }
}

function draw() {
  const rows = personas.map((persona) => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.persona = persona.slug;
    const avatar = document.createElement("span");
    avatar.className = "avatar";
    const who = document.createElement("span");
    who.className = "who";
    const name = document.createElement("strong");
    name.textContent = persona.name;
    const about = document.createElement("small");
    about.textContent = persona.personality;
    who.append(name, about);
    button.append(avatar, who);
    button.addEventListener("click", () => choose(persona));
    row.append(button);
    portray(avatar, persona);
    return row;
  });
  list.replaceChildren(...rows);
}

function choose(persona) {
  showList(false);
  for (const button of list.querySelectorAll("button")) {
    button.setAttribute("aria-current", button.dataset.persona === persona.slug);
  }
  shown.name.textContent = persona.name;
  shown.about.textContent = persona.personality;
  document.title = `${persona.name} – Yap`;
  portray(shown.avatar, persona);
  conversation?.close();
  conversation = new Conversation({ persona, key: sessionStorage.getItem(KEY), shown, portray, refused: leave });
}

/** Open or close the list on a phone. While it is open, the conversation beside it takes neither focus nor clicks. */
function showList(open) {
  const wasOpen = Boolean(page.dataset.side);
  if (open) page.dataset.side = "open";
  else delete page.dataset.side;
  document.getElementById("talk").inert = open;
  listButton.ariaExpanded = open;
  if (open) list.querySelector("[aria-current=true]")?.focus();
  else if (wasOpen) listButton.focus();
}

// -- buttons -----------------------------------------------------------------------------------------------------

const actions = {
  forget: () => leave(),
  restart: () => choose(conversation.persona),
  connect: () => openConnect(conversation?.persona.slug),
  side: () => showList(!page.dataset.side),
};
for (const [name, act] of Object.entries(actions)) {
  for (const button of document.querySelectorAll(`[data-do=${name}]`)) button.addEventListener("click", act);
}
document.addEventListener("click", ({ target }) => { // beside the open list, on a phone
  if (page.dataset.side && !target.closest("#side, [data-do=side]")) showList(false);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !page.dataset.side || document.querySelector("dialog[open]")) return;
  event.stopImmediatePropagation(); // the reply goes on
  showList(false);
}, true);

if (sessionStorage.getItem(KEY)) enter();
