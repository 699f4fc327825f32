// Which pairs of ends a tried policy opens and closes, for the matrix and the map.
import type { Model } from "./model";
import type { Consequences } from "./schema";

// Numbers of pairs that open, and of pairs that close.
export interface Change {
  opens: number;
  closes: number;
}

export class Marks {
  private readonly opens = new Set<number>();
  private readonly closes = new Set<number>();
  // Whether all of them can be shown: a policy may divide ends further, and long answers leave some out.
  readonly isComplete: boolean;

  constructor(
    private readonly model: Model,
    consequences: Consequences | null,
  ) {
    let complete = consequences?.all_ends ?? true;
    for (const row of (consequences?.groups ?? []).flatMap((group) => group.rows)) {
      if (!row.ends) continue;
      const [from, to] = row.ends.map((names) => names.map((name) => model.find(name)));
      for (const source of from ?? []) {
        for (const target of to ?? []) {
          if (source === undefined || target === undefined) complete = false;
          else (row.opened ? this.opens : this.closes).add(source * model.count + target);
        }
      }
    }
    this.isComplete = complete;
  }

  get isEmpty(): boolean {
    return this.opens.size + this.closes.size === 0;
  }

  // What changes from some ends to others.
  between(from: readonly number[], to: readonly number[]): Change {
    const change: Change = { opens: 0, closes: 0 };
    if (this.isEmpty) return change;
    for (const source of from) {
      for (const target of to) {
        const pair = source * this.model.count + target;
        if (this.opens.has(pair)) change.opens += 1;
        if (this.closes.has(pair)) change.closes += 1;
      }
    }
    return change;
  }
}

// What follows the name of a pair, or of several: `; Try opens 2, closes 1`.
export const changeText = ({ opens, closes }: Change): string => {
  const words = [opens > 0 ? `opens ${opens}` : "", closes > 0 ? `closes ${closes}` : ""].filter(Boolean);
  return words.length === 0 ? "" : `; Try ${words.join(", ")}`;
};
