// The stream as a table: a window of rows, newest first. The document holds at most MOST rows, however many are kept.

import { PAGE, entries } from "./api.js";
import { byId, make } from "./dom.js";
import { current, isFiltered, matches } from "./filters.js";
import { bothTimes, count, localTime, utcTime } from "./format.js";

/** Rows in the document while the table follows the stream. */
const FOLLOWED = 200;
/** Rows in the document at most; older ones replace the newest. */
const MOST = 600;
/** Pixels from the top within which the table follows the stream. */
const AT_TOP = 24;
/** New rows up to this number at a time are highlighted for a moment. */
const FEW = 20;

const entryOf = new WeakMap();

/** Return the name under which an entry is shown. */
export function nameOf(entry) {
  return String(entry.feature || entry.item?.event_name || entry.path?.replace("/", "") || "request");
}

/** The table of the stream. It follows new entries unless paused, scrolled down or showing older ones. */
export class Table {
  /** @param {Function} open - Called with the entry of a chosen row. */
  constructor(open) {
    this.open = open;
    this.body = byId("rows");
    this.scroller = byId("scroll");
    this.paused = false;
    this.detached = false; // the newest rows have made way for older ones
    this.held = 0; // entries that arrived while the table did not follow
    this.pending = []; // entries of the present frame, oldest first
    this.cut = false; // older ones of the present frame were left out
    this.loading = false;
    this.question = 0; // number of the last request; answers to earlier ones are out of date
    this.asked = null; // ends the last request of reload()
    this.chosen = null; // id of the open entry
    this.body.addEventListener("click", (event) => this.choose(event.target.closest("tr")));
    this.body.addEventListener("focusin", (event) => this.activate(event.target.closest("tr")));
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    byId("waiting").addEventListener("click", () => this.follow());
    byId("older").addEventListener("click", () => this.older());
    // Older rows are there before the reader reaches the end.
    new IntersectionObserver(([seen]) => seen.isIntersecting && this.older(), {
      root: this.scroller,
      rootMargin: "400px",
    }).observe(byId("older"));
  }

  /** Read the newest matching entries and show them. Entries that arrive meanwhile are added to the answer. */
  async reload() {
    const question = ++this.question;
    const filter = current();
    this.loading = true;
    this.asked?.abort(); // the inspector ends the search for the letters typed before
    this.asked = new AbortController();
    const outdated = (error) => {
      if (question === this.question) throw error;
    };
    const answer = await entries(filter, this.asked.signal)
      .catch(outdated)
      .finally(() => (this.loading = question !== this.question));
    if (question !== this.question) return;
    const newest = answer.entries[0]?.id ?? 0;
    const later = (entry) => entry.id > newest && matches(entry, filter);
    const shown = [...this.body.rows].map((line) => entryOf.get(line));
    this.pending = this.pending.filter(later);
    this.body.replaceChildren(...[...shown.filter(later), ...answer.entries].map(row));
    this.detached = false;
    this.scroller.scrollTop = 0;
    this.held = this.follows() ? 0 : this.pending.length;
    this.finishPage(question, answer.entries);
    this.flush();
  }

  /** Forget all rows: the store is another one. */
  empty() {
    this.pending = [];
    this.body.replaceChildren();
  }

  /** Show new entries, oldest first, with the next frame. */
  arrived(found) {
    const filter = current();
    const fitting = found.filter((entry) => matches(entry, filter));
    if (!fitting.length) return;
    if (!this.pending.length) requestAnimationFrame(() => this.flush());
    this.pending = this.pending.concat(fitting);
    this.cut ||= this.pending.length > FOLLOWED;
    this.pending = this.pending.slice(-FOLLOWED);
    if (!this.follows()) this.held += fitting.length;
    this.showHeld();
  }

  /** Stop or go on following. */
  pause(on) {
    this.paused = on;
    if (!on) this.follow();
  }

  /** Show the newest entries again. */
  follow() {
    this.reload().catch(() => this.showHeld());
  }

  /** Move the keyboard by one row. */
  move(step) {
    const from = document.activeElement.closest("#rows tr") ?? this.lineOf(this.chosen);
    if (!from) this.focus(this.body.firstElementChild);
    else this.focus((step > 0 ? from.nextElementSibling : from.previousElementSibling) ?? from);
  }

  /** Put the keyboard on a row: the given row, or the row of the open entry. */
  focus(line = this.lineOf(this.chosen)) {
    line?.querySelector("button").focus({ preventScroll: true });
    line?.scrollIntoView({ block: "nearest" });
  }

  /** Mark the row of the open entry; null for none. */
  mark(id) {
    this.lineOf(this.chosen)?.removeAttribute("aria-current");
    this.chosen = id;
    this.lineOf(id)?.setAttribute("aria-current", "true");
  }

  lineOf(id) {
    return id === null ? null : this.body.querySelector(`tr[data-id="${id}"]`);
  }

