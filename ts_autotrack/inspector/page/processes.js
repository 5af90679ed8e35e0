// Processes that report to the inspector, and why nothing arrives from them.

import { make, terms } from "./dom.js";
import { current } from "./filters.js";
import { bothTimes, count, figure, shortTime } from "./format.js";

/** The view of processes. */
export class Processes {
  /** @param {HTMLElement} section - The view's place. */
  constructor(section) {
    this.section = section;
    this.reports = new Map();
  }

  /** Take the reports of GET /problems. */
  replace(reports) {
    this.reports = new Map(reports.map(plain).map((report) => [key(report), report]));
  }

  /** Take one new report. */
  reported(report) {
    const shown = plain(report);
    this.reports.set(key(shown), shown);
  }

  /** Return the reports, the latest first. */
  all() {
    return [...this.reports.values()].sort((a, b) => (a.seen_at < b.seen_at ? 1 : -1));
  }

  /** Return the reports of processes that have delivered nothing. */
  silent() {
    return this.all().filter((report) => !report.stats?.delivered);
  }

  /** Show all reports that pass the filter for free text. */
  show() {
    const wanted = (current().text ?? "").toLowerCase();
    const found = this.all().filter((report) => JSON.stringify(report).toLowerCase().includes(wanted));
    const open = new Set([...this.section.querySelectorAll("details[open]")].map((part) => part.dataset.part));
    const none = "No process has reported. A process reports once it has an endpoint on this machine and tracks something.";
    this.section.replaceChildren(...(found.length ? found.map((report) => card(report, open)) : [make("p.nothing", {}, none)]));
  }
}

/** Return a report in which the parts that are shown have their types: parts of any other type are left out. */
function plain(received) {
  const report = JSON.parse(JSON.stringify(received)); // without raw numbers
  const lists = ["unattributed", "warnings", "functions", "targets"].map((name) => [name, list(report[name])]);
  const stats = object(report.stats);
  return {
    ...report,
    ...Object.fromEntries(lists),
    settings: object(report.settings),
    stats: stats && { ...stats, dropped: object(stats.dropped) },
  };
}

function list(value) {
  return Array.isArray(value) ? value.filter((part) => part !== null) : undefined;
}

function object(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : undefined;
}

/** Return the process and its diagnosis in one paragraph, for the empty page. */
export function diagnosis(report) {
  return make(
    "li",
    {},
    make("strong", {}, report.program ?? "process"),
    make("span.muted", {}, ` pid ${report.pid}, reported at ${shortTime(report.seen_at)}`),
    make("p", {}, report.diagnosis || "It has reported, and nothing is wrong."),
    places(report),
  );
}

/** The inspector knows processes by the same parts: in two containers the pid may be the same. */
function key(report) {
  return `${report.pid} ${report.program} ${report.started_at}`;
}

function card(report, open) {
  const stats = report.stats ?? {};
  return make(
    "section.card.process",
    {},
    make("h2", {}, report.program ?? "process", make("span.muted", {}, ` pid ${report.pid}${report.ended ? ", ended" : ""}`)),
    make("p.diagnosis", {}, report.diagnosis || "Nothing is wrong."),
    places(report),
    make(
      "div.figures",
      {},
      ...["accepted", "delivered", "pending", "rejected"].map((name) => amount(name, stats[name])),
      amount("dropped", sum(stats.dropped)),
    ),
    terms([
      ["Reported", bothTimes(report.seen_at)],
      ["Started", report.started_at ? bothTimes(report.started_at) : null],
      ["Version", [report.version, report.python].filter(Boolean).join(", ")],
      ["Off", report.off_reason],
      ["Dropped", Object.entries(stats.dropped ?? {}).map(([reason, number]) => `${reason} ${figure(number)}`).join(", ")],
    ]),
    part(report, "Warnings", report.warnings, lines, open),
    part(report, "Functions", report.functions ?? report.targets, functions, open),
    part(report, "Settings", Object.entries(report.settings ?? {}), settings, open),
  );
}

/** The places without a user, with their lines. */
function places(report) {
  const found = report.unattributed ?? [];
  if (!found.length) return null;
  const items = found.map((place) =>
    make("li", {}, make("code", {}, place.place), ` ${place.feature || place.event || ""}, ${count(place.count ?? 1, "call")} without a user`),
  );
  return make("ul.places", {}, ...items);
}

function amount(name, number) {
  return make("div", {}, make("strong", {}, number === undefined ? "–" : figure(number)), make("span", {}, name));
}

function sum(numbers) {
  return numbers === undefined ? undefined : Object.values(numbers).reduce((total, number) => total + number, 0);
}

/** A part that the reader opens; it stays open over new reports. */
function part(report, title, rows, show, open) {
  if (!rows?.length) return null;
  const name = `${key(report)} ${title}`;
  return make(
    "details",
    { "data-part": name, open: open.has(name) },
    make("summary", {}, `${title} (${rows.length})`),
    show(rows),
  );
}

function lines(rows) {
  return make("ul.places", {}, ...rows.map((row) => make("li", {}, typeof row === "string" ? row : JSON.stringify(row))));
}

function functions(rows) {
  const body = rows.map((row) => {
    const [place, feature, mechanism] = Array.isArray(row) ? row : [row.key, row.feature, row.mechanism || row.state];
    return make("tr", {}, make("td", {}, make("code", {}, place)), make("td", {}, feature), make("td", {}, mechanism));
  });
  return make("div.wide", {}, make("table.plain", {}, head("Place", "Feature", "Mechanism"), make("tbody", {}, ...body)));
}

function settings(rows) {
  const body = rows.map(([name, value]) =>
    make("tr", {}, make("td", {}, make("code", {}, name)), make("td", {}, typeof value === "string" ? value : JSON.stringify(value))),
  );
  return make("div.wide", {}, make("table.plain", {}, head("Setting", "Value"), make("tbody", {}, ...body)));
}

function head(...names) {
  return make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name))));
}
