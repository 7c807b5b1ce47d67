/** The browser's own voice for a conversation: replies spoken sentence by sentence, and the user's words recognised. */

// A sentence ends at a line break, at a mark followed by white space, or at a full-width mark.
const SENTENCE_END = /\n|[.!?…]+["'”’)\]]*(?=\s)|[。！？]/g;
const RESTART_MS = 300; // recognition ends by itself after a pause

/** Speaks the text of one reply at a time. */
export class Speaker {
  static supported = "speechSynthesis" in globalThis && "SpeechSynthesisUtterance" in globalThis;
  /** Called when speaking begins and ends. */
  onchange = () => {};
  #text = "";
  #queued = 0; // characters that were handed to the synthesizer
  #heard = 0; // characters that were spoken
  #waiting = 0; // utterances that have not ended
  #reply = 0; // counts replies: a cancelled utterance reports its end later

  /** Whether a sentence is being spoken or waits. */
  get speaking() {
    return this.#waiting > 0;
  }

  /** The text that was handed to the synthesizer. */
  get said() {
    return this.#text.slice(0, this.#queued);
  }

  /** Begin another reply. */
  begin() {
    this.stop();
    this.#text = "";
    this.#queued = this.#heard = 0;
  }

  /** Add a piece of the reply's text; sentences that it completes are spoken. */
  add(piece) {
    this.#text += piece;
    SENTENCE_END.lastIndex = this.#queued;
    for (let end; (end = SENTENCE_END.exec(this.#text)); ) this.#speak(end.index + end[0].length);
  }

  /** The reply is complete: speak its rest. */
  finish() {
    this.#speak(this.#text.length);
  }

  /**
   * Be silent.
   * @returns {number} characters of the reply (UTF-16) that were spoken
   */
  stop() {
    this.#reply += 1;
    this.#queued = this.#text.length; // what still arrives is not spoken
    if (this.#waiting) {
      this.#waiting = 0;
      speechSynthesis.cancel();
      this.onchange();
    }
    return this.#heard;
  }

  #speak(end) {
    const start = this.#queued;
    this.#queued = end;
    const sentence = this.#text.slice(start, end);
    if (!sentence.trim()) return;
    const reply = this.#reply;
    const utterance = new SpeechSynthesisUtterance(sentence);
    utterance.lang = document.documentElement.lang;
    utterance.onboundary = ({ charIndex }) => {
      if (reply === this.#reply) this.#heard = Math.max(this.#heard, start + charIndex);
    };
    utterance.onend = utterance.onerror = () => {
      if (reply !== this.#reply) return;
      this.#heard = end;
      this.#waiting -= 1;
      if (!this.#waiting) this.onchange();
    };
    this.#waiting += 1;
    speechSynthesis.speak(utterance);
    if (this.#waiting === 1) this.onchange();
  }
}

/** Recognises speech until it is stopped. */
export class Listener {
  static supported = Boolean(globalThis.SpeechRecognition ?? globalThis.webkitSpeechRecognition);
  on = false;
  /** Called with the words of an unfinished sentence. */ onwords = () => {};
  /** Called with the words of a finished sentence. */ onsaid = () => {};
  /** Called when listening begins and ends, with the reason of a failure or null. */ onchange = () => {};
  #recognition = null;

  start() {
    const Recognition = globalThis.SpeechRecognition ?? globalThis.webkitSpeechRecognition;
    const recognition = new Recognition();
    recognition.continuous = recognition.interimResults = true;
    recognition.lang = navigator.language;
    recognition.onresult = ({ results, resultIndex }) => {
      let words = "";
      for (const result of [...results].slice(resultIndex)) {
        if (result.isFinal) this.onsaid(result[0].transcript.trim());
        else words += result[0].transcript;
      }
      if (words.trim()) this.onwords(words.trim());
    };
    recognition.onerror = ({ error }) => {
      if (["not-allowed", "service-not-allowed", "audio-capture", "language-not-supported"].includes(error)) this.stop(error);
    };
    recognition.onend = () => {
      if (this.#recognition === recognition) setTimeout(() => this.#recognition === recognition && recognition.start(), RESTART_MS);
    };
    this.#recognition = recognition;
    this.on = true;
    recognition.start();
    this.onchange(null);
  }

  stop(reason = null) {
    const recognition = this.#recognition;
    this.#recognition = null;
    this.on = false;
    recognition?.abort();
    this.onchange(reason);
  }
}

/** Whether these recognised words are the loudspeaker's: without headphones, the microphone hears the reply. */
export function isEcho(words, spoken) {
  const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
  return plain(spoken).includes(plain(words));
}