  follows() {
    return !this.paused && !this.detached && this.scroller.scrollTop <= AT_TOP;
  }

  flush() {
    if (this.loading) return; // the answer takes them
    const found = this.pending;
    this.pending = [];
    if (!this.follows() || !found.length) return;
    const fresh = found.reverse().map(row);
    if (fresh.length <= FEW) for (const line of fresh) line.classList.add("fresh");
    this.body.prepend(...fresh);
    const older = this.cut || this.body.rows.length > FOLLOWED || !byId("older").hidden;
    this.cut = false;
    while (this.body.rows.length > FOLLOWED) this.body.lastElementChild.remove();
    this.finish(older);
  }

  async older() {
    const last = entryOf.get(this.body.lastElementChild);
    if (!last || byId("older").hidden) return;
    const question = ++this.question;
    byId("older").hidden = true;
    const answer = await entries({ ...current(), before: last.id }).catch(() => null);
    if (question !== this.question) return;
    byId("older").hidden = answer !== null;
    if (answer === null) return;
    const seen = this.body.lastElementChild;
    this.body.append(...answer.entries.map(row));
    const surplus = this.body.rows.length - MOST;
    if (surplus > 0) {
      const before = seen.offsetTop;
      for (const line of [...this.body.rows].slice(0, surplus)) line.remove();
      this.scroller.scrollTop -= before - seen.offsetTop; // the reader's rows stay in place
      this.detached = true;
    }
    this.finishPage(question, answer.entries);
  }

  /**
   * Offer older entries. A page is full, or short for two reasons: nothing is older, or its items are large and the
   * inspector has shortened it. One small request tells.
   */
  async finishPage(question, found) {
    this.finish(found.length === PAGE);
    if (found.length === PAGE || !found.length) return;
    const next = await entries({ ...current(), before: found[found.length - 1].id, limit: 1 }).catch(() => null);
    if (question === this.question && next?.entries.length) byId("older").hidden = false;
  }

  scrolled() {
    if (this.held && !this.paused && this.scroller.scrollTop <= AT_TOP) this.follow();
  }

  choose(line) {
    if (line && getSelection().isCollapsed) this.open(entryOf.get(line));
  }

  activate(line) {
    for (const button of this.body.querySelectorAll("button[tabindex='0']")) button.tabIndex = -1;
    if (line) line.querySelector("button").tabIndex = 0;
  }

  finish(hasOlder) {
    byId("older").hidden = !hasOlder;
    if (!this.body.contains(document.activeElement)) this.activate(this.body.firstElementChild);
    const none = this.body.rows.length === 0;
    byId("no-match").hidden = !none;
    byId("no-match").textContent = isFiltered() ? "No event matches the filter." : "No event.";
    this.mark(this.chosen);
    this.showHeld();
  }

  showHeld() {
    byId("waiting").hidden = this.held === 0;
    byId("waiting").textContent = `${count(this.held, "new event")}, show`;
  }
}

/** Return the row of an entry. */
function row(entry) {
  const line = make(
    `tr.${entry.kind === "refused" ? "refused" : "accepted"}`,
    { "data-id": entry.id },
    make("td.time", {}, instant(entry.received_at)),
    make("td.utc", {}, utcTime(entry.received_at)),
    make("td.name", {}, make("button", { type: "button", tabindex: -1 }, nameOf(entry)), label(entry)),
    make("td.user", {}, entry.user_id || "–", make("span.also", {}, entry.group_id ?? "no account")),
    make("td.account", {}, entry.group_id ?? "–"),
    make("td.status", {}, ...answer(entry)),
  );
  entryOf.set(line, entry);
  return line;
}

/** Return a time, its milliseconds apart: narrow windows leave them out. */
function instant(text) {
  const [seconds, milliseconds] = localTime(text).split(".");
  return make("time", { datetime: text, title: bothTimes(text) }, seconds, make("span.fraction", {}, `.${milliseconds}`));
}

/** Name the kind of an item that is no use of a feature. */
function label(entry) {
  if (entry.kind === "refused") return null;
  if (entry.path !== "/track") return make("span.label", {}, entry.path.slice(1));
  return entry.item?.event_name === "feature_used" ? null : make("span.label", {}, "event");
}

function answer(entry) {
  const marks = [make(`span.mark.${entry.kind}`, {}, entry.kind === "refused" ? "Refused" : "Accepted")];
  if (entry.duplicate_of) marks.push(make("span.note", { title: "Its event_id came before" }, "duplicate"));
  if (entry.out_of_order) marks.push(make("span.note", { title: "Its timestamp is earlier than the one before" }, "order"));
  if (entry.notes?.length) marks.push(make("span.note", {}, count(entry.notes.length, "note")));
  return marks.flatMap((mark) => [mark, " "]); // a pause for screen readers
}
