// The connection to the inspector: each entry once, in order, over restarts and sleeps.

import { entries, parse } from "./api.js";
import { takeSlot } from "./slots.js";

/** Milliseconds before a connection that the browser has given up is opened again. */
const RETRY = [500, 1000, 2000, 5000];
/** Milliseconds between two looks at the clock, which find a sleep of the machine. No request is made by them. */
const TICK = 5000;
/** Milliseconds that an entry may take from the store to the page before the connection counts as dead. */
const PATIENCE = 2000;
/** Milliseconds of waiting for a free slot until the page says so: a page that is closed frees its slot at once. */
const WAIT = 300;
/** Kinds of messages that carry entries. */
const ENTRIES = ["item", "refused", "batch"];

/**
 * Server-sent events with memory: `last` is the newest id seen, and an entry is passed on only if newer.
 *
 * The browser reconnects by itself with Last-Event-ID. In addition, the connection is checked when the page becomes
 * visible, when the network returns, and after a sleep.
 *
 * A hidden page has no connection and catches up when it is shown, and so does a page that waits for a slot: a browser
 * has few connections to one server for all its pages, and without a free one the next page would not even load.
 */
export class Stream {
  /**
   * @param {Object} listener
   * @param {Function} listener.arrived - Called with new entries, oldest first.
   * @param {Function} listener.reported - Called with the report of a process.
   * @param {Function} listener.faulted - Called with the faults in force.
   * @param {Function} listener.replaced - Called when the store is another one, or was cleared: read the history again.
   * @param {Function} listener.connected - Called with "connecting", "live", "lost" or "waiting": for a slot.
   */
  constructor(listener) {
    this.listener = listener;
    this.store = null;
    this.last = 0;
    this.source = null;
    this.resting = false; // without a connection while the page is hidden
    this.wait = null; // ends the wait for a slot
    this.free = null; // frees the slot
    this.failures = 0;
    this.ticked = Date.now();
    document.addEventListener("visibilitychange", () => (document.hidden ? this.rest() : this.wake()));
    window.addEventListener("online", () => this.check());
    window.addEventListener("pageshow", (event) => event.persisted && this.check());
    setInterval(() => this.tick(), TICK);
  }

  /** Open the connection after the history of `store` up to the id `last`. */
  open(store, last) {
    this.store = store;
    this.last = last;
    this.connect();
  }

  /** End the connection, until it is opened again. */
  close() {
    this.source?.close();
    this.source = null;
    this.wait?.abort();
    this.wait = null;
    this.free?.();
    this.free = null;
    this.resting = false;
  }

  rest() {
    if (this.source === null && this.wait === null) return;
    this.close();
    this.resting = true;
  }

  wake() {
    if (this.resting) this.connect();
    else this.check();
  }

  async connect() {
    this.close();
    this.resting = document.hidden;
    if (this.resting) return;
    const wait = (this.wait = new AbortController());
    const told = setTimeout(() => this.wait === wait && !this.free && this.listener.connected("waiting"), WAIT);
    const free = await takeSlot(wait.signal);
    clearTimeout(told);
    if (this.wait !== wait) return free();
    this.free = free;
    this.source = new EventSource(`/stream?after=${this.last}`);
    this.source.addEventListener("open", () => {
      this.failures = 0;
      this.listener.connected("live");
    });
    this.source.addEventListener("error", () => this.failed());
    this.listen("hello", (hello) => this.greet(hello));
    for (const kind of ENTRIES) this.listen(kind, (data) => this.take(Array.isArray(data) ? data : [data]));
    this.listen("report", (report) => this.listener.reported(report));
    this.listen("faults", (data) => this.listener.faulted(data.faults));
    this.listen("cleared", () => this.listener.replaced());
  }

  listen(kind, use) {
    this.source.addEventListener(kind, (message) => use(parse(message.data || "null")));
  }

  greet(hello) {
    if (hello.store === this.store) return;
    this.close();
    this.listener.replaced();
  }

  take(found) {
    const fresh = found.filter((entry) => entry.id > this.last);
    if (!fresh.length) return;
    this.last = fresh[fresh.length - 1].id;
    this.listener.arrived(fresh);
  }

  failed() {
    this.listener.connected("lost");
    if (this.source.readyState !== EventSource.CLOSED) return; // the browser tries again
    const wait = RETRY[Math.min(this.failures++, RETRY.length - 1)];
    const source = this.source;
    setTimeout(() => source === this.source && this.connect(), wait);
  }

  tick() {
    const asleep = Date.now() - this.ticked > 3 * TICK;
    this.ticked = Date.now();
    if (asleep) this.check();
  }

  /** Compare the store with the page; connect anew if entries do not arrive. */
  async check() {
    if (this.source === null) return;
    const { store, last_id: newest } = await entries({ limit: 1 }).catch(() => ({ store: this.store, last_id: 0 }));
    if (store !== this.store) {
      this.close();
      this.listener.replaced();
      return;
    }
    const source = this.source;
    setTimeout(() => {
      const behind = newest > this.last;
      if (source === this.source && (behind || source.readyState === EventSource.CLOSED)) this.connect();
    }, PATIENCE);
  }
}
