// One entry in full: the item as it came, the contract's notes, its request and its batch.

import { entry as read, get } from "./api.js";
import { button, byId, make, terms } from "./dom.js";
import { setFilter } from "./filters.js";
import { bothTimes, count, figure } from "./format.js";
import { nameOf } from "./table.js";

/** Characters of JSON that are coloured; longer items are shown in one colour. */
const COLOURED = 100_000;
const TOKEN = /("(?:\\.|[^"\\])*")(\s*:)?|\b(?:true|false|null)\b|-?\d[\d.eE+-]*/g;

/** The panel beside the stream. */
export class Detail {
  /** @param {Function} closed - Called when the reader closes the panel. */
  constructor(closed) {
    this.panel = byId("detail");
    this.closed = closed;
    this.shown = null;
  }

  get isOpen() {
    return !this.panel.hidden;
  }

  /** Show an entry. */
  show(entry) {
    this.shown = entry;
    const request = make("section", {}, make("h3", {}, "Request"), make("p.muted", {}, `Request ${entry.request}`));
    this.panel.replaceChildren(
      make(
        "header",
        {},
        make("h2", {}, nameOf(entry)),
        button("Close", () => this.close(), { class: "quiet", "aria-keyshortcuts": "Escape" }),
      ),
      ...verdict(entry),
      facts(entry),
      ...remarks(entry, (other) => this.show(other)),
      json("Item", entry.item),
      request,
    );
    this.panel.hidden = false;
    this.panel.scrollTop = 0;
    document.body.classList.add("with-detail");
    byId("announcer").textContent = `${nameOf(entry)} is shown in full beside the table`;
    this.readRequest(entry, request);
  }

  close() {
    if (!this.isOpen) return;
    this.panel.hidden = true;
    this.shown = null;
    document.body.classList.remove("with-detail");
    this.closed();
  }

  async readRequest(entry, section) {
    try {
      const found = await get(`/requests/${entry.request}`);
      if (this.shown === entry) section.replaceChildren(...requestParts(entry, found));
    } catch (error) {
      section.append(make("p.muted", {}, error.message));
    }
  }
}

function verdict(entry) {
  if (entry.kind !== "refused") return [make("p.mark.accepted", {}, "Accepted")];
  return [
    make("p.mark.refused", {}, "Refused"),
    make("p.reason", {}, entry.field ? make("code", {}, entry.field) : null, ` ${entry.reason ?? ""}`),
  ];
}

function facts(entry) {
  return terms([
    ["Received", bothTimes(entry.received_at)],
    ["Timestamp", typeof entry.item?.timestamp === "string" ? bothTimes(entry.item.timestamp) : null],
    ["User", entry.user_id],
    ["Account", entry.group_id],
    ["Event id", entry.event_id],
  ]);
}

/** The notes of the contract, and the relations to other entries. */
function remarks(entry, show) {
  const lines = (entry.notes ?? []).map((note) =>
    make("li", {}, note.field ? make("code", {}, note.field) : null, note.field ? " " : null, note.text),
  );
  if (entry.duplicate_of) {
    const open = async () => {
      const original = await read(entry.duplicate_of);
      if (original) show(original);
    };
    lines.push(make("li", {}, "The same event_id came before. ", button("Show the first", open, { class: "link" })));
  }
  if (entry.out_of_order) lines.push(make("li", {}, "The timestamp is earlier than the user's event before."));
  return lines.length ? [make("section", {}, make("h3", {}, "Notes"), make("ul.remarks", {}, ...lines))] : [];
}

function requestParts(entry, request) {
  const size = request.entries?.length ?? entry.batch_size;
  const batch = () => setFilter({ request: entry.request });
  const place = entry.position === null || entry.position === undefined ? "" : `item ${entry.position + 1} of `;
  return [
    make("h3", {}, `Request ${request.number}`),
    terms([
      ["Path", request.path],
      ["Answer", String(request.status)],
      ["Size", request.size === undefined ? null : `${figure(request.size)} bytes`],
      ["Batch", make("span", {}, `${place}${count(entry.batch_size ?? size, "item")} `, button("Show all", batch, { class: "link" }))],
    ]),
    json("Headers", request.headers),
    json("Answer", request.answer),
  ];
}

/** A value as formatted JSON; a text that is no JSON as it came. */
function json(title, value) {
  const text = typeof value === "string" ? value : JSON.stringify(value ?? null, null, 2);
  const copy = button("Copy", () => copyText(text, copy), { class: "quiet" });
  const block = make("pre", { tabindex: 0, "aria-label": title }, ...(text.length > COLOURED ? [text] : coloured(text)));
  return make("section.json", {}, make("h3", {}, title, copy), block);
}

/** Copy a text, and say so on the button for a moment. */
export async function copyText(text, pressed) {
  const done = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not copied");
  pressed.textContent = done;
  setTimeout(() => (pressed.textContent = "Copy"), 1500);
}

function coloured(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(TOKEN)) {
    const [token, string, colon] = found;
    const kind = colon ? "key" : string ? "string" : "value";
    parts.push(text.slice(end, found.index), make(`span.${kind}`, {}, string ?? token), colon ?? "");
    end = found.index + token.length;
  }
  return [...parts, text.slice(end)];
}
