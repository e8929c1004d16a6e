// Charts drawn as SVG. Each has its numbers beside it as a table that screen readers, and whoever opens it, can read.

import { h } from "./elements.js";
import { table } from "./tables.js";

const WIDTH = 560;
const HEIGHT = 190;
const PAD = { top: 10, right: 8, bottom: 24, left: 46 };
const INNER = { width: WIDTH - PAD.left - PAD.right, height: HEIGHT - PAD.top - PAD.bottom };

/** The axis' steps: at most four, of 1, 2 or 5 times a power of ten. */
function steps(most) {
  if (!(most > 0)) return [0, 1];
  const raw = most / 3;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw);
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, index) => index * step);
}

function frame(label, most, keys, format, content) {
  const ticks = steps(most);
  const top = ticks.at(-1);
  const y = (value) => PAD.top + INNER.height * (1 - value / top);
  const every = Math.max(1, Math.ceil(keys.length / 7));
  const slot = INNER.width / Math.max(1, keys.length);
  const x = (index) => PAD.left + slot * (index + 0.5);
  return h(
    "svg",
    { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    ticks.map((tick) => [
      h("line", { class: "grid-line", x1: PAD.left, x2: WIDTH - PAD.right, y1: y(tick), y2: y(tick) }),
      h("text", { x: PAD.left - 8, y: y(tick) + 4, "text-anchor": "end" }, format(tick)),
    ]),
    keys.map((key, index) =>
      index % every ? null : h("text", { x: x(index), y: HEIGHT - 6, "text-anchor": "middle" }, key),
    ),
    content({ x, y, slot }),
  );
}

const legend = (series) =>
  h(
    "ul",
    { class: "legend" },
    series.map(({ name, ink }) => h("li", { class: ink }, h("span", { class: "swatch", "aria-hidden": "true" }), name)),
  );

function withNumbers(title, keys, series, format, drawing) {
  const rows = keys.map((key, index) => [key, ...series.map(({ values }) => values[index])]);
  return h(
    "figure",
    { class: "chart-frame" },
    series.length > 1 ? legend(series) : null,
    drawing,
    h(
      "details",
      { class: "more" },
      h("summary", {}, "Numbers"),
      table(
        title,
        [
          ["Day", "", ([key]) => key],
          ...series.map(({ name }, index) => [
            name,
            "numeric",
            (row) => (row[index + 1] === null || row[index + 1] === undefined ? "–" : format(row[index + 1])),
          ]),
        ],
        rows,
      ),
    ),
  );
}

/** Lines over `keys`. `series` are {name, ink, values}; a null value leaves a gap. */
export function lineChart(title, keys, series, format) {
  const most = Math.max(0, ...series.flatMap(({ values }) => values.filter((value) => value !== null)));
  const drawing = frame(title, most, keys, format, ({ x, y }) =>
    series.map(({ name, ink, values, isDashed }, place) => {
      let pen = "M";
      const path = values
        .map((value, index) => {
          if (value === null || value === undefined) {
            pen = "M";
            return "";
          }
          const step = `${pen}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
          pen = "L";
          return step;
        })
        .join("");
      const points = values.filter((value) => value !== null && value !== undefined).length;
      return h(
        "g",
        { class: ink },
        h("path", { class: `line${isDashed ? " dashed" : ""}`, d: path }),
        values.map((value, index) =>
          value === null || value === undefined
            ? null
            : [
                h(
                  "circle",
                  { class: "point", cx: x(index), cy: y(value), r: 3 },
                  h("title:svg", {}, `${keys[index]}: ${name} ${format(value)}`),
                ),
                points === 1 ? lone(x(index), y(value), `${name} ${format(value)}`, place) : null,
              ],
        ),
      );
    }),
  );
  return withNumbers(title, keys, series, format, drawing);
}

/** The words of a point that no line leads to: those of the first series beside it, the others' above it. */
function lone(x, y, text, place) {
  const side = x > WIDTH / 3 ? -1 : 1; // where there is room
  const [away, up] = place === 0 ? [8, -4] : [-8, 9];
  return h("text", { x: x + side * away, y: y - up, "text-anchor": side < 0 ? "end" : "start" }, text);
}

/** Columns over `keys`, the series on top of each other. */
export function columnChart(title, keys, series, format) {
  const totals = keys.map((_, index) => series.reduce((sum, { values }) => sum + (values[index] ?? 0), 0));
  const drawing = frame(title, Math.max(0, ...totals), keys, format, ({ x, y, slot }) =>
    keys.map((key, index) => {
      let base = 0;
      const width = Math.min(34, slot * 0.64);
      return series.map(({ name, ink, values }) => {
        const value = values[index] ?? 0;
        if (!value) return null;
        const rect = h(
          "rect",
          {
            class: `column ${ink}`,
            x: x(index) - width / 2,
            width,
            y: y(base + value),
            height: Math.max(1, y(base) - y(base + value)),
            rx: 2,
          },
          h("title:svg", {}, `${key}: ${format(value)} ${name}`),
        );
        base += value;
        return rect;
      });
    }),
  );
  return withNumbers(title, keys, series, format, drawing);
}

/** Names with a bar each; `items` are [name, value]. */
export function rankChart(items, format, ink = "ink-1") {
  const most = Math.max(...items.map(([, value]) => value), 0);
  return h(
    "ul",
    { class: `hbars ${ink}` },
    items.map(([name, value]) => {
      const fill = h("span", { class: "fill" });
      fill.style.setProperty("inline-size", `${most ? (100 * value) / most : 0}%`);
      return h(
        "li",
        {},
        h("span", { class: "of", title: name }, name),
        h("span", { class: "bar", "aria-hidden": "true" }, fill),
        h("span", {}, format(value)),
      );
    }),
  );
}
