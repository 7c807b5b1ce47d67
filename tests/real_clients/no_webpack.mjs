// Loaded with `node --import`: SillyTavern's server without the compilation of its browser page, which takes a minute.
import { register } from "node:module";

const hooks = `
export async function resolve(specifier, context, next) {
  if (!specifier.endsWith("/webpack-serve.js")) return next(specifier, context);
  const middleware = "Object.assign((request, response, next) => next(), { runWebpackCompiler: async () => {} })";
  return { url: "data:text/javascript,export default () => " + encodeURIComponent(middleware), shortCircuit: true };
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
