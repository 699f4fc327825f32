// What policies dropped in the last hour, followed while a page shows it.
import { getDrops } from "./api";
import type { Drops } from "./schema";

// The pause between two answers: a busy cluster always has something new. And after how long an answer is too old, since packets of
// an hour ago no longer count.
const PAUSE = 5_000;
const OLD = 60_000;

const pause = (time: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, time);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });

export class DropFeed {
  answer = $state.raw<Drops | null>(null);

  async follow(signal: AbortSignal): Promise<void> {
    let [after, read] = [0, 0];
    while (!signal.aborted) {
      try {
        const isOld = performance.now() - read > OLD;
        const answer = await getDrops(after > 0 && !isOld ? { after: String(after) } : {}, signal);
        if (answer.number !== after || isOld) {
          this.answer = answer;
          read = performance.now();
        }
        after = answer.number;
        // Neither agents nor a file: that stays so.
        if (answer.from === "nowhere") return;
      } catch {
        // The page says itself when the server does not answer. What is not known is not claimed.
        this.answer = null;
        after = 0;
      }
      await pause(PAUSE, signal);
    }
  }

  // What a card says about a namespace; undefined if nothing is known.
  of(namespace: string): [string, string, string] | undefined {
    const { answer } = this;
    if (!answer || answer.until === null) return undefined;
    const found = answer.namespaces.find(({ name }) => name === namespace);
    const least = answer.at_least ? "at least " : "";
    const counts = [
      ...(found && found.dropped > 0 ? [`${least}${found.dropped.toLocaleString("en")} dropped`] : []),
      ...(found && found.audited > 0 ? [`${least}${found.audited.toLocaleString("en")} audited`] : []),
    ];
    if (counts.length > 0) return ["Packets in the last hour", found && found.dropped > 0 ? "bad" : "warn", counts.join(", ")];
    return ["Packets in the last hour", "", answer.at_least ? "no drop known" : "none dropped"];
  }
}
