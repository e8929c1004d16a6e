// Where the tasks of a graph are drawn: layers by longest path, order in a layer by barycentres, and places by least
// squares. After K. Sugiyama, S. Tagawa, M. Toda, "Methods for Visual Understanding of Hierarchical System
// Structures" (1981). Pure: no page is needed.

export const NODE = { width: 192, height: 50 };
const GAP = { layer: 52, node: 14, bend: 8 };
const BUNDLE = 7; // tasks that have the same neighbours, from so many on, stand in one box
const MANY = 100; // from so many tasks on, whole stages do
const BOX = { pad: 12, head: 26, gap: 10 };
const MOST_BENDS = 4000; // beyond them long edges are drawn straight
const MOST_EDGES = 16; // between two stages; beyond them they meet in a point
const SWEEPS = 6;

/**
 * graph: [{task, depends_on}] where depends_on holds names of tasks, and `stage:NAME` for a whole stage.
 * Answers {nodes: Map of task to {x, y}, edges: [{from, to, points}], boxes: [{x, y, width, height, label, tasks}], width,
 * height, joints, isDown}, x and y being a node's upper left corner. `isDown`: layers go downwards, not to the right. `room` is the
 * width that boxes of many tasks should keep to.
 */
export function layOut(graph, { isDown = false, room = 900 } = {}) {
  const vertices = connect(graph);
  bundle(vertices, graph, room);
  const edges = edgesOf(vertices);
  const layers = bend(rank(vertices), vertices, edges);
  order(layers, vertices);
  return place(layers, vertices, edges, isDown);
}

function vertex(kind) {
  return { kind, before: new Set(), after: new Set(), tasks: [], layer: 0, at: 0 };
}

/** Vertices by name, each with those before and after it. */
function connect(graph) {
  const vertices = new Map(graph.map((part) => [part.task, { ...vertex("task"), tasks: [part.task] }]));
  const members = grouped(graph, (part) => part.stage);
  const followers = new Map();
  const join = (from, to) => {
    if (from === to || !vertices.has(from)) return;
    vertices.get(from).after.add(to);
    vertices.get(to).before.add(from);
  };
  for (const part of graph) {
    for (const name of part.depends_on) {
      if (!name.startsWith("stage:")) join(name, part.task);
      else if (followers.has(name)) followers.get(name).push(part.task);
      else followers.set(name, [part.task]);
    }
  }
  for (const [stage, tasks] of followers) {
    const inside = members.get(stage.slice("stage:".length)) ?? [];
    const followed = new Set(inside.flatMap((part) => part.depends_on));
    const last = inside.map((part) => part.task).filter((task) => !followed.has(task));
    if (last.length * tasks.length <= MOST_EDGES) {
      for (const from of last) for (const to of tasks) join(from, to);
      continue;
    }
    vertices.set(stage, vertex("joint"));
    for (const from of last) join(from, stage);
    for (const to of tasks) join(stage, to);
  }
  return vertices;
}

function grouped(list, key) {
  const groups = new Map();
  for (const one of list) {
    const name = key(one);
    if (groups.has(name)) groups.get(name).push(one);
    else groups.set(name, [one]);
  }
  return groups;
}

/**
 * Put tasks into boxes that keep the first one's name: those that have the same neighbours, and in a graph of many tasks
 * those of one stage and layer. Vertices of one layer never follow each other, so that no circle comes of it.
 */
function bundle(vertices, graph, room) {
  const stages = new Map(graph.map((part) => [part.task, part.stage]));
  const isLarge = graph.length > MANY;
  if (isLarge) rank(vertices);
  const tasks = [...vertices].filter(([, { kind }]) => kind === "task");
  const alike = grouped(tasks, ([name, { before, after, layer }]) =>
    isLarge ? `${layer} ${stages.get(name)}` : `${[...before].sort()}|${[...after].sort()}`,
  );
  for (const same of alike.values()) {
    if (same.length < BUNDLE) continue;
    const names = same.map(([name]) => name);
    for (const name of names.slice(1)) merge(vertices, name, names[0]);
    const fits = Math.max(1, Math.floor((room - 2 * BOX.pad) / (NODE.width + BOX.gap)));
    const columns = Math.max(1, Math.min(fits, Math.ceil(Math.sqrt(names.length / 2.4))));
    const label = [...new Set(names.map((name) => stages.get(name)))].filter(Boolean).join(", ");
    Object.assign(vertices.get(names[0]), { kind: "box", tasks: names, label, columns, rows: Math.ceil(names.length / columns) });
  }
}

