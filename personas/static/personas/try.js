// Talk to a persona over the server's WebSocket, as any client does, with a ticket that is valid for a few minutes.
import { Yap } from "../yapserver/yap.js";
import { explain } from "../yapserver/yap_errors.js";

const page = document.getElementById("try");
const shown = Object.fromEntries([...page.querySelectorAll("[data-show]")].map((place) => [place.dataset.show, place]));
const form = page.querySelector("form");
const input = form.elements.utterance;
const stop = page.querySelector("[data-do=stop]"); // absent on the page of a disabled persona
const restart = page.querySelector("[data-do=restart]");
const token = page.querySelector("[name=csrfmiddlewaretoken]").value;
const tools = page.dataset.tools.split(" ").filter(Boolean);
const STATES = { idle: "not connected", connecting: "connecting", open: "listening", reconnecting: "reconnecting", closed: "not connected" };
const EXPIRED = "The ticket of this page has expired. Send again to start a new conversation.";
let yap = null;
let suppressed = 0;
let past = []; // labelled lines of this conversation, for examples

async function post(path, fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries({ csrfmiddlewaretoken: token, ...fields })) body.append(name, value);
  return fetch(path, { method: "POST", body });
}

async function ticket() {
  const response = await post(page.dataset.ticket, {});
  if (!response.ok || response.redirected) throw new Error("no ticket");
  return (await response.json()).ticket;
}

function line(kind, text = "") {
  page.querySelector("[data-empty]")?.remove();
  const mine = kind === "user";
  const row = document.createElement("div");
  row.className = `flex flex-col gap-1 ${mine ? "items-end ml-auto" : "items-start mr-auto"}`;
  row.style.maxWidth = "85%";
  row.dataset.line = kind;
  const bubble = document.createElement("div");
  bubble.className = "px-3 py-2 rounded-default break-words " + {
    user: "bg-primary-600 text-white",
    reply: "bg-base-100 text-font-important-light dark:bg-base-800 dark:text-font-important-dark",
    error: "bg-red-100 text-red-700 dark:bg-red-500/20 dark:text-red-400",
  }[kind];
  bubble.style.whiteSpace = "pre-wrap";
  bubble.style.overflowWrap = "anywhere";
  bubble.style.maxWidth = "100%";
  bubble.append(text);
  const note = document.createElement("p");
  note.className = "text-subtle text-xs";
  row.append(bubble, note);
  shown.log.append(row);
  shown.log.scrollTop = shown.log.scrollHeight;
  return { row, bubble, note };
}

function fail(error) {
  const text = error.error_code === "authentication_failed" || error.error_code === "key_revoked" ? EXPIRED : explain(error);
  line("error", text).row.dataset.code = error.error_code;
}

function settle() {
  stop.disabled = !yap?.running;
  shown.state.textContent = yap?.running && yap.state === "open" ? "speaking" : STATES[yap?.state ?? "idle"];
}

function connect() {
  const made = new Yap({ key: ticket, start: { persona: page.dataset.persona }, attempts: 4 });
  made.onstate = ({ state, error }) => {
    if (error && (state === "idle" || state === "closed") && !made.running) fail(error);
    if (state === "closed" && yap === made) yap = null;
    settle();
  };
  restart.hidden = false;
  return made;
}

// "This was wrong": the line becomes an example with the other label, for the next training.
function teach(turn, { row }, history) {
  if (!turn.tool || !turn.said || !tools.length) return;
  const called = turn.tool.raw.length > 0;
  const place = document.createElement("p");
  place.className = "flex gap-2 text-xs";
  for (const tool of called ? [""] : tools) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "cursor-pointer text-link";
    button.dataset.wrong = tool || "none";
    const wanted = tools.length > 1 ? `: ${tool}` : "";
    button.textContent = called ? "This was wrong: no tool" : `This was wrong${wanted}`;
    button.addEventListener("click", async () => {
      const response = await post(page.dataset.wrong, { text: turn.said, history, tool });
      const { detail } = response.ok ? {} : await response.json().catch(() => ({ detail: "The server refused." }));
      place.textContent = detail || "Added to the examples. Train to put the change in force.";
    });
    place.append(button);
  }
  row.append(place);
}

function showTool(turn) {
  const { status, raw, score } = turn.tool;
  turn.decision = status === "yes" ? `yes: ${raw.map((call) => call.name).join(", ")}` : "no";
  if (score !== undefined) turn.decision += ` (${(score * 100).toFixed(0)} %)`;
  shown.tool.textContent = turn.decision;
}

function summary(turn) {
  const { usage, times } = turn;
  const notes = [];
  if (turn.cancelled) notes.push(turn.stopped ? "stopped" : "interrupted");
  if (times.first) notes.push(`first token ${times.first.toFixed(0)} ms`);
  if (usage) {
    const seconds = (usage.total_ms - usage.ttft_ms) / 1000;
    if (usage.completion_tokens > 1 && seconds > 0) {
      const rate = ((usage.completion_tokens - 1) / seconds).toFixed(1);
      shown.rate.textContent = rate;
      notes.push(`${rate} tokens/s`);
    }
    notes.push(`${usage.completion_tokens} tokens`, `${usage.cached_tokens} of ${usage.prompt_tokens} prompt tokens cached`);
    suppressed += usage.suppressed;
    shown.suppressed.textContent = suppressed;
    if (usage.suppressed) notes.push(`${usage.suppressed} suppressed`);
  }
  if (turn.decision) notes.push(`tool ${turn.decision}`);
  return notes.join(" · ");
}

async function show(turn) {
  const history = past.slice(-2).join("\n");
  const reply = line("reply");
  reply.note.textContent = "…";
  let written = 0;
  let timer = null;
  // Show the first text at once, later text every few milliseconds: a layout for every token would delay the page.
  const write = () => {
    timer = null;
    const { log } = shown;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40; // a reader further up stays there
    reply.bubble.append(turn.text.slice(written));
    written = turn.text.length;
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  settle();
  for await (const frame of turn) {
    if (frame.type === "toolcall") showTool(turn);
    if (frame.type === "error") fail(frame);
    if (frame.type === "token") {
      shown.ttft.textContent = `${turn.times.first.toFixed(0)} ms`;
      if (!written) write();
      else timer ??= setTimeout(write, 30);
    }
  }
  clearTimeout(timer);
  write();
  if (turn.error && turn.number === null) { // the server refused the message
    reply.row.remove();
  } else {
    reply.row.dataset.ended = turn.cancelled ? "cancelled" : "done";
    reply.note.textContent = summary(turn);
    teach(turn, reply, history);
    past.push(`User: ${turn.said}`, `Assistant: ${turn.text}`);
    if (!turn.text) reply.bubble.textContent = "(silence)";
  }
  settle();
}

function halt() {
  if (!yap?.running) return;
  yap.running.stopped = true;
  yap.cancel();
}

if (stop) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const utterance = input.value.trim();
    input.value = "";
    line("user", utterance || "(nothing)");
    yap ??= connect();
    show(yap.turn(utterance)); // during a reply this is a barge-in: the server ends the running turn
  });
  stop.addEventListener("click", halt);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") halt(); });
  restart.addEventListener("click", () => {
    const old = yap;
    yap = null;
    old?.close();
    past = [];
    suppressed = 0;
    shown.log.replaceChildren();
    for (const name of ["ttft", "rate", "tool"]) shown[name].textContent = "–";
    shown.suppressed.textContent = "0";
    restart.hidden = true;
    settle();
    input.focus();
  });
}
