// JSON as people write it: parsed with errors that they can read, written densely, coloured, and searched by pointer.

import { ApiError } from "../api.js";
import { h } from "../run/dom.js";
import { legible } from "../run/format.js";

const WIDTH = 84;

/** `text` as JSON; raises ApiError that says where it is wrong. */
export function parseJson(text, what) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ApiError(0, { code: "invalid_json", message: `${what} is not JSON: ${error.message}` });
  }
}

/** A value as text: what fits on a line is on one. */
export function written(value) {
  return legible(laidOut(value));
}

function laidOut(value, indent = "", used = 0) {
  const line = onOneLine(value);
  if (value === null || typeof value !== "object" || indent.length + used + line.length <= WIDTH) return line;
  const inner = `${indent}  `;
  const [opening, closing] = Array.isArray(value) ? "[]" : "{}";
  const lines = Array.isArray(value)
    ? value.map((one) => `${inner}${laidOut(one, inner, 1)}`)
    : Object.entries(value).map(
        ([key, one]) => `${inner}${JSON.stringify(key)}: ${laidOut(one, inner, key.length + 5)}`,
      );
  return `${opening}\n${lines.join(",\n")}\n${indent}${closing}`;
}

function onOneLine(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(onOneLine).join(", ")}]`;
  const pairs = Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${onOneLine(one)}`);
  return pairs.length ? `{ ${pairs.join(", ")} }` : "{}";
}

const LEXEME = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*)|\b(true|false|null)\b/g;
const MOST_COLOURED = 100_000;

/** Fill an element with the text, its words in colours; what is too long stays plain. */
export function colour(element, text) {
  element.replaceChildren();
  let at = 0;
  if (text.length <= MOST_COLOURED) {
    for (const match of text.matchAll(LEXEME)) {
      const [whole, string, colon, digits] = match;
      const kind =
        string === undefined ? (digits === undefined ? "word" : "number") : colon === undefined ? "string" : "key";
      const told = string ?? whole;
      element.append(text.slice(at, match.index), h("span", { class: `json-${kind}` }, told));
      at = match.index + told.length;
    }
  }
  element.append(text.slice(at), "\n");
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s{}[\]:,"]+/gs;

/** An RFC 6901 pointer's parts. */
const parts = (pointer) =>
  pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));

/** The [start, end] of the value at that pointer in a JSON text; of the nearest one above it where there is none. */
export function locate(text, pointer) {
  const tokens = [...text.matchAll(TOKEN)];
  const path = parts(pointer);
  let next = 0;
  let best = [0, 0];

  function value(depth, isOnPath) {
    const start = tokens[next]?.index ?? text.length;
    const opening = tokens[next]?.[0];
    next += 1;
    const close = { "{": "}", "[": "]" }[opening];
    if (close) {
      for (let index = 0; next < tokens.length && tokens[next][0] !== close; index += 1) {
        let key = String(index);
        if (opening === "{") {
          try {
            key = JSON.parse(tokens[next][0]);
          } catch {
            key = null;
          }
          next += 2;
        }
        value(depth + 1, isOnPath && depth < path.length && key === path[depth]);
        if (tokens[next]?.[0] === ",") next += 1;
      }
      next += 1;
    }
    const last = tokens[Math.min(next, tokens.length) - 1];
    const end = last ? last.index + last[0].length : text.length;
    if (isOnPath && (depth > best[2] || best[2] === undefined)) best = [start, end, depth];
  }

  value(0, true);
  return best.slice(0, 2);
}