/** Give a vertex's neighbours to another in its place. */
function merge(vertices, name, head) {
  for (const [side, other] of [["before", "after"], ["after", "before"]]) {
    for (const neighbour of vertices.get(name)[side]) {
      vertices.get(neighbour)[other].delete(name);
      vertices.get(neighbour)[other].add(head);
      vertices.get(head)[side].add(neighbour);
    }
  }
  vertices.delete(name);
}

function edgesOf(vertices) {
  return [...vertices].flatMap(([from, { after }]) => [...after].map((to) => ({ from, to, way: [from, to] })));
}

/** Longest path layering: a vertex stands one layer past the last of those before it. Answers names by layer. */
function rank(vertices) {
  const left = new Map([...vertices].map(([name, { before }]) => [name, before.size]));
  const ready = [...vertices.keys()].filter((name) => left.get(name) === 0);
  const layers = [];
  for (const found of vertices.values()) found.layer = 0;
  for (let next = 0; next < ready.length; next += 1) {
    const { layer, after } = vertices.get(ready[next]);
    (layers[layer] ??= []).push(ready[next]);
    for (const name of after) {
      const other = vertices.get(name);
      other.layer = Math.max(other.layer, layer + 1);
      left.set(name, left.get(name) - 1);
      if (left.get(name) === 0) ready.push(name);
    }
  }
  return layers;
}

/** Give edges over several layers a bend in each, so that they go round what lies between. */
function bend(layers, vertices, edges) {
  let bends = 0;
  for (const edge of edges) {
    const [first, last] = [vertices.get(edge.from), vertices.get(edge.to)];
    const span = last.layer - first.layer - 1;
    if (span <= 0 || bends + span > MOST_BENDS) continue;
    first.after.delete(edge.to);
    last.before.delete(edge.from);
    let previous = edge.from;
    edge.way = [edge.from];
    for (let layer = first.layer + 1; layer < last.layer; layer += 1) {
      const name = `bend:${(bends += 1)}`;
      vertices.set(name, { ...vertex("bend"), layer, before: new Set([previous]) });
      vertices.get(previous).after.add(name);
      layers[layer].push(name);
      edge.way.push(name);
      previous = name;
    }
    vertices.get(previous).after.add(edge.to);
    last.before.add(previous);
    edge.way.push(edge.to);
  }
  return layers;
}

/** Order each layer by the mean place of its neighbours, down and up in turn: the barycentre heuristic. */
function order(layers, vertices) {
  const index = () => layers.forEach((layer) => layer.forEach((name, at) => (vertices.get(name).at = at)));
  index();
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = sweep % 2 ? "after" : "before";
    for (const layer of sweep % 2 ? [...layers].reverse() : layers) {
      const wanted = new Map(layer.map((name) => [name, mean(vertices.get(name)[side], vertices, vertices.get(name).at)]));
      layer.sort((one, other) => wanted.get(one) - wanted.get(other));
      layer.forEach((name, at) => (vertices.get(name).at = at));
    }
  }
}

function mean(names, vertices, otherwise, key = "at") {
  if (!names.size) return otherwise;
  let sum = 0;
  for (const name of names) sum += vertices.get(name)[key];
  return sum / names.size;
}

function size({ kind, columns, rows }) {
  if (kind === "task") return NODE;
  if (kind !== "box") return kind === "joint" ? { width: 8, height: 8 } : { width: 0, height: 0 };
  return {
    width: columns * (NODE.width + BOX.gap) - BOX.gap + 2 * BOX.pad,
    height: rows * (NODE.height + BOX.gap) - BOX.gap + BOX.pad + BOX.head,
  };
}

