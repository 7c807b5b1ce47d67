/** One conversation on the page to talk: its log, the message field, and the voice. */

import { isEcho, Listener, Speaker } from "./voice.js";
import { Yap } from "./yap.js";
import { explain } from "./yap_errors.js";

const log = document.getElementById("log");
const form = document.getElementById("say");
const input = form.elements.utterance;
const [stopButton, speakButton, listenButton] = ["stop", "speak", "listen"].map((name) => form.querySelector(`[data-do=${name}]`));
const STATES = {
  idle: "ready", connecting: "connecting…", open: "listening", speaking: "speaking", reconnecting: "reconnecting…",
  closed: "ended",
};
const STARTERS = ["Hello! Who are you?", "Can you look at my screen?", "Tell me a long story."];
const AT_END_PX = 60;

// The voice stays as the user has set it when another conversation begins.
const speaker = new Speaker();
const listener = new Listener();
let current = null; // the conversation that the form and the voice belong to

function element(kind, className, ...children) {
  const made = document.createElement(kind);
  made.className = className;
  made.append(...children);
  return made;
}

/** Change the log, and stay at its end unless the reader is further up; `always`: go there. */
function atEnd(change, always = false) {
  const stay = always || log.scrollHeight - log.scrollTop - log.clientHeight < AT_END_PX;
  const result = change();
  if (stay) log.scrollTop = log.scrollHeight;
  return result;
}

/**
 * @param {object} options
 * @param {object} options.persona as the API lists it
 * @param {string} options.key
 * @param {object} options.shown places of the page by their `data-show`
 * @param {(place: Element, persona: object) => void} options.portray
 * @param {(reason: string) => void} options.refused called where the key is not accepted
 */
export class Conversation {
  constructor({ persona, key, shown, portray, refused }) {
    Object.assign(this, { persona, shown, refused });
    this.yap = new Yap({ key, start: { persona: persona.slug } });
    this.yap.onstate = (change) => this.#changed(change);
    this.wasLost = false;
    current = this;
    input.value = "";
    input.placeholder = `Message ${persona.name}`;
    grow();
    shown.notice.textContent = "";
    this.#greet(portray);
    this.settle();
    if (matchMedia("(pointer: fine)").matches) input.focus();
  }

  close() {
    speaker.stop();
    this.yap.onstate = () => {};
    this.yap.close();
    if (current === this) current = null;
  }

  /** Send a message; during a reply, written or spoken, this interrupts it. */
  async say(text) {
    this.empty?.remove();
    for (const question of log.querySelectorAll(".tool-answer")) question.remove(); // of turns before
    if (this.yap.state !== "reconnecting") this.shown.notice.textContent = "";
    this.#line("user", text);
    const heard = speaker.speaking ? speaker.stop() : undefined;
    const turn = heard === undefined ? this.yap.turn(text) : this.yap.bargeIn(text, heard);
    this.redraw?.(); // the part of the last reply that was not heard
    speaker.begin();
    await this.#show(turn);
  }

  /** Stop the reply, written and spoken. What was not heard is forgotten. */
  hush() {
    const heard = speaker.speaking ? speaker.stop() : undefined;
    if (this.yap.running) this.yap.running.stopped = true;
    this.yap.cancel(heard);
    this.redraw?.();
    this.settle();
  }

  /** Show in the header and the buttons what happens now. */
  settle() {
    const busy = Boolean(this.yap.running) || speaker.speaking;
    const state = this.yap.state === "open" && busy ? "speaking" : this.yap.state;
    this.shown.state.textContent = STATES[state];
    this.shown.state.dataset.state = state;
    stopButton.disabled = !busy;
  }

