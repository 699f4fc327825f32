// The report as the pages need it: which connections each pair of ends has.
import type { End, Link, Report } from "./schema";

// The links of each pair: the number of the first one, and a list where a pair has several.
interface Pairs {
  first: Int32Array;
  several: Map<number, number[]>;
}

export type Side = "egress" | "ingress";
export const SIDES: readonly Side[] = ["egress", "ingress"];

// Which links apply to a pair of one IP family each.
const bits = (names: readonly string[]): number => (names.length === 0 ? 3 : (names.includes("IPv4") ? 1 : 0) | (names.includes("IPv6") ? 2 : 0));

// Traffic between a pair, with what decides it.
export interface Part {
  text: string;
  allowed: boolean;
  deciders: Record<Side, number[]>;
}

// How open a pair is: nothing, some ports, everything, or the internet.
export type Level = 0 | 1 | 2 | 3;

// The most ends of a matrix. Each pair takes 12 bytes, so these take 300 MB.
const MOST_ENDS = 5_000;

// A cluster of which the pages show nothing.
export class TooLarge extends Error {}

export class Model {
  readonly count: number;
  private readonly allowed: Pairs;
  private readonly denied: Record<Side, Pairs>;
  private readonly numbers = new Map<string, number>();

  // `number` is another one for each report.
  constructor(
    readonly report: Report,
    readonly number: number,
  ) {
    this.count = report.ends.length;
    if (this.count > MOST_ENDS) {
      throw new TooLarge(`the connections of ${this.count.toLocaleString("en")} workloads, nodes and ranges of addresses do not fit here: at most ${MOST_ENDS.toLocaleString("en")} do; the verbs of the command line have no such limit`);
    }
    const sets = report.sets.map((runs) => runs.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, at) => first + at)));
    const families = report.ends.map((end) => bits(end.families));
    const expand = (links: Link[]): Pairs => {
      const pairs: Pairs = { first: new Int32Array(this.count * this.count), several: new Map() };
      links.forEach((link, number) => {
        const own = bits(link.families ?? []);
        for (const from of sets[link.from] ?? []) {
          for (const to of sets[link.to] ?? []) {
            if (from === to && !this.end(from).several) continue;
            if ((own & (families[from] ?? 0) & (families[to] ?? 0)) === 0) continue;
            const at = from * this.count + to;
            const first = pairs.first[at] ?? 0;
            if (first === 0) pairs.first[at] = number + 1;
            else if (pairs.several.has(at)) pairs.several.get(at)?.push(number);
            else pairs.several.set(at, [first - 1, number]);
          }
        }
      });
      return pairs;
    };
    this.allowed = expand(report.allowed);
    this.denied = { egress: expand(report.denied_egress), ingress: expand(report.denied_ingress) };
    report.ends.forEach((end, number) => this.numbers.set(end.id, number));
  }

  end(number: number): End {
    const end = this.report.ends[number];
    if (!end) throw new RangeError(`no end ${number}`);
    return end;
  }

  // The number of the end with this name.
  find(id: string): number | undefined {
    return this.numbers.get(id);
  }

  private links(pairs: Pairs, from: number, to: number): number[] {
    const at = from * this.count + to;
    const first = pairs.first[at] ?? 0;
    return first === 0 ? [] : (pairs.several.get(at) ?? [first - 1]);
  }

  // The first allowed link of a pair.
  firstAllowed(from: number, to: number): Link | undefined {
    return this.report.allowed[(this.allowed.first[from * this.count + to] ?? 0) - 1];
  }

  isDenied(from: number, to: number): boolean {
    const at = from * this.count + to;
    return this.denied.egress.first[at] !== 0 || this.denied.ingress.first[at] !== 0;
  }

  private traffic(link: Link): string {
    const families = link.families ? ` (${link.families.join(" and ")})` : "";
    const through = link.through ? `, for ${link.through}` : "";
    return `${this.report.traffics[link.traffic]?.text ?? ""}${families}${through}`;
  }

  // The ports that a pair may use.
  text(from: number, to: number): string {
    return this.links(this.allowed, from, to)
      .map((number) => this.report.allowed[number])
      .filter((link) => link !== undefined)
      .map((link) => this.traffic(link))
      .join("; ");
  }

  level(from: number, to: number): Level {
    const link = this.firstAllowed(from, to);
    if (!link) return 0;
    if (this.end(from).internet || this.end(to).internet) return 3;
    return this.report.traffics[link.traffic]?.all ? 2 : 1;
  }

  // What decides between a pair: what is allowed, then what is denied with what denies it on each side.
  parts(from: number, to: number): Part[] {
    const parts: Part[] = [];
    for (const number of this.links(this.allowed, from, to)) {
      const link = this.report.allowed[number];
      if (!link) continue;
      parts.push({ text: this.traffic(link), allowed: true, deciders: this.report.reasons[link.reasons] ?? { egress: [], ingress: [] } });
    }
    const denied = new Map<string, Part>();
    for (const side of SIDES) {
      for (const number of this.links(this.denied[side], from, to)) {
        const link = this.report[`denied_${side}`][number];
        if (!link) continue;
        const text = this.traffic(link);
        const part = denied.get(text) ?? { text, allowed: false, deciders: { egress: [], ingress: [] } };
        part.deciders[side] = this.report.reasons[link.reasons]?.[side] ?? [];
        denied.set(text, part);
      }
    }
    return [...parts, ...denied.values()];
  }
}

// How an end is written in a question to the server. `null`: it can't be.
export const asQuestion = (end: End): string | null => {
  switch (end.kind) {
    case "workload":
    case "pod":
      return end.id;
    case "namespace":
      return `ns/${end.id.replace(/^namespace /, "")}`;
    case "external":
      if (end.internet) return "internet";
      return /^[0-9a-fA-F.:/]+$/.test(end.id) ? end.id : null;
    default:
      return null;
  }
};

// The name of an end within its namespace.
export const shortName = (end: End): string => (end.namespace !== null && end.id.startsWith(`${end.namespace}/`) ? end.id.slice(end.namespace.length + 1) : end.id);

export const plural = (count: number, noun: string): string => `${count.toLocaleString("en")} ${count === 1 ? noun : noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
