// A form made from a JSON Schema, and the same value as JSON text: whoever fills it in chooses.

import { button, field, h, replace } from "./elements.js";
import { parseJson, written } from "./json_text.js";

const typeOf = ({ type }) => (Array.isArray(type) ? type.find((one) => one !== "null") : type);

const DEFS = "#/$defs/";
const MOST_STEPS = 10; // a schema may refer to itself

/** A property's schema with what it refers to; one that allows null too as the other: what is left out is null. */
function whole(schema, defs = {}, steps = MOST_STEPS) {
  if (typeof schema !== "object" || schema === null) return {}; // true and false are schemas too
  const { $ref, anyOf, ...own } = schema;
  const others = Array.isArray(anyOf) ? anyOf.filter((one) => one.type !== "null") : [];
  const base = typeof $ref === "string" && $ref.startsWith(DEFS) ? defs[$ref.slice(DEFS.length)] : null;
  const more = base ?? (others.length === 1 ? others[0] : null);
  return more && steps ? whole({ ...more, ...own }, defs, steps - 1) : schema;
}

/** One property's control: [element, () => value or undefined where it is left out]. */
function control(name, schema, value, isRequired) {
  const kind = typeOf(schema);
  const given = value !== undefined ? value : schema.default;
  if (Array.isArray(schema.enum)) {
    const options = [
      ...(isRequired ? [] : [h("option", { value: "" }, "–")]),
      ...schema.enum.map((one, place) => h("option", { value: String(place), selected: one === given }, String(one))),
    ];
    const element = h("select", {}, options);
    return [element, () => (element.value === "" ? undefined : schema.enum[Number(element.value)])];
  }
  if (kind === "boolean") {
    const element = h(
      "select",
      {},
      [...(isRequired ? [] : [["", "–"]]), ["true", "true"], ["false", "false"]].map(([key, label]) =>
        h("option", { value: key, selected: String(given ?? "") === key }, label),
      ),
    );
    return [element, () => (element.value === "" ? undefined : element.value === "true")];
  }
  if (kind === "integer" || kind === "number") {
    const element = h("input", {
      type: "number",
      step: kind === "integer" ? "1" : "any",
      min: schema.minimum,
      max: schema.maximum,
      value: given ?? "",
    });
    return [element, () => (element.value === "" ? undefined : Number(element.value))];
  }
  if (kind === "string") {
    const isLong = (schema.maxLength ?? 0) > 200 || String(given ?? "").includes("\n");
    const placeholder = schema.format === "date-time" ? "2030-01-31T18:00:00Z" : schema.examples?.[0];
    const element = isLong
      ? h("textarea", { rows: 4, value: given ?? "" })
      : h("input", { type: "text", value: given ?? "", maxlength: schema.maxLength, placeholder });
    return [element, () => (element.value === "" && given !== "" ? undefined : element.value)];
  }
  if (kind === "array" && schema.items && typeOf(schema.items) === "string") {
    const element = h("textarea", {
      rows: 2,
      spellcheck: "false",
      placeholder: schema.items.enum ? `One a line: ${schema.items.enum.join(", ")}` : "One a line",
      value: (given ?? []).join("\n"),
    });
    const lines = () =>
      element.value
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean);
    return [element, () => (lines().length || isRequired ? lines() : undefined)];
  }
  const text = given === undefined ? "" : written(given);
  const element = h("textarea", {
    rows: Math.min(8, Math.max(2, text.split("\n").length)),
    class: "code-input",
    spellcheck: "false",
    value: text,
  });
  return [element, () => (element.value.trim() === "" ? undefined : parseJson(element.value, name))];
}

/**
 * Fields for an object of that schema; `value()` is what was filled in, and raises ApiError where that is no JSON.
 * What the schema says is checked by the server.
 */
export function schemaForm(schema, initial = {}) {
  const properties = Object.entries(schema?.properties ?? {}).map(([name, one]) => [name, whole(one, schema.$defs)]);
  const element = h("div", { class: "schema-form" });
  let read = () => ({});

  function asFields(value) {
    const required = new Set(schema.required ?? []);
    const controls = properties.map(([name, one]) => [
      name,
      one,
      ...control(name, one, value[name], required.has(name)),
    ]);
    const others = Object.fromEntries(Object.entries(value).filter(([name]) => !(name in schema.properties)));
    read = () => ({
      ...others,
      ...Object.fromEntries(controls.map(([name, , , get]) => [name, get()]).filter(([, one]) => one !== undefined)),
    });
    replace(
      element,
      controls.map(([name, one, input]) =>
        field(`${one.title ?? name}${required.has(name) ? " *" : ""}`, input, one.description),
      ),
      button("Write it as JSON", () => swap(asText), { kind: "link" }),
    );
  }

  function asText(value) {
    const input = h("textarea", { rows: 8, class: "code-input", spellcheck: "false", value: written(value) });
    read = () => (input.value.trim() === "" ? {} : parseJson(input.value, "inputs"));
    replace(
      element,
      field("Inputs (JSON)", input),
      properties.length ? button("Fill in fields", () => swap(asFields), { kind: "link" }) : null,
    );
  }

  function swap(form) {
    let value;
    try {
      value = read();
    } catch {
      return; // text that is no JSON stays in the field
    }
    form(value);
    element.querySelector("input, select, textarea")?.focus();
  }

  (properties.length ? asFields : asText)(initial ?? {});
  return { element, value: () => read() };
}
