/** The errors of a Yap server, in words for people. */

const TEXTS = {
  authentication_failed: "The server does not accept this key: it is unknown, revoked or expired.",
  key_revoked: "The key has been revoked or has expired.",
  server_at_capacity: "All connection slots of the server, or of this key, are taken.",
  server_not_ready: "The engines are not ready yet.",
  server_draining: "The server is shutting down.",
  connection_lost: "The server cannot be reached.",
  unknown_persona: "The server does not know this persona: it was disabled, renamed or deleted. Reload this page.",
  reply_lost: "The connection was lost, and with it the rest of this reply.",
  taken_over: "Another window or device goes on with this conversation.",
  message_rate_limited: "Too many messages in a short time.",
  cancel_rate_limited: "Too many interruptions in a short time.",
  token_budget_exhausted: "The token budget for today is used up.",
  engine_unavailable: "The engine is not available; the server is starting another one.",
  generation_timeout: "The reply exceeded its time limit and was stopped.",
};

/**
 * Describe an error for people.
 * @param {{error_code: string, message?: string, retry_in?: number, reference?: string}} error an `error` frame
 * @returns {string} one or two sentences, with the waiting time where the server names one
 */
export function explain(error) {
  const text = TEXTS[error.error_code] ?? `The server says: ${error.message}`;
  const reference = error.reference ? ` (reference ${error.reference})` : "";
  const wait = error.retry_in ? ` Try again in ${error.retry_in} s.` : "";
  return text + reference + wait;
}
