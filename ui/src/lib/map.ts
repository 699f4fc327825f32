// What the map shows: places, and the connections between them.
import { Graph, layout } from "@dagrejs/dagre";
import { OUTSIDE, bandsOf } from "./grid";
import type { Change, Marks } from "./marks";
import type { Level, Model } from "./model";

// A folded namespace, a workload, or something outside.
export interface Place {
  key: string;
  name: string;
  ends: number[];
  // The namespace that can be folded or unfolded here.
  folds: string | undefined;
  // The end that can be looked at alone.
  end: number | undefined;
  isOutside: boolean;
}

export interface Edge {
  from: Place;
  to: Place;
  // Allowed pairs in each direction.
  pairs: [number, number];
  level: Level;
  // The ports, where all pairs have the same.
  text: string;
  // What a tried policy opens and closes here.
  change: Change;
}

export interface Box {
  place: Place;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Line {
  edge: Edge;
  points: { x: number; y: number }[];
}

export interface Drawing {
  boxes: Box[];
  lines: Line[];
  left: number;
  top: number;
  width: number;
  height: number;
  // How many connections there are between the places, if these are too many to draw.
  hidden: number;
}

// The most edges of a picture that can be read.
const MOST_EDGES = 120;
// The most workloads that a focus shows one by one; more are folded.
const MOST_NEIGHBORS = 30;
// The width of a character, and the height of a box, in pixels.
const [CHARACTER, HEIGHT, MARGIN] = [7.3, 34, 24];
// The longest name that is shown in full.
const LONGEST = 34;

export const shortened = (name: string): string => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name);

const outside = (model: Model, ends: number[]): Place[] => {
  const groups = new Map<string, number[]>();
  for (const number of ends) {
    const end = model.end(number);
    const name = end.internet ? "the internet" : end.kind === "external" ? "other addresses" : end.kind === "ingress-controller" ? "ingress controller" : "nodes";
    groups.set(name, [...(groups.get(name) ?? []), number]);
  }
  return [...groups].map(([name, numbers]) => ({ key: `outside ${name}`, name, ends: numbers, folds: undefined, end: undefined, isOutside: true }));
};

const single = (model: Model, number: number): Place => {
  const end = model.end(number);
  return { key: `end ${end.id}`, name: end.id, ends: [number], folds: undefined, end: number, isOutside: end.kind === "external" };
};

// Divides all ends into places.
const placesOf = (model: Model, open: ReadonlySet<string>, focus: number | undefined): Place[] =>
  bandsOf(model).flatMap((band) => {
    const rest = band.ends.filter((number) => number !== focus);
    const own = rest.length < band.ends.length && focus !== undefined ? [single(model, focus)] : [];
    if (rest.length === 0) return own;
    if (band.name === OUTSIDE) return [...own, ...outside(model, rest)];
    if (open.has(band.name) || band.name === "namespaces") return [...own, ...rest.map((number) => single(model, number))];
    return [...own, { key: `band ${band.name}`, name: `${band.name} (${rest.length})`, ends: rest, folds: band.name, end: undefined, isOutside: false }];
  });

const edgeOf = (model: Model, a: Place, b: Place, marks: Marks): Edge | undefined => {
  let level: Level = 0;
  const texts = new Set<string>();
  const count = (from: Place, to: Place): number => {
    let pairs = 0;
    for (const source of from.ends) {
      for (const target of to.ends) {
        const link = model.firstAllowed(source, target);
        if (!link) continue;
        pairs += 1;
        level = Math.max(level, model.level(source, target)) as Level;
        texts.add(model.report.traffics[link.traffic]?.text ?? "");
      }
    }
    return pairs;
  };
  const pairs: [number, number] = [count(a, b), count(b, a)];
  const [there, back] = [marks.between(a.ends, b.ends), marks.between(b.ends, a.ends)];
  const change = { opens: there.opens + back.opens, closes: there.closes + back.closes };
  if (pairs[0] + pairs[1] + change.opens === 0) return undefined;
  const [text] = texts;
  // Nothing is allowed yet: the arrow goes from the side that may connect then.
  if (pairs[0] + pairs[1] === 0) return { from: there.opens > 0 ? a : b, to: there.opens > 0 ? b : a, pairs, level: 1, text: "denied", change };
  return { from: a, to: b, pairs, level, text: texts.size === 1 && text !== undefined ? text : "", change };
};

