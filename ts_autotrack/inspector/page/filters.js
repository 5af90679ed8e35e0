// The filter of all views. It is kept in the address, so that a reload and a link keep it.

import { byId } from "./dom.js";

/** Milliseconds between the last key and the new answer. */
const DELAY = 120;
const FIELDS = ["text", "feature", "user", "account", "kind"];

const form = byId("filters");
const listeners = [];
let timer = 0;
let request = "";

/** Call `listener` whenever the filter has changed. */
export function onFilter(listener) {
  listeners.push(listener);
}

/** Return the filter as parameters of a request; empty fields are left out. */
export function current() {
  const found = FIELDS.map((name) => [name, form.elements[name].value.trim()]);
  return Object.fromEntries([...found, ["request", request]].filter(([, value]) => value));
}

/** True if any field is filled. */
export function isFiltered() {
  return Object.keys(current()).length > 0;
}

/** Replace the filter. */
export function setFilter(values) {
  for (const name of FIELDS) form.elements[name].value = values[name] ?? "";
  request = /^\d+$/.test(values.request ?? "") ? String(values.request) : "";
  changed();
}

/** Put the keyboard into the field for free text. */
export function focusFilter() {
  form.elements.text.focus();
  form.elements.text.select();
}

/** Whether an entry passes the filter; the inspector decides the same for its history. */
export function matches(entry, filter = current()) {
  const has = (value, wanted) => !wanted || String(value ?? "").toLowerCase().includes(wanted.toLowerCase());
  return (
    (!filter.kind || entry.kind === filter.kind) &&
    (!filter.request || String(entry.request) === filter.request) &&
    has(`${entry.feature ?? ""}\n${entry.item?.event_name ?? ""}`, filter.feature) &&
    has(entry.user_id, filter.user) &&
    has(entry.group_id, filter.account) &&
    has(filter.text && asJson(entry.item) + (entry.reason ?? ""), filter.text)
  );
}

/** Return the item as the inspector keeps and searches it: `{"a": [1, 2]}`, with spaces. Texts hold no line breaks. */
function asJson(item) {
  const text = JSON.stringify(item, null, 1);
  return text.replace(/,\n */g, ", ").replace(/\n */g, "");
}

/** Offer names in the fields for features and accounts. */
export function suggest(features, accounts) {
  offer("feature-names", features);
  offer("account-names", accounts);
}

function offer(id, names) {
  byId(id).replaceChildren(...names.slice(0, 50).map((name) => new Option(name, name)));
}

function changed() {
  clearTimeout(timer);
  timer = 0;
  byId("reset").hidden = !isFiltered();
  byId("request-filter").hidden = !request;
  byId("request-filter").textContent = `Request ${request}`;
  const query = new URLSearchParams(current()).toString();
  history.replaceState(null, "", (query ? `?${query}` : location.pathname) + location.hash);
  for (const listener of listeners) listener();
}

form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(changed, DELAY);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  changed();
});
form.addEventListener("reset", (event) => {
  event.preventDefault();
  setFilter({});
});
/** Take the filter of the address: at the start, and when the reader goes back or forward. */
function readAddress() {
  const wanted = Object.fromEntries(new URLSearchParams(location.search));
  if (JSON.stringify(wanted) !== JSON.stringify(current())) setFilter(wanted);
}

window.addEventListener("popstate", () => timer || readAddress()); // a text being typed is not in the address yet
readAddress();
