// The page before the first event: how to send one, and which processes have reported without sending.

import { button, byId, make } from "./dom.js";
import { copyText } from "./detail.js";
import { diagnosis } from "./processes.js";

const silent = make("section", {});

/** Show the way to the first event. `reports`: reports of the processes that have delivered nothing. */
export function showEmpty(reports) {
  const place = byId("empty");
  const title = make("h3", {}, "Processes that have reported, and delivered nothing");
  silent.replaceChildren(...(reports.length ? [title, make("ul.silent", {}, ...reports.map(diagnosis))] : []));
  if (!place.hidden) return; // a new report leaves the commands, and the keyboard, as they are
  place.hidden = false;
  document.body.classList.add("is-empty");
  place.replaceChildren(
    make("h2", {}, "Waiting for the first event"),
    make("p.muted", {}, "This page shows each event the moment it arrives, and turns into the stream by itself."),
    silent,
    make("h3", {}, "In the terminal of your application"),
    command(exports()),
    make("h3", {}, "Or send a test event"),
    command(testEvent()),
    make("p.muted", {}, "The key may be any text here. A running process keeps the variables of its start."),
  );
}

/** Show the stream instead. */
export function hideEmpty() {
  byId("empty").hidden = true;
  document.body.classList.remove("is-empty");
}

function exports() {
  return `export THRIVESTACK_ENDPOINT=${location.origin}/api\nexport THRIVESTACK_API_KEY=test`;
}

function testEvent() {
  const item = {
    event_name: "feature_used",
    user_id: "user_123",
    timestamp: new Date().toISOString().replace("Z", "000Z"),
    properties: { feature_name: "analytics_dashboard" },
    context: { group_id: "account_456", source: "product" },
  };
  const headers = "-H 'Content-Type: application/json' -H 'x-api-key: test'";
  return `curl ${location.origin}/api/track \\\n  ${headers} \\\n  -d '${JSON.stringify([item])}'`;
}

function command(text) {
  const copy = button("Copy", () => copyText(text, copy), { class: "quiet" });
  return make("div.command", {}, make("pre", { tabindex: 0 }, text), copy);
}
