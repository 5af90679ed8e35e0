// Requests to the inspector.

/** Entries in one answer. */
export const PAGE = 100;

/** Return the answer to GET `path` as JSON. `signal` ends the request. Raises Error with the inspector's message. */
export async function get(path, query = {}, signal = undefined) {
  return request("GET", path, query, signal);
}

/** Return kept entries, newest first, as {store, last_id, total, entries}. `last_id` is the last id given. */
export async function entries(query, signal) {
  return get("/entries", { limit: PAGE, ...query }, signal);
}

/** Return one entry by its id, or null. */
export async function entry(id) {
  const found = (await entries({ before: id + 1, limit: 1 })).entries[0];
  return found?.id === id ? found : null;
}

/** Replace the faults in force by `faults`, as texts such as "503:0.5". */
export async function putFaults(faults) {
  return request("PUT", "/faults", faults.map((fault) => ["fault", fault]));
}

/** Delete all kept events. */
export async function deleteEvents() {
  return request("DELETE", "/events", {});
}

/** Digits of a number that JavaScript always keeps. */
const DIGITS = 15;

/**
 * Read JSON. A number with more digits than JavaScript keeps, such as 12345678901234567890, is shown as it came.
 * Browsers without `JSON.rawJSON` round it.
 */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => (isRounded(value, context?.source) ? JSON.rawJSON(context.source) : value));
}

function isRounded(value, source) {
  if (typeof value !== "number" || source === undefined || !JSON.rawJSON) return false;
  return source.length > DIGITS && String(value) !== source && source.match(/\d/g).length > DIGITS;
}

async function request(method, path, query, signal) {
  const pairs = Array.isArray(query) ? query : Object.entries(query).filter(([, value]) => value !== "");
  const parameters = new URLSearchParams(pairs).toString();
  const response = await fetch(parameters ? `${path}?${parameters}` : path, { method, signal, cache: "no-store" });
  const answer = await response.text().then(parse).catch(() => ({}));
  if (!response.ok) throw new Error(answer.message ?? `${method} ${path} was answered with ${response.status}`);
  return answer;
}