/** Centres across the layers: each as near as its neighbours' mean as order and distance allow. */
function settle(layer, vertices, breadth, side) {
  const offsets = [];
  let offset = 0;
  layer.forEach((name, at) => {
    const own = breadth(name) / 2;
    if (at) {
      const isBend = vertices.get(name).kind === "bend" || vertices.get(layer[at - 1]).kind === "bend";
      offset += breadth(layer[at - 1]) / 2 + own + (isBend ? GAP.bend : GAP.node);
    }
    offsets.push(offset);
  });
  // Least squares in a fixed order is isotonic regression: neighbours that collide are pooled (pool adjacent violators).
  const pools = [];
  layer.forEach((name, at) => {
    const found = vertices.get(name);
    const wanted = side ? mean(found[side], vertices, found.centre ?? offsets[at], "centre") : offsets[at];
    pools.push({ sum: wanted - offsets[at], count: 1 });
    while (pools.length > 1 && pools.at(-2).sum / pools.at(-2).count >= pools.at(-1).sum / pools.at(-1).count) {
      const { sum, count } = pools.pop();
      pools.at(-1).sum += sum;
      pools.at(-1).count += count;
    }
  });
  let at = 0;
  for (const { sum, count } of pools) {
    for (let left = count; left; left -= 1, at += 1) vertices.get(layer[at]).centre = sum / count + offsets[at];
  }
}

function place(layers, vertices, edges, isDown) {
  const breadth = (name) => size(vertices.get(name))[isDown ? "width" : "height"];
  const depth = (name) => size(vertices.get(name))[isDown ? "height" : "width"];
  for (const layer of layers) settle(layer, vertices, breadth, null);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = sweep % 2 ? "after" : "before";
    for (const layer of sweep % 2 ? [...layers].reverse() : layers) settle(layer, vertices, breadth, side);
  }
  let least = Infinity;
  let most = 0;
  for (const [name, { centre }] of vertices) least = Math.min(least, centre - breadth(name) / 2);
  let along = 0;
  for (const layer of layers) {
    const deepest = Math.max(...layer.map(depth));
    for (const name of layer) {
      const found = vertices.get(name);
      found.centre -= least;
      most = Math.max(most, found.centre + breadth(name) / 2);
      found.start = along + (deepest - depth(name)) / 2;
      found.end = found.start + depth(name);
      if (found.kind === "bend") Object.assign(found, { start: along, end: along + deepest });
    }
    along += deepest + GAP.layer;
  }
  const point = (a, b) => (isDown ? { x: b, y: a } : { x: a, y: b });
  const nodes = new Map();
  const boxes = [];
  for (const [name, found] of vertices) {
    const corner = point(found.start, found.centre - breadth(name) / 2);
    if (found.kind === "task") nodes.set(name, corner);
    if (found.kind !== "box") continue;
    boxes.push({ ...corner, ...size(found), label: found.label, tasks: found.tasks });
    found.tasks.forEach((task, at) =>
      nodes.set(task, {
        x: corner.x + BOX.pad + (at % found.columns) * (NODE.width + BOX.gap),
        y: corner.y + BOX.head + Math.floor(at / found.columns) * (NODE.height + BOX.gap),
      }),
    );
  }
  const drawn = edges.map(({ from, to, way }) => ({
    from: vertices.get(from).tasks,
    to: vertices.get(to).tasks,
    points: way.flatMap((name, at) => {
      const { start, end, centre, kind } = vertices.get(name);
      if (at === 0) return [point(end, centre)];
      return kind === "bend" ? [point(start, centre), point(end, centre)] : [point(start, centre)];
    }),
  }));
  const joints = [...vertices.values()].filter(({ kind }) => kind === "joint").map(({ start, end, centre }) => point((start + end) / 2, centre));
  const whole = point(Math.max(0, along - GAP.layer), most);
  return { nodes, edges: drawn, boxes, joints, width: whole.x, height: whole.y, isDown };
}
