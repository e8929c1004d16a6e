// Values as people read them. Times come as ISO 8601 in UTC, durations as seconds.

const LABELS = {
  scheduled: "Queued",
  running: "Running",
  waiting: "Waiting",
  pausing: "Pausing",
  paused: "Paused",
  cancelling: "Cancelling",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  pending: "Pending",
  retrying: "Retrying",
  skipped: "Skipped",
  idle: "Never ran",
};

/** Marks that tell states apart without colour. */
const MARKS = {
  scheduled: "○",
  running: "◐",
  waiting: "◔",
  pausing: "Ⅱ",
  paused: "Ⅱ",
  cancelling: "⊘",
  completed: "✓",
  failed: "✕",
  cancelled: "⊘",
  pending: "○",
  retrying: "↻",
  skipped: "⤼",
  idle: "·",
};

const ENDED = new Set(["completed", "failed", "cancelled"]);
const STILL = new Set(["completed", "failed", "cancelled", "skipped", "idle", "pending"]);

/** A state of a run, task or flow as a word. */
export function stateLabel(state) {
  return LABELS[state] ?? String(state ?? "");
}

/** A state as one character. */
export function stateMark(state) {
  return MARKS[state] ?? "•";
}

/** Whether a run's state is final. */
export function isEnded(state) {
  return ENDED.has(state);
}

/** Whether a run or task in this state is under way. */
export function isActive(state) {
  return !STILL.has(state);
}

/** Seconds as a short duration: 340 ms, 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "";
  const value = Math.max(0, seconds);
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return pair(whole, 60, "min", "s");
  if (whole < 86400) return pair(Math.floor(whole / 60), 60, "h", "min");
  return pair(Math.floor(whole / 3600), 24, "d", "h");
}

function pair(value, base, large, small) {
  const rest = value % base;
  return rest ? `${Math.floor(value / base)} ${large} ${rest} ${small}` : `${Math.floor(value / base)} ${large}`;
}

/** A time as milliseconds since 1970; null where there is none. */
export function instant(iso) {
  const at = iso ? Date.parse(iso) : NaN;
  return Number.isNaN(at) ? null : at;
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" });

/** The time of day, in the reader's zone; with the day where that is not today. */
export function clockTime(iso, now = Date.now()) {
  const at = instant(iso);
  if (at === null) return "";
  const text = TIME.format(at);
  return new Date(at).toDateString() === new Date(now).toDateString() ? text : `${DAY.format(at)}, ${text}`;
}

/** A time in full, with its zone. */
export function fullTime(iso) {
  const at = instant(iso);
  return at === null ? "" : FULL.format(at);
}

/** How long ago, or in how long: 5 s ago, in 3 min. */
export function relativeTime(iso, now = Date.now()) {
  const at = instant(iso);
  if (at === null) return "";
  const seconds = (now - at) / 1000;
  const size = Math.abs(seconds);
  if (size < 1) return "now";
  const rounded = size < 60 ? `${Math.floor(size)} s` : size < 3600 ? `${Math.floor(size / 60)} min`
    : size < 86400 ? `${Math.floor(size / 3600)} h` : `${Math.floor(size / 86400)} d`;
  return seconds >= 0 ? `${rounded} ago` : `in ${rounded}`;
}

/** A number of bytes: 812 B, 14 KiB, 3.2 MiB. */
export function bytes(count) {
  if (count === null || count === undefined) return "";
  if (count < 1024) return `${count} B`;
  if (count < 1024 * 1024) return `${Math.round(count / 1024)} KiB`;
  return `${(count / 1024 / 1024).toFixed(1)} MiB`;
}

/** A number with separators. */
export function number(count) {
  return count === null || count === undefined ? "" : count.toLocaleString();
}

/** One thing, several things: plural(2, "task") is "2 tasks". */
export function plural(count, noun, nouns = `${noun}s`) {
  return `${number(count)} ${count === 1 ? noun : nouns}`;
}

// What is not seen, or changes how the text around it is read. Joiners stay: words and emoji are written with them.
const UNSEEN = /[\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/g;

/** JSON text that says the same, with characters that are not seen written as escapes. */
export function legible(json) {
  return json.replace(UNSEEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A JSON value as indented text. */
export function pretty(value) {
  return typeof value === "string" ? value : legible(JSON.stringify(value, null, 2) ?? "");
}
