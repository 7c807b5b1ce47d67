/**
 * yap.js: a client of a Yap server's WebSocket. No dependencies: copy this file.
 *
 *     import { Yap } from "./yap.js";
 *
 *     const yap = new Yap({ url: "wss://yap.example/ws", key: "yap_…", start: { persona: "mia" } });
 *     yap.onstate = ({ state, error }) => console.log(state, error?.message);
 *
 *     const turn = yap.turn("Hello! What do you bake?");
 *     for await (const frame of turn) {                     // the server's frames of this turn, see README
 *       if (frame.type === "toolcall") console.log("tool:", frame.status);
 *       if (frame.type === "token") show(frame.text);
 *     }
 *     console.log(turn.text, turn.usage, turn.times);
 *
 *     yap.bargeIn("Wait!", 42);   // interrupts the reply of which 42 characters were heard
 *     yap.cancel();               // stops the reply
 *     yap.close();                // ends the conversation; the server forgets it
 *
 * A lost connection is opened again, and its running reply goes on there (`resumed` of `onstate`). Where the server no
 * longer has the reply, its turn ends with the error `reply_lost`. A message that the server has not taken is sent again.
 * Where the server has no record of the conversation, the message carries the conversation as `history_text`.
 */

const FINAL = new Set(["authentication_failed", "key_revoked"]); // another attempt with the same key fails as well
const TAKEN_OVER = 4001; // close code: another connection has resumed this conversation
const LOST_CODES = new Set([1001, 1011, 1012, 1013]); // clean closes after which a client comes back
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8_000;
const SILENCE_MS = 10_000; // of a running turn, until the connection is tested
const PONG_MS = 4_000; // longest wait for the answer to such a test
const KEPT_TURNS = 100; // of the conversation's text, for a server that has lost it

/**
 * One turn. Iterate over it for the server's frames as they come; it ends after `done`, or after the `error` that
 * refused it. The fields are current at any time.
 */
export class Turn {
  /** The reply as far as it has come. */ text = "";
  /** Characters of the reply that the user heard (UTF-16, as in `text.length`); null: all of them. */ heard = null;
  /** The server's number of the turn; null until the server takes it. */ number = null;
  /** The `toolcall` frame, or null. */ tool = null;
  /** `usage` of `done`, or null. */ usage = null;
  /** The last `error` frame, or null. */ error = null;
  cancelled = false;
  ended = false;
  /** The WebSocket that took the message last, or null. */ sent = null;
  /** Milliseconds from the sending to the tool signal, the first text and the end; null where not reached. */
  times = { tool: null, first: null, total: null };
  #began = performance.now();
  #frames = [];
  #wake = () => {};
  #finish;

