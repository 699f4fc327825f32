// The rows, columns and cells of the matrix: namespaces as bands that fold, and the ends of those that are unfolded.
import { type Level, type Model, plural, shortName } from "./model";

export interface Band {
  name: string;
  ends: number[];
}

// A row or a column: a band, or one end of it.
export interface Item {
  band: Band;
  ends: number[];
  end: number | undefined;
  name: string;
  title: string;
}

export interface Cell {
  level: Level;
  // Nothing is decided: the same pod, or policies do not apply.
  blank: boolean;
  text: string;
  label: string;
}

export const OUTSIDE = "outside and nodes";

export const bandsOf = (model: Model): Band[] => {
  const bands: Band[] = [];
  model.report.ends.forEach((end, number) => {
    const name = end.namespace ?? (end.kind === "namespace" ? "namespaces" : OUTSIDE);
    const last = bands.at(-1);
    if (last?.name === name) last.ends.push(number);
    else bands.push({ name, ends: [number] });
  });
  return bands;
};

const isTarget = (model: Model, number: number): boolean => !["own-node", "ingress-controller"].includes(model.end(number).kind);

// Whether a name has all these words.
export const matches = (name: string, words: readonly string[]): boolean => words.every((word) => name.toLowerCase().includes(word));

export const itemsOf = (model: Model, bands: readonly Band[], open: ReadonlySet<string>, words: readonly string[], isColumn: boolean): Item[] =>
  bands.flatMap((band) => {
    const searched = !isColumn && words.length > 0;
    let ends = isColumn ? band.ends.filter((number) => isTarget(model, number)) : band.ends;
    if (searched) ends = ends.filter((number) => matches(model.end(number).id, words));
    if (ends.length === 0) return [];
    const heading: Item = { band, ends, end: undefined, name: band.name, title: band.name };
    if (!searched && !open.has(band.name)) return [heading];
    return [heading, ...ends.map((number) => ({ band, ends: [number], end: number, name: shortName(model.end(number)), title: model.end(number).id }))];
  });

// Makes cells, and remembers those of bands, which look at many pairs.
export class Cells {
  private readonly known = new Map<string, Cell>();

  constructor(private readonly model: Model) {}

  of(row: Item, column: Item): Cell {
    if (row.end !== undefined && column.end !== undefined) return this.make(row, column);
    const key = `${row.end ?? `${row.band.name}:${row.ends.length}`}|${column.end ?? column.band.name}`;
    const known = this.known.get(key);
    if (known) return known;
    const made = this.make(row, column);
    this.known.set(key, made);
    return made;
  }

  private make(row: Item, column: Item): Cell {
    const { model } = this;
    let [open, possible, level, traffic]: [number, number, Level, number] = [0, 0, 0, -1];
    for (const from of row.ends) {
      for (const to of column.ends) {
        const link = model.firstAllowed(from, to);
        if (!link) {
          if (model.isDenied(from, to)) possible += 1;
          continue;
        }
        possible += 1;
        open += 1;
        level = Math.max(level, model.level(from, to)) as Level;
        traffic = traffic === -1 || traffic === link.traffic ? link.traffic : -2;
      }
    }
    const pair = `${row.title} → ${column.title}`;
    if (possible === 0) return { level: 0, blank: true, text: "", label: `${pair}: no policy applies, or the same pod` };
    if (row.end !== undefined && column.end !== undefined) {
      const text = model.text(row.end, column.end);
      return { level, blank: false, text: text || "–", label: `${pair}: ${text || "denied"}` };
    }
    const same = open === possible && traffic >= 0 ? (model.report.traffics[traffic]?.text ?? "") : "";
    const text = same || (open > 0 ? `${open}/${possible}` : "–");
    return { level, blank: false, text, label: `${pair}: ${open > 0 ? `${text}, ` : ""}${open} of ${plural(possible, "pair")} allowed` };
  }
}
