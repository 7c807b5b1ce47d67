// Talks with yap.js: node yap_turns.mjs URL KEY TURNS; prints what came as JSON.
import { Yap } from "../../yapserver/static/yapserver/yap.js";

const [url, key, turns] = process.argv.slice(2);
const told = { texts: [], errors: [], resumed: 0, histories: 0 };
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  told.histories += JSON.parse(data).history_text === undefined ? 0 : 1;
  return send.call(this, data);
};

const start = { chat_prompt: "You are Ada.", gender: "female", personality: "calm" };
const yap = new Yap({ url, key, start, attempts: 40 });
yap.onstate = ({ resumed }) => { told.resumed += resumed ? 1 : 0; };
for (let number = 0; number < Number(turns); number += 1) {
  const turn = await yap.turn(`number ${number}`).finished;
  told.texts.push(turn.text);
  if (turn.error) told.errors.push(turn.error);
}
yap.close();
console.log(JSON.stringify(told));
process.exit(0);