const edgesOf = (model: Model, places: Place[], focus: Place | undefined, marks: Marks): Edge[] => {
  const edges: Edge[] = [];
  places.forEach((a, at) => {
    for (const b of places.slice(at + 1)) {
      if (focus && a !== focus && b !== focus) continue;
      // Connections of outside addresses among themselves are none of the cluster's.
      if (a.isOutside && b.isOutside) continue;
      const edge = edgeOf(model, a, b, marks);
      // Arrows go from the side that may connect.
      if (edge) edges.push(edge.pairs[0] > 0 || edge.pairs[1] === 0 ? edge : { ...edge, from: b, to: a, pairs: [edge.pairs[1], edge.pairs[0]] });
    }
  });
  return edges;
};

// Returns the places and edges of a view. A focus shows its neighbors one by one if they are few.
export const viewOf = (model: Model, open: ReadonlySet<string>, focus: number | undefined, marks: Marks): { places: Place[]; edges: Edge[] } => {
  let places = placesOf(model, open, focus);
  if (focus === undefined) return { places, edges: edgesOf(model, places, undefined, marks) };
  const neighbors = model.report.ends.filter((end, number) => end.namespace !== null && (model.firstAllowed(focus, number) ?? model.firstAllowed(number, focus) ?? (marks.between([focus], [number]).opens || marks.between([number], [focus]).opens)));
  if (neighbors.length <= MOST_NEIGHBORS) places = placesOf(model, new Set(neighbors.map((end) => end.namespace ?? "")), focus);
  const own = places.find((place) => place.end === focus);
  const edges = edgesOf(model, places, own, marks);
  return { places: places.filter((place) => place === own || edges.some((edge) => edge.from === place || edge.to === place)), edges };
};

const sizeOf = (place: Place): { width: number; height: number } => ({ width: Math.ceil(shortened(place.name).length * CHARACTER) + MARGIN, height: HEIGHT });

// Places in rows, without edges.
const rowsOf = (places: Place[], hidden: number): Drawing => {
  const width = Math.max(...places.map((place) => sizeOf(place).width)) + 12;
  const columns = Math.max(1, Math.min(places.length, Math.floor(1_100 / width)));
  const boxes = places.map((place, at) => ({ place, ...sizeOf(place), x: (at % columns) * width + 6, y: Math.floor(at / columns) * (HEIGHT + 14) + 6 }));
  return { boxes, lines: [], ...boundsOf(boxes, []), hidden };
};

// Lays a view out, from those that connect on the left to those that are connected to on the right.
export const draw = (places: Place[], edges: Edge[]): Drawing => {
  if (edges.length > MOST_EDGES || edges.length === 0) return rowsOf(places, edges.length);
  const graph = new Graph({ multigraph: false, compound: false });
  graph.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 110, marginx: 6, marginy: 6 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const place of places) graph.setNode(place.key, sizeOf(place));
  for (const edge of edges) graph.setEdge(edge.from.key, edge.to.key);
  layout(graph);
  const boxes = places.map((place) => {
    const { x, y, width, height } = graph.node(place.key);
    return { place, x: (x ?? 0) - width / 2, y: (y ?? 0) - height / 2, width, height };
  });
  const lines = edges.map((edge) => ({ edge, points: (graph.edge(edge.from.key, edge.to.key)?.points ?? []) as { x: number; y: number }[] }));
  return { boxes, lines, ...boundsOf(boxes, lines), hidden: 0 };
};

// What contains all of it: dagre's own size leaves out how far lines reach.
const boundsOf = (boxes: Box[], lines: Line[]): Pick<Drawing, "left" | "top" | "width" | "height"> => {
  const points = lines.flatMap((line) => line.points);
  const left = Math.min(...boxes.map(({ x }) => x), ...points.map(({ x }) => x)) - 6;
  const top = Math.min(...boxes.map(({ y }) => y), ...points.map(({ y }) => y)) - 6;
  const right = Math.max(...boxes.map(({ x, width }) => x + width), ...points.map(({ x }) => x)) + 6;
  const bottom = Math.max(...boxes.map(({ y, height }) => y + height), ...points.map(({ y }) => y)) + 6;
  return { left, top, width: right - left, height: bottom - top };
};

// A line through points, with round corners.
export const curve = (points: { x: number; y: number }[]): string => {
  const at = ({ x, y }: { x: number; y: number }): string => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const [first, last] = [points[0], points.at(-1)];
  if (!first || !last) return "";
  let path = `M${at(first)}`;
  for (let n = 1; n < points.length - 1; n++) {
    const [corner, next] = [points[n], points[n + 1]];
    if (!corner || !next) continue;
    path += `Q${at(corner)} ${at(n === points.length - 2 ? next : { x: (corner.x + next.x) / 2, y: (corner.y + next.y) / 2 })}`;
  }
  return points.length === 2 ? `${path}L${at(last)}` : path;
};