  #changed({ state, error, resumed }) {
    if (resumed) this.#event("The reply goes on.");
    if (state === "closed" && error) {
      this.refused(explain(error));
      return;
    }
    if (state === "reconnecting") this.wasLost ||= !error;
    if (state === "open" && this.wasLost) {
      this.wasLost = false;
      this.#event("Connected again.");
    }
    if (state === "reconnecting") {
      const why = error ? explain({ ...error, retry_in: null }) : "The connection was lost.";
      this.shown.notice.textContent = `${why} Trying again…`;
    } else if (state !== "connecting") {
      this.shown.notice.textContent = error ? explain(error) : "";
    }
    this.settle();
  }

  #greet(portray) {
    const avatar = element("span", "avatar");
    portray(avatar, this.persona);
    const starters = element("div", "starters");
    for (const text of ["", ...STARTERS]) {
      const button = element("button", "", ...(text ? [text] : ["Let ", element("bdi", "name", this.persona.name), " begin"]));
      button.type = "button";
      button.addEventListener("click", () => this.say(text));
      starters.append(button);
    }
    const hint = "Send a message during a reply to interrupt it.";
    this.empty = element("div", "empty", avatar, element("h2", "name", this.persona.name), element("p", "", hint), starters);
    log.replaceChildren(this.empty);
  }

  #line(kind, text = "") {
    return atEnd(() => {
      const bubble = element("div", "bubble");
      bubble.textContent = text;
      const notes = element("p", "notes");
      const row = element("div", "line", bubble, notes);
      row.dataset.line = kind;
      log.append(row);
      return { row, bubble, notes };
    }, kind === "user");
  }

  #event(text) {
    atEnd(() => log.append(element("p", "event", text)));
  }

  async #show(turn) {
    const { row, bubble, notes } = this.#line("reply");
    const unheard = element("span", "unheard");
    const said = new Text();
    bubble.classList.add("waiting");
    let drawing = false;
    const redraw = () => atEnd(() => {
      drawing = false;
      said.data = turn.text.slice(0, turn.heard ?? undefined);
      unheard.textContent = turn.text.slice(said.length);
      if (!turn.text) return;
      bubble.classList.remove("waiting");
      if (!bubble.firstChild) bubble.append(said, unheard);
      this.#note(notes, turn);
    });
    this.redraw = redraw;
    this.settle();
    for await (const frame of turn) {
      if (frame.type === "toolcall") atEnd(() => this.#note(notes, turn));
      if (frame.type === "token") {
        if (speakButton.ariaPressed === "true") speaker.add(frame.text);
        if (!said.length) redraw(); // the first text at once; then one layout for each picture that the screen shows
        else if (!drawing) drawing = Boolean(requestAnimationFrame(redraw));
      }
      if (frame.type === "error") this.#line("error", explain(frame));
    }
    if (speakButton.ariaPressed === "true" && !turn.cancelled) speaker.finish();
    redraw();
    atEnd(() => {
      bubble.classList.remove("waiting");
      row.dataset.ended = turn.cancelled ? "cancelled" : turn.error ? "error" : "done";
      if (!turn.text && (turn.error || turn.cancelled)) row.classList.add("silent");
      else if (!turn.text) bubble.textContent = "(silence)";
      this.#note(notes, turn);
    });
    if (turn.tool?.status === "yes" && !turn.cancelled) this.#askForTool(row);
    this.settle();
  }

  #note(place, turn) {
    const notes = [];
    const add = (text, name, title = "") => {
      const note = element("span", name, text);
      note.dataset.note = name;
      note.title = title;
      notes.push(note);
    };
    const { tool, times, usage } = turn;
    if (tool) {
      const names = tool.raw.map((call) => call.name).join(", ");
      const score = tool.score === undefined ? "" : `, probability of yes ${(100 * tool.score).toFixed(0)} %`;
      const server = usage ? `server: ${usage.tool_ms} ms${score}` : score.slice(2);
      add(tool.status === "yes" ? `tool: ${names}` : "no tool", tool.status === "yes" ? "tool yes" : "tool", server);
      add(`signal ${times.tool.toFixed(0)} ms`, "signal");
    }
    if (times.first) add(`first text ${times.first.toFixed(0)} ms`, "first", usage ? `server: ${usage.ttft_ms} ms` : "");
    if (usage) {
      const seconds = (usage.total_ms - usage.ttft_ms) / 1000;
      add(`${usage.completion_tokens} tokens`, "tokens", `${usage.cached_tokens} of ${usage.prompt_tokens} prompt tokens were cached`);
      if (usage.completion_tokens > 1 && seconds > 0) add(`${((usage.completion_tokens - 1) / seconds).toFixed(0)}/s`, "rate");
      if (usage.suppressed) add(`${usage.suppressed} suppressed`, "suppressed");
    }
    if (turn.ended && turn.cancelled) add(turn.stopped ? "stopped" : "interrupted", "cut");
    place.replaceChildren(...notes);
  }

  /** After a yes, the client looks and tells: here the user does. */
  #askForTool(row) {
    const field = element("input", "");
    field.placeholder = "What does the tool see?";
    field.ariaLabel = field.placeholder;
    field.maxLength = 2000;
    const answer = element("form", "tool-answer", field, element("button", "", "Answer"));
    answer.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!field.value.trim() || current !== this) return;
      answer.replaceWith(element("p", "event", `Tool: ${field.value.trim()}`));
      this.#show(this.yap.followup(field.value.trim()));
    });
    atEnd(() => row.append(answer));
  }
}

// -- the form and the voice ----------------------------------------------------------------------------------------

function grow() { // for browsers without `field-sizing`
  if (CSS.supports("field-sizing", "content")) return;
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

function send() {
  const text = input.value.trim();
  input.value = "";
  grow();
  if (text && current) current.say(text);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
input.addEventListener("input", grow);
stopButton.addEventListener("click", () => current?.hush());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !stopButton.disabled && !document.querySelector("dialog[open]")) current?.hush();
});

speakButton.hidden = !Speaker.supported;
speaker.onchange = () => current?.settle();
speakButton.addEventListener("click", () => {
  const on = speakButton.ariaPressed !== "true";
  speakButton.ariaPressed = on;
  if (!on) speaker.stop();
});

listenButton.hidden = !Listener.supported;
listenButton.addEventListener("click", () => (listener.on ? listener.stop() : listener.start()));
listener.onchange = (reason) => {
  listenButton.ariaPressed = listener.on;
  if (!current) return;
  current.shown.notice.textContent = reason
    ? `The microphone cannot be used (${reason}).`
    : listener.on
      ? "Listening. Use headphones. The browser may send what you say to its maker for recognition."
      : "";
};
listener.onwords = (words) => {
  if (speaker.speaking) {
    if (isEcho(words, speaker.said)) return;
    current?.hush();
  }
  input.value = words;
  grow();
};
listener.onsaid = (words) => {
  if (speaker.speaking && isEcho(words, speaker.said)) return;
  input.value = words;
  send();
};
