// Flows to begin with. Each can run as it stands.

/** Definitions by name. */
export const EXAMPLES = {
  "Three steps": {
    name: "Three steps",
    description: "Numbers are filtered, summed up and told.",
    inputs: {
      type: "object",
      properties: { numbers: { type: "array", items: { type: "number" }, default: [3, 8, 13] } },
      required: ["numbers"],
    },
    stages: [
      {
        name: "work",
        tasks: [
          {
            name: "large",
            required_tools: ["data_processor"],
            parameters: { data: "{{ inputs.numbers }}", query: "[?@ > `5`]" },
          },
          {
            name: "total",
            required_tools: ["data_processor"],
            parameters: { data: "{{ tasks.large.output }}", query: "sum(@)" },
          },
        ],
      },
      {
        name: "tell",
        tasks: [
          {
            name: "report",
            required_tools: ["data_processor"],
            parameters: { data: { text: "The sum is {{ tasks.total.output }}" }, query: "text" },
          },
        ],
      },
    ],
  },
  "Side by side": {
    name: "Side by side",
    stages: [
      {
        name: "fan_out",
        execution_mode: "parallel",
        tasks: ["north", "east", "south"].map((name, place) => ({
          name,
          type: "wait",
          parameters: { seconds: 2 + place },
        })),
      },
      {
        name: "join",
        tasks: [
          {
            name: "done",
            required_tools: ["data_processor"],
            parameters: { data: ["north", "east", "south"], query: "length(@)" },
          },
        ],
      },
    ],
  },
  "For each item": {
    name: "For each item",
    inputs: {
      type: "object",
      properties: { words: { type: "array", items: { type: "string" }, default: ["calm", "dense", "clear"] } },
    },
    stages: [
      {
        name: "items",
        tasks: [
          {
            name: "measure",
            for_each: "{{ inputs.words }}",
            max_parallel: 2,
            required_tools: ["data_processor"],
            parameters: { data: "{{ item }}", query: "length(@)" },
          },
        ],
      },
    ],
  },
};