  /** Resolves with this turn at its end. */ finished = new Promise((finish) => { this.#finish = finish; });

  /** Called by `Yap`, with the user's words and the message that carries them. */
  constructor(said, message) { Object.assign(this, { said, message }); }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.#frames.length) yield this.#frames.shift();
      if (this.ended) return;
      await new Promise((wake) => { this.#wake = wake; });
    }
  }

  /** Called by `Yap` with every frame of this turn. */
  take(frame) {
    if (this.ended || (frame.type === "toolcall" && this.tool)) return; // a resumed turn tells its decision again
    const now = performance.now() - this.#began;
    this.number = frame.turn ?? this.number;
    if (frame.type === "toolcall") {
      this.tool = frame;
      this.times.tool = now;
    } else if (frame.type === "token") {
      this.times.first ??= now;
      this.text += frame.text;
    } else if (frame.type === "error") {
      this.error = frame;
    } else if (frame.type === "done") {
      this.usage = frame.usage ?? null;
      this.cancelled = Boolean(frame.cancelled);
    }
    // `done` follows the error of a running turn; an error without a turn refused the message.
    this.ended = frame.type === "done" || (frame.type === "error" && frame.turn === undefined);
    this.#frames.push(frame);
    this.#wake();
    if (!this.ended) return;
    this.times.total = now;
    this.#finish(this);
  }
}

/**
 * One conversation: one `session_id`, and at most one connection at a time. The first turn opens the connection.
 *
 * `onstate({state, error, resumed})` is called after every change:
 * - `connecting`, `open`. `resumed` is the turn whose reply goes on after a lost connection; else it is absent.
 * - `reconnecting`: the connection was lost, or refused for a while. `error` has the server's reason, or null.
 * - `idle`: the server closed a silent connection, or every attempt failed (`error`). The next turn connects.
 * - `closed`: by `close()`, or because the key is not accepted (`error`).
 */
export class Yap {
  state = "idle";
  onstate = () => {};
  #options;
  #socket = null;
  #timer = null; // of the next attempt; true while an attempt is being made
  #watch = null;
  #failures = 0;
  #error = null; // the server's reason to close this connection
  #wait = null; // seconds after which the server expects the next attempt
  #running = new Map(); // request_id → turn that has not ended
  #past = []; // turns that the server has taken, oldest first
  #admitted = false; // the server has sent a frame on this connection
  #fresh = true; // no message was sent before this connection
  #number = 0; // the server's number of the last turn, on the last connection that had one
  #resuming = null; // the turn whose `resume` has no answer yet
  #unproven = false; // the server has not said yet that it has the record of a lost connection
  #forgotten = false; // the next message has to carry the conversation
  #heardAt = 0; // time of the last frame
  #count = 0;

  /**
   * @param {object} options
   * @param {string | (() => Promise<string>)} options.key the API key, or a function that fetches one per connection
   * @param {string} [options.url] the WebSocket's address; by default `/ws` of the page's host
   * @param {object} [options.start] fields of every `start`, such as `persona`, `user_identity` or `sampling`
   * @param {string} [options.session] the `session_id`; by default a random one
   * @param {number} [options.attempts] failed attempts in a row until the state becomes `idle`
   */
  constructor({ key, url = ownAddress(), start = {}, session = randomId(), attempts = 8 }) {
    this.#options = { key, url, start, attempts };
    this.session = session;
    globalThis.addEventListener?.("online", this.#test);
    globalThis.document?.addEventListener("visibilitychange", this.#test);
  }

  /** The newest turn that has not ended, or null. */
  get running() {
    return [...this.#running.values()].at(-1) ?? null;
  }

  /** Open the connection ahead of the first turn. */
  open() {
    if (!this.#socket && !this.#timer && this.state !== "closed") this.#dial();
  }

  /**
   * Send a message. A running reply is interrupted; the text of it that has arrived counts as heard.
   * @param {string} text the user's words; empty: the character speaks first
   * @param {object} [fields] further fields of this `start`
   * @returns {Turn}
   */
  turn(text, fields = {}) {
    const heard = this.running ? this.#heard() : {};
    const message = { type: "start", session_id: this.session, ...this.#options.start, user_utterance: text, ...heard };
    return this.#begin(text, { ...message, ...fields });
  }

  /**
   * Interrupt the last reply, also one that has arrived and is still being spoken.
   * @param {string} text the user's words
   * @param {number} [heard] characters of that reply that the user heard (UTF-16); absent: all that have arrived
   * @returns {Turn}
   */
  bargeIn(text, heard) {
    return this.turn(text, this.#heard(heard));
  }

  /** Answer a tool call with a description of what the tool saw. Returns the turn. */
  followup(analysis) {
    return this.#begin("", { type: "followup", analysis_text: analysis });
  }

  /** Stop the running reply. `heard` as in `bargeIn`. */
  cancel(heard) {
    if (this.#isOpen && (this.#fresh || this.#admitted)) this.#send({ type: "cancel", ...this.#heard(heard) });
    else this.#endAll({ type: "done", cancelled: true });
  }

  /** End the conversation and close the connection. */
  close() {
    if (this.#isOpen) this.#send({ type: "end" });
    this.#shut(null);
  }

  get #isOpen() { return this.#socket?.readyState === WebSocket.OPEN; }

  #send(message) { this.#socket.send(JSON.stringify(message)); }

  #heard(count = Infinity) {
    const last = this.#past.at(-1);
    if (!last?.text) return {};
    last.heard = Math.min(count, last.heard ?? Infinity, last.text.length);
    return { heard: last.heard, heard_unit: "utf16" };
  }

  #begin(said, message) {
    const turn = new Turn(said, { ...message, request_id: `${++this.#count}` });
    this.#running.set(turn.message.request_id, turn);
    if (this.state === "closed") this.#endAll({ type: "error", error_code: "connection_lost", ...this.#error });
    else if (!this.#isOpen) this.#dialNow();
    else if (this.#fresh || (this.#admitted && !this.#resuming)) this.#start(turn); // else it follows the resumed reply
    return turn;
  }

  #start(turn) {
    const history = this.#forgotten && turn.message.type === "start" ? { history_text: this.#history() } : {};
    turn.sent = this.#socket;
    this.#send({ ...history, ...turn.message });
  }

  #startWaiting() {
    const waiting = ({ number, sent }) => number === null && sent !== this.#socket;
    for (const turn of [...this.#running.values()].filter(waiting)) this.#start(turn);
  }

  #history() {
    const lines = ({ said, text, heard }) => [said && `User: ${said}`, text && `Assistant: ${text.slice(0, heard ?? undefined)}`];
    return this.#past.flatMap(lines).filter(Boolean).join("\n");
  }

  #take(frame) {
    this.#heardAt = Date.now();
    const unfinished = [...this.#running.values()];
    const turn = this.#running.get(frame.request_id) ?? unfinished.find(({ number }) => number !== null && number === frame.turn);
    if (frame.type === "draining") return void (this.#wait = frame.reconnect_in);
    if (frame.type === "error" && frame.request_id === undefined && frame.turn === undefined) {
      this.#error = frame; // the server closes this connection
      this.#wait = frame.retry_in ?? null;
      return;
    }
    this.#failures = 0;
    if (this.#resuming && turn === this.#resuming && this.#answered(turn, frame)) return;
    if (frame.for === "start" && this.#unproven && this.#startedWithoutRecord(turn, frame)) return;
    if (frame.for === "start") this.#forgotten = false;
    this.#number = frame.turn ?? this.#number;
    this.#set("open");
    if (turn) this.#give(turn, frame);
    if (!this.#admitted) this.#goOn();
  }

  /** Go on with the conversation on a new connection: resume the newest reply that the server may still have. */
  #goOn() {
    this.#admitted = true;
    if (this.#fresh) return; // the first turn was sent without waiting for the admission
    const turn = [...this.#running.values()].filter(({ sent }) => sent).at(-1);
    if (!turn) return this.#goOnWithout();
    this.#resuming = turn;
    const place = { turn: turn.number ?? this.#number + 1, received: turn.text.length, received_unit: "utf16" };
    this.#send({ type: "resume", session_id: this.session, ...place, request_id: turn.message.request_id });
  }

  /** Take the answer to `resume`; true where there is nothing to resume. */
  #answered(turn, frame) {
    this.#resuming = null;
    const others = [...this.#running.values()].filter((other) => other.sent && other !== turn);
    if (frame.type !== "error") {
      for (const other of others) this.#give(other, { type: "done", cancelled: true }); // the server ended them before
      queueMicrotask(() => this.#startWaiting());
      this.onstate({ state: this.state, error: null, resumed: turn });
      return false;
    }
    for (const lost of [...others, turn].filter(({ number }) => number !== null)) {
      this.#give(lost, { type: "error", error_code: "reply_lost", message: "the connection was lost" });
      this.#forgotten = true; // another server's record may not have this reply
    }
    this.#goOnWithout();
    return true;
  }

  /** Go on without a running reply. The server may have the record; its `ack` tells. */
  #goOnWithout() {
    this.#number = 0;
    this.#unproven = this.#past.length > 0 && !this.#forgotten;
    this.#startWaiting();
  }

  /** Begin the newest turn again, with the conversation, where the server has no record; true where this was done. */
  #startedWithoutRecord(turn, { resumed }) {
    if (resumed || turn?.message.history_text !== undefined) this.#unproven = false;
    if (!this.#unproven || turn !== this.running) return false;
    this.#unproven = false;
    this.#forgotten = true;
    this.#running.delete(turn.message.request_id);
    turn.message.request_id = `${++this.#count}`; // frames of the first attempt belong to no turn
    this.#running.set(turn.message.request_id, turn);
    this.#start(turn);
    return true;
  }

  #give(turn, frame) {
    const isNew = turn.number === null;
    turn.take(frame);
    if (isNew && turn.number !== null) this.#past = [...this.#past.slice(1 - KEPT_TURNS), turn];
    if (turn.ended) this.#running.delete(turn.message.request_id);
  }

  #endAll({ turn: _, ...frame }) { for (const turn of [...this.#running.values()]) this.#give(turn, frame); }

  #set(state, error = null) {
    if (this.state === state && !error) return;
    this.state = state;
    this.onstate({ state, error });
  }

  /** Open the connection without waiting for the time of the next attempt. */
  #dialNow() {
    if (this.#socket || this.#timer === true || this.state === "closed") return;
    clearTimeout(this.#timer);
    this.#dial();
  }

  async #dial() {
    this.#timer = true;
    if (this.state !== "reconnecting") this.#set("connecting");
    const { key, url } = this.#options;
    try {
      const protocols = ["yap.v1", subprotocol(typeof key === "function" ? await key() : key)];
      this.#timer = null;
      if (this.state === "closed") return;
      const socket = new WebSocket(url, protocols);
      socket.onopen = () => this.#opened();
      socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
      socket.onclose = ({ code, wasClean }) => this.#lost(code, wasClean);
      // Node 20 tells a failed handshake by `error` alone; elsewhere `close` has come before the timer.
      socket.onerror = () => setTimeout(() => this.#socket === socket && !this.#isOpen && this.#giveUp(socket));
      this.#socket = socket;
    } catch (error) {
      this.#retry({ error_code: "connection_lost", message: String(error) });
    }
  }

  #opened() {
    this.#error = this.#wait = null;
    this.#admitted = false;
    this.#resuming = null;
    this.#heardAt = Date.now();
    this.#send({ type: "ping" }); // its answer tells that the connection is admitted
    this.#fresh &&= !this.#past.length && ![...this.#running.values()].some(({ sent }) => sent);
    if (this.#fresh) this.#startWaiting();
    this.#watch = setInterval(() => {
      if (this.#running.size && Date.now() - this.#heardAt > SILENCE_MS) this.#test();
    }, SILENCE_MS / 2);
  }

  #lost(code, wasClean) {
    clearInterval(this.#watch);
    this.#socket = null;
    if (this.state === "closed") return;
    const wanted = this.#running.size || this.#error || this.#wait !== null || !wasClean || LOST_CODES.has(code);
    if (code === TAKEN_OVER) this.#shut({ error_code: "taken_over", message: "another connection has this conversation" });
    else if (FINAL.has(this.#error?.error_code)) this.#shut(this.#error);
    else if (wanted) this.#retry(this.#error);
    else this.#set("idle"); // the server's limit for silent connections
  }

  #retry(error) {
    const asked = this.#wait === null ? 0 : this.#wait * 1000; // an estimate: the server may be ready long before
    const backoff = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    const wait = asked ? Math.min(asked, LONGEST_WAIT_MS) * (1 + Math.random() / 4) : backoff;
    this.#wait = null;
    this.#failures += asked ? Math.min(1, wait / asked) : 1;
    if (this.#failures >= this.#options.attempts) {
      this.#failures = 0;
      this.#timer = null;
      this.#set("idle", error ?? { error_code: "connection_lost" });
      this.#endAll({ type: "error", error_code: "connection_lost", ...error });
      return;
    }
    this.#timer = setTimeout(() => this.#dial(), wait);
    this.#set("reconnecting", error);
  }

  #shut(error) {
    globalThis.removeEventListener?.("online", this.#test);
    globalThis.document?.removeEventListener("visibilitychange", this.#test);
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#set("closed", error);
    this.#socket?.close(1000);
    this.#endAll(error ? { ...error, type: "error" } : { type: "done", cancelled: true });
  }

  /** Test the connection, or make the next attempt now: the network may have changed, which closes no WebSocket. */
  #test = () => {
    if (globalThis.document?.hidden || this.state === "closed") return;
    if (this.state === "reconnecting") this.#dialNow();
    if (!this.#isOpen) return;
    const socket = this.#socket;
    const asked = Date.now();
    this.#send({ type: "ping" });
    setTimeout(() => {
      if (this.#socket === socket && this.#heardAt < asked) this.#giveUp(socket);
    }, PONG_MS);
  };

  #giveUp(socket) {
    socket.onmessage = socket.onclose = null; // the close of a dead connection may take a minute
    socket.close();
    this.#lost(1006, false);
  }
}

function ownAddress() {
  const { protocol, host } = globalThis.location;
  return `${protocol === "https:" ? "wss:" : "ws:"}//${host}/ws`;
}

function randomId() { // `crypto.randomUUID` exists on https pages only
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The subprotocol that carries a key: a browser's WebSocket cannot send headers. */
function subprotocol(key) {
  if (/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(key)) return `yap.key.${key}`;
  const base64 = btoa(String.fromCharCode(...new TextEncoder().encode(key)));
  return `yap.key64.${base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}
