// The inspector's page: wires the stream to the views. Each view is a module of its own.

import { deleteEvents, entries as read, get } from "./api.js";
import { Detail } from "./detail.js";
import { byId } from "./dom.js";
import { hideEmpty, showEmpty } from "./empty.js";
import { current, focusFilter, isFiltered, onFilter, setFilter } from "./filters.js";
import { SHORT_ZONE, ZONE, count } from "./format.js";
import { listenToKeys } from "./keys.js";
import { Matrix } from "./matrix.js";
import { Problems, numberOf } from "./problems.js";
import { Processes } from "./processes.js";
import { Stream } from "./stream.js";
import { Table } from "./table.js";

/** Milliseconds between two requests for the figures of a view that has changed. An unchanged view makes none. */
const REFRESH = 1500;
/** Milliseconds until the page asks again for its history. */
const AGAIN = 1000;
/** Milliseconds between two announcements to screen readers. */
const ANNOUNCE = 5000;
/** Milliseconds after which the drawings of the last minutes are drawn anew. */
const MINUTE = 60_000;
const VIEWS = ["stream", "accounts", "problems", "processes"];
const CONNECTION = { connecting: "Connecting", live: "Live", lost: "Reconnecting", waiting: "Waiting: four other windows are live" };

const detail = new Detail(closed);
const table = new Table(open);
const matrix = new Matrix(byId("view-accounts"));
const problems = new Problems(byId("view-problems"), open);
const processes = new Processes(byId("view-processes"));
const stream = new Stream({ arrived, reported, faulted, replaced: start, connected });

let total = 0;
let unannounced = 0;
const changed = new Set(); // "matrix" and "problems", if their figures are out of date
let refreshing = 0;

/** Follow the stream from the newest entry, and read the history. Tries again until the inspector answers. */
async function start() {
  stream.close();
  table.empty();
  try {
    const kept = await read({ limit: 1 });
    total = kept.total;
    stream.open(kept.store, kept.last_id);
    await table.reload();
  } catch {
    startAgain();
    return;
  }
  changed.add("matrix").add("problems");
  await refresh();
  showTotal();
}

function startAgain() {
  connected("lost");
  setTimeout(start, AGAIN);
}

function arrived(entries) {
  total += entries.length;
  unannounced += entries.length;
  table.arrived(entries);
  const odd = (entry) => entry.kind === "refused" || entry.duplicate_of || entry.out_of_order;
  refreshSoon(...(entries.some(odd) ? ["matrix", "problems"] : ["matrix"]));
  showTotal();
}

function reported(report) {
  processes.reported(report);
  showProcesses();
  showTotal();
}

function faulted(faults) {
  problems.faulted(faults);
  refreshSoon("problems");
}

function connected(state) {
  byId("connection").dataset.state = state;
  showConnection();
}

function showConnection() {
  const state = byId("connection").dataset.state;
  byId("connection").textContent = state === "live" && table.paused ? "Paused" : CONNECTION[state];
  byId("connection").classList.toggle("paused", table.paused);
}

function showTotal() {
  byId("total").textContent = total ? `${count(total, "item")} kept` : "";
  if (total || isFiltered()) hideEmpty();
  else showEmpty(processes.silent());
}

/** Mark figures as out of date, and read them again soon if a view shows them. */
function refreshSoon(...names) {
  for (const name of names) changed.add(name);
  if (!refreshing) {
    refreshing = setTimeout(() => {
      refreshing = 0;
      refresh();
    }, REFRESH);
  }
}

async function refresh() {
  if (document.hidden) return;
  if (changed.has("matrix") && view() === "accounts") await update("matrix", () => matrix.refresh());
  if (changed.has("problems")) await update("problems", refreshProblems);
}

async function update(name, show) {
  changed.delete(name);
  await show().catch(() => changed.add(name));
}

async function refreshProblems() {
  const found = await get("/problems");
  processes.replace(found.processes);
  problems.show(found);
  showBadge("problem-count", numberOf(found));
  showProcesses();
}

function showProcesses() {
  processes.show();
  showBadge("process-count", processes.all().length);
}

function showBadge(id, number) {
  byId(id).textContent = number;
  byId(id).hidden = !number;
}

function open(entry) {
  location.hash = "#stream";
  table.mark(entry.id);
  detail.show(entry);
}

function closed() {
  table.focus();
  table.mark(null);
}

function view() {
  const wanted = location.hash.slice(1);
  return VIEWS.includes(wanted) ? wanted : "stream";
}

function showView() {
  const shown = view();
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== shown;
  for (const link of document.querySelectorAll(".views a")) {
    if (link.dataset.view === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (shown === "accounts") changed.add("matrix");
  refresh();
}

function pause() {
  table.pause(!table.paused);
  byId("pause").setAttribute("aria-pressed", String(table.paused));
  byId("pause").textContent = table.paused ? "Go on" : "Pause";
  showConnection();
}

async function clear() {
  if (byId("clear-dialog").returnValue !== "clear") return;
  detail.close();
  await deleteEvents().catch((error) => alert(`The events could not be deleted: ${error.message}`));
  await start();
}

function announce() {
  if (unannounced) byId("announcer").textContent = `${count(unannounced, "new event")}`;
  unannounced = 0;
}

function filtered() {
  table.reload().catch(startAgain);
  changed.add("matrix");
  if (problems.found) problems.show(problems.found);
  processes.show();
  refresh();
  showTotal();
}

/** Close the item, or leave a field. The browser empties a filled field first. */
function leave(target) {
  if (!target.matches("input, select")) return detail.close();
  return target.type === "search" && target.value ? false : target.blur();
}

const onStream = (action) => () => view() === "stream" && action();
listenToKeys({
  j: onStream(() => table.move(1)),
  k: onStream(() => table.move(-1)),
  ArrowDown: onStream(() => table.move(1)),
  ArrowUp: onStream(() => table.move(-1)),
  Escape: (event) => leave(event.target),
  "/": focusFilter,
  p: pause,
  "?": () => byId("help").showModal(),
  ...Object.fromEntries(VIEWS.map((name, index) => [String(index + 1), () => (location.hash = `#${name}`)])),
});

byId("zone").textContent = `(${SHORT_ZONE})`;
byId("zone").title = ZONE;
document.body.classList.toggle("in-utc", ZONE === "UTC");
byId("pause").addEventListener("click", pause);
byId("clear").addEventListener("click", () => byId("clear-dialog").showModal());
byId("clear-dialog").addEventListener("close", clear);
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("request-filter").addEventListener("click", () => setFilter({ ...current(), request: "" }));
window.addEventListener("hashchange", showView);
document.addEventListener("visibilitychange", refresh);
setInterval(() => refreshSoon("matrix"), MINUTE);
setInterval(announce, ANNOUNCE);
onFilter(filtered);
showView();
start();
