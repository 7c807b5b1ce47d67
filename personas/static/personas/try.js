// Talk to a persona over the server's WebSocket, as any client does, with a ticket that is valid for a few minutes.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const page = document.getElementById("try");
  if (!page) return;
  const shown = Object.fromEntries([...page.querySelectorAll("[data-show]")].map((place) => [place.dataset.show, place]));
  const form = page.querySelector("form");
  const input = form.elements.utterance;
  const stop = page.querySelector("[data-do=stop]");
  const restart = page.querySelector("[data-do=restart]");
  const turns = new Map(); // the server's number of a turn → its state on this page
  let socket = null;
  let session = "";
  let sent = []; // turns that wait for their ack, in their order
  let suppressed = 0;
  let past = []; // labelled lines of this conversation, for examples
  if (!stop) return; // disabled: nothing to talk to

  const SORRY = {
    unknown_persona: "This persona is not known to the server: it was disabled, renamed or deleted. Reload this page.",
    authentication_failed: "The ticket of this page has expired. Reload the page.",
    key_revoked: "The ticket of this page has expired. Send again to start a new conversation.",
    server_at_capacity: "All connection slots of the server, or of this page, are taken. Try again in a moment.",
    server_not_ready: "The engines are not ready yet.",
    server_draining: "The server is shutting down.",
    message_rate_limited: "Too many messages in a short time.",
    cancel_rate_limited: "Too many stops in a short time.",
    token_budget_exhausted: "The token budget of this page for today is used up.",
    engine_unavailable: "The engine is not available; the server is starting another one.",
    generation_timeout: "The reply exceeded its time limit and was stopped.",
  };
  const state = (text) => { shown.state.textContent = text; };

  const line = (kind, text = "") => {
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
  };
  const fail = (frame) => {
    const wait = frame.retry_in ? ` Try again in ${frame.retry_in} s.` : "";
    const reference = frame.reference ? ` (reference ${frame.reference})` : "";
    const text = SORRY[frame.error_code] || `The server says: ${frame.message}`;
    line("error", text + reference + wait).row.dataset.code = frame.error_code;
  };

  const speaking = () => sent.length > 0 || [...turns.values()].some((turn) => !turn.ended);
  const settle = () => {
    stop.disabled = !speaking();
    state(socket && socket.readyState === WebSocket.OPEN ? (speaking() ? "speaking" : "listening") : "not connected");
  };

  // Show the first text at once, later text every few milliseconds: a layout for every token would delay the page.
  const write = (turn) => {
    if (!turn.said) return;
    const log = shown.log;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40; // do not scroll away from a reader further up
    turn.line.bubble.append(turn.said);
    turn.said = "";
    if (atEnd) log.scrollTop = log.scrollHeight;
  };

  // "This was wrong": the line becomes an example with the other label, for the next training.
  const tools = page.dataset.tools.split(" ").filter(Boolean);
  const teach = (turn) => {
    if (turn.called === undefined || !turn.utterance || !tools.length) return;
    const row = document.createElement("p");
    row.className = "flex gap-2 text-xs";
    for (const tool of turn.called ? [""] : tools) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "cursor-pointer text-link";
      button.dataset.wrong = tool || "none";
      const wanted = tools.length > 1 ? `: ${tool}` : "";
      button.textContent = turn.called ? "This was wrong: no tool" : `This was wrong${wanted}`;
      button.addEventListener("click", async () => {
        const body = new FormData();
        body.append("csrfmiddlewaretoken", page.querySelector("[name=csrfmiddlewaretoken]").value);
        for (const [name, value] of [["text", turn.utterance], ["history", turn.history], ["tool", tool]]) body.append(name, value);
        const response = await fetch(page.dataset.wrong, { method: "POST", body });
        const { detail } = response.ok ? {} : await response.json().catch(() => ({ detail: "The server refused." }));
        row.textContent = detail || "Added to the examples. Train to put the change in force.";
      });
      row.append(button);
    }
    turn.line.row.append(row);
  };

  const on = {
    ack(frame) {
      const turn = sent.shift();
      if (!turn) return;
      turn.line = line("reply");
      turn.line.note.textContent = "…";
      turns.set(frame.turn, turn);
    },
    toolcall(frame, turn) {
      const names = frame.raw.map((call) => call.name).join(", ");
      turn.tool = frame.status === "yes" ? `yes: ${names}` : "no";
      if (frame.score !== undefined) turn.tool += ` (${(frame.score * 100).toFixed(0)} %)`;
      shown.tool.textContent = turn.tool;
      turn.called = frame.raw.length > 0;
    },
    token(frame, turn) {
      if (!turn.ttft) {
        turn.ttft = performance.now() - turn.began;
        shown.ttft.textContent = `${turn.ttft.toFixed(0)} ms`;
      }
      if (turn.line.bubble.textContent && !turn.said) setTimeout(write, 30, turn);
      turn.said += frame.text;
      if (!turn.line.bubble.textContent) write(turn);
    },
    done(frame, turn) {
      write(turn);
      turn.ended = true;
      turn.line.row.dataset.ended = frame.cancelled ? "cancelled" : "done";
      const notes = [];
      if (frame.cancelled) notes.push(turn.stopped ? "stopped" : "interrupted");
      if (turn.ttft) notes.push(`first token ${turn.ttft.toFixed(0)} ms`);
      const usage = frame.usage;
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
      if (turn.tool) notes.push(`tool ${turn.tool}`);
      turn.line.note.textContent = notes.join(" · ");
      teach(turn);
      past.push(`User: ${turn.utterance}`, `Assistant: ${turn.line.bubble.textContent}`);
      if (!turn.line.bubble.textContent) turn.line.bubble.textContent = "(silence)";
    },
    error(frame) {
      if (frame.turn === undefined && frame.error_code !== "cancel_rate_limited") sent.shift(); // the server refused the message
      fail(frame);
    },
  };

  const connect = async () => {
    state("connecting");
    const body = new FormData();
    body.append("csrfmiddlewaretoken", page.querySelector("[name=csrfmiddlewaretoken]").value);
    const response = await fetch(page.dataset.ticket, { method: "POST", body });
    if (!response.ok || response.redirected) throw new Error("no ticket");
    const { ticket } = await response.json();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const made = new WebSocket(`${scheme}//${location.host}/ws`, ["yap.v1", `yap.key.${ticket}`]);
    session = `try-${Date.now().toString(36)}`;
    turns.clear();
    made.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(data);
      const turn = turns.get(frame.turn);
      if (frame.type === "error" || frame.type === "ack" || turn) on[frame.type]?.(frame, turn);
      settle();
    });
    made.addEventListener("close", ({ code }) => {
      if (socket !== made) return; // a newer connection has replaced this one
      socket = null;
      for (const turn of turns.values()) turn.ended = true;
      if (sent.length && code !== 1008 && code !== 1013 && code !== 1012) line("error", "The connection was lost. Send again.");
      sent = [];
      if (code === 4000) line("error", "The server closed the conversation after a time without messages. Send again to start a new one.");
      settle();
    });
    await new Promise((opened, failed) => {
      made.addEventListener("open", opened, { once: true });
      made.addEventListener("close", () => failed(new Error("closed")), { once: true });
    });
    socket = made;
    restart.hidden = false;
  };

  let connecting = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const utterance = input.value.trim();
    input.value = "";
    line("user", utterance || "(nothing)");
    try {
      if (!socket || socket.readyState !== WebSocket.OPEN) await (connecting ||= connect());
    } catch {
      line("error", "The server cannot be reached, or you are no longer logged in. Reload this page.");
      return settle();
    } finally {
      connecting = null;
    }
    if (!socket) return settle();
    sent.push({ began: performance.now(), said: "", ended: false, utterance, history: past.slice(-2).join("\n") });
    const message = { type: "start", session_id: session, persona: page.dataset.persona, user_utterance: utterance };
    socket.send(JSON.stringify(message)); // during a reply this is a barge-in: the server ends the running turn
    settle();
  });
  const halt = () => {
    if (!socket || !speaking()) return;
    for (const turn of turns.values()) turn.stopped ||= !turn.ended;
    socket.send(JSON.stringify({ type: "cancel" }));
  };
  stop.addEventListener("click", halt);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") halt(); });
  restart.addEventListener("click", () => {
    const old = socket;
    socket = null;
    old?.close(1000);
    sent = [];
    turns.clear();
    past = [];
    shown.log.replaceChildren();
    for (const name of ["ttft", "rate", "tool"]) shown[name].textContent = "–";
    suppressed = 0;
    shown.suppressed.textContent = "0";
    restart.hidden = true;
    settle();
    input.focus();
  });
});
