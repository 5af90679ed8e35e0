// Problems: refused items, duplicates, timestamps out of order, and the faults in force.

import { putFaults } from "./api.js";
import { button, make } from "./dom.js";
import { current, matches } from "./filters.js";
import { count, localTime } from "./format.js";
import { nameOf } from "./table.js";

/** Faults that the page offers, with their effects. */
const OFFERED = [
  ["503", "answers 503: the application waits and tries again"],
  ["503:0.5", "answers every second request with 503"],
  ["reset:0.3", "closes the connection of three requests in ten"],
  ["lost", "takes the events, and its answer is lost"],
  ["slow", "answers after a second"],
  ["401", "refuses the key"],
];

/** The view of problems. */
export class Problems {
  /**
   * @param {HTMLElement} section - The view's place.
   * @param {Function} open - Called with an entry to show.
   */
  constructor(section, open) {
    this.section = section;
    this.open = open;
    this.found = null;
  }

  /** Show the answer to GET /problems. */
  show(found) {
    this.found = found;
    const filter = current();
    const group = (title, help, part) => this.group(title, help, part, filter);
    const held = document.activeElement?.id;
    this.section.replaceChildren(
      group("Refused", "ThriveStack would refuse these, too. The sender keeps them as rejected.", found.refused),
      group("Duplicates", "The same event_id came more than once.", found.duplicates),
      group("Out of order", "A user's timestamp is earlier than that of the event before.", found.out_of_order),
      this.faults(found.faults),
    );
    if (held) document.getElementById(held)?.focus();
  }

  /** Show the faults in force. */
  faulted(faults) {
    if (this.found) this.show({ ...this.found, faults });
  }

  group(title, help, part, filter) {
    const entries = part.entries.filter((entry) => matches(entry, filter));
    const lines = entries.map((entry) => make("li", {}, this.line(entry)));
    const list = lines.length ? make("ul.problems", {}, ...lines) : make("p.nothing", {}, "None.");
    const more = part.count > part.entries.length ? make("p.muted", {}, `The last ${part.entries.length} of ${part.count}.`) : null;
    return make("section.card", {}, make("h2", {}, title, amount(part.count)), make("p.muted", {}, help), list, more);
  }

  line(entry) {
    const shown = button("", () => this.open(entry), { class: "line" });
    shown.append(
      make("time", { datetime: entry.received_at }, localTime(entry.received_at)),
      make("span.who", {}, make("b", {}, nameOf(entry)), ` ${entry.user_id ?? ""}`),
      cause(entry),
    );
    return shown;
  }

  faults(active) {
    const texts = active.map(text);
    const replace = async (wanted) => {
      const answer = await putFaults(wanted).catch(() => ({ faults: active })); // the switches go back
      this.faulted(answer.faults);
    };
    const others = texts.filter((fault) => !OFFERED.some(([offered]) => offered === fault));
    const switches = [...OFFERED, ...others.map((fault) => [fault, "set by a command"])].map(([fault, effect]) => {
      const change = (event) => {
        replace(event.target.checked ? [...texts, fault] : texts.filter((other) => other !== fault));
      };
      const box = make("input", { type: "checkbox", id: `fault-${fault}`, checked: texts.includes(fault), change });
      return make("li", {}, make("label", {}, box, make("code", {}, fault), make("span", {}, effect)));
    });
    return make(
      "section.card",
      {},
      make("h2", {}, "Faults in force", amount(active.length)),
      make("p.muted", {}, "Rehearse an outage: the inspector fails on purpose, and the page still works."),
      make("ul.faults", {}, ...switches),
    );
  }
}

function cause(entry) {
  if (entry.kind === "refused") {
    return make("span.reason", {}, entry.field ? make("code", {}, entry.field) : null, ` ${entry.reason}`);
  }
  return make("code.muted", {}, String((entry.duplicate_of ? entry.event_id : entry.item?.timestamp) ?? ""));
}

/** Return the number of problems, for the navigation. */
export function numberOf(found) {
  return found.refused.count + found.duplicates.count + found.out_of_order.count + found.faults.length;
}

function amount(number) {
  return number ? make("span.badge", { title: count(number, "problem") }, String(number)) : null;
}

/** A fault as its text, such as "503:0.5=poison". */
function text(fault) {
  return fault.kind + (fault.probability === 1 ? "" : `:${fault.probability}`) + (fault.text ? `=${fault.text}` : "");
}
