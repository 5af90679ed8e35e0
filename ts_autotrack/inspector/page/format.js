// Times and figures as text, in the reader's language and zone.

/** The reader's zone, such as "Europe/Berlin", and its short name at present, such as "GMT+1" or "EST". */
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
export const SHORT_ZONE = zoneOf(new Date());

const LOCAL_DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const LOCAL = clock(undefined);
const UTC = clock("UTC");
const FIGURE = new Intl.NumberFormat();

/** Return the time of day in the reader's zone, and the day before it unless the day is today's. */
export function localTime(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text ?? "";
  const today = date.toDateString() === new Date().toDateString();
  return today ? LOCAL.format(date) : `${LOCAL_DAY.format(date)} ${LOCAL.format(date)}`;
}

/** Return the time of day in UTC. */
export function utcTime(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? (text ?? "") : UTC.format(date);
}

/** Return both in two lines, for the detail of one item. */
export function bothTimes(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text ?? "";
  const utc = `${date.toISOString().replace("T", " ").replace("Z", "")} UTC`;
  return ZONE === "UTC" ? utc : `${localTime(text)} ${zoneOf(date)}\n${utc}`;
}

/** Return the local time without milliseconds. */
export function shortTime(text) {
  return localTime(text).split(".")[0];
}

/** Return a number with separators of thousands. */
export function figure(number) {
  return FIGURE.format(number);
}

/** Return "1 event", "2 events". */
export function count(number, noun) {
  return `${figure(number)} ${noun}${number === 1 ? "" : "s"}`;
}

function zoneOf(date) {
  const parts = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" }).formatToParts(date);
  return parts.find((part) => part.type === "timeZoneName").value;
}

function clock(timeZone) {
  const digits = { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 };
  return new Intl.DateTimeFormat("en-GB", { ...digits, hourCycle: "h23", timeZone });
}
