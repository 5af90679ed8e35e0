// Features by accounts: how often, when last, and the last 30 minutes as a small drawing.

import { get } from "./api.js";
import { button, draw, make } from "./dom.js";
import { current, isFiltered, setFilter, suggest } from "./filters.js";
import { bothTimes, count, figure, shortTime } from "./format.js";

/** Rows and columns of the first view; more are shown on demand. */
const FEATURES = 40;
const ACCOUNTS = 12;
const WIDTH = 60;
const HEIGHT = 16;

/** The view of features by accounts. */
export class Matrix {
  /** @param {HTMLElement} section - The view's place. */
  constructor(section) {
    this.section = section;
    this.features = FEATURES;
    this.accounts = ACCOUNTS;
  }

  /** Read the figures and show them. */
  async refresh() {
    const { kind, request, ...query } = current();
    const matrix = await get("/matrix", query);
    suggest(matrix.features, matrix.accounts.filter(Boolean));
    this.show(narrowed(matrix, query));
  }

  show(matrix) {
    if (!matrix.cells.length) {
      const text = isFiltered() ? "No feature and account match the filter." : "No feature has been used.";
      this.section.replaceChildren(make("p.nothing", {}, text));
      return;
    }
    const scrolled = this.section.querySelector(".matrix")?.scrollLeft ?? 0;
    const accounts = matrix.accounts.slice(0, this.accounts);
    const features = matrix.features.slice(0, this.features);
    const cells = new Map(matrix.cells.map((cell) => [key(cell.feature, cell.account), cell]));
    const table = make(
      "table",
      {},
      make("caption.for-readers", {}, "Features by accounts, the busiest first"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Feature"), ...accounts.map(heading))),
      make("tbody", {}, ...features.map((feature) => line(feature, accounts, cells))),
    );
    const frame = make("div.matrix", { tabindex: 0, role: "region", "aria-label": "Features by accounts" }, table);
    this.section.replaceChildren(frame, this.more(matrix));
    frame.scrollLeft = scrolled;
  }

  more(matrix) {
    const hidden = (all, shown) => Math.max(0, all.length - shown);
    const features = hidden(matrix.features, this.features);
    const accounts = hidden(matrix.accounts, this.accounts);
    const grow = (name, step) => () => {
      this[name] += step;
      this.show(matrix);
    };
    const parts = [make("p.muted", {}, "Bars: events of each of the last 30 minutes. A click shows the events of a cell.")];
    if (features) parts.push(button(`${count(features, "more feature")}`, grow("features", FEATURES)));
    if (accounts) parts.push(button(`${count(accounts, "more account")}`, grow("accounts", ACCOUNTS)));
    return make("footer.more", {}, ...parts);
  }
}

/** Leave out features and accounts that do not pass the filter. */
function narrowed(matrix, { feature = "", account = "" }) {
  const has = (name, wanted) => (name ?? "").toLowerCase().includes(wanted.toLowerCase());
  const cells = matrix.cells.filter((cell) => has(cell.feature, feature) && has(cell.account, account));
  const features = new Set(cells.map((cell) => cell.feature));
  const accounts = new Set(cells.map((cell) => cell.account));
  return {
    cells,
    features: matrix.features.filter((name) => features.has(name)),
    accounts: matrix.accounts.filter((name) => accounts.has(name)),
  };
}

function key(feature, account) {
  return JSON.stringify([feature, account]);
}

function heading(account) {
  return make("th", { scope: "col", title: account ?? "" }, account || "no account");
}

function line(feature, accounts, cells) {
  const columns = accounts.map((account) => {
    const cell = cells.get(key(feature, account));
    return cell ? make("td", {}, figures(cell)) : make("td.none", {}, make("span", { "aria-label": "never used" }, "·"));
  });
  return make("tr", {}, make("th", { scope: "row", title: feature }, feature), ...columns);
}

function figures(cell) {
  const open = () => {
    location.hash = "#stream";
    setFilter({ feature: cell.feature, account: cell.account });
  };
  const total = make("strong", {}, figure(cell.count));
  const last = make("time", { datetime: cell.last_at, title: bothTimes(cell.last_at) }, shortTime(cell.last_at));
  // No filter stands for "no account".
  const name = `${cell.feature}, ${cell.account}: ${count(cell.count, "event")}, the last at ${shortTime(cell.last_at)}`;
  const shown = cell.account ? button("", open, { class: "cell", "aria-label": name }) : make("div.cell");
  shown.append(total, sparkline(cell.per_minute ?? []), last);
  return shown;
}

function sparkline(minutes) {
  const most = Math.max(1, ...minutes);
  const step = WIDTH / Math.max(1, minutes.length);
  const bars = minutes.map((events, index) => {
    const height = events ? Math.max(2, (HEIGHT * events) / most) : 1;
    return draw("rect", {
      x: (index * step).toFixed(2),
      y: (HEIGHT - height).toFixed(2),
      width: (step * 0.7).toFixed(2),
      height: height.toFixed(2),
      class: events ? "some" : "zero",
    });
  });
  return draw("svg", { class: "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" }, ...bars);
}
