// Requests to the inspector.

/** Entries in one answer. */
export const PAGE = 100;

/** Return the answer to GET `path` as JSON. Raises Error with the inspector's message. */
export async function get(path, query = {}) {
  return request("GET", path, query);
}

/** Return kept entries, newest first, as {store, total, entries}. */
export async function entries(query) {
  return get("/entries", { limit: PAGE, ...query });
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

/**
 * Read JSON without changing numbers: one that JavaScript cannot hold, such as 12345678901234567890, keeps its digits
 * when it is shown again. Browsers without `JSON.rawJSON` round it.
 */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const rounded = typeof value === "number" && context?.source !== undefined && String(value) !== context.source;
    return rounded && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
  });
}

async function request(method, path, query) {
  const pairs = Array.isArray(query) ? query : Object.entries(query).filter(([, value]) => value !== "");
  const parameters = new URLSearchParams(pairs).toString();
  const response = await fetch(parameters ? `${path}?${parameters}` : path, { method, cache: "no-store" });
  const answer = await response.text().then(parse).catch(() => ({}));
  if (!response.ok) throw new Error(answer.message ?? `${method} ${path} was answered with ${response.status}`);
  return answer;
}
