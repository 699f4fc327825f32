// The policy that is tried, and its consequences. Both stay while other pages are shown.
import { Refused, postTry } from "./api";
import type { Trial } from "./schema";

// How long typing pauses before the text is sent. The server gives up an older question as soon as a newer one arrives, so the pause
// only has to hold back letters of one keystroke, such as a completion.
const PAUSE = 15;

class Attempts {
  // The policy in whose place the text is; empty: none.
  replaces = $state("");
  text = $state("");
  // The answer to the newest text that has consequences.
  good = $state.raw<Trial | null>(null);
  // The answer to the newest text.
  last = $state.raw<Trial | null>(null);
  failed = $state("");
  waiting = $state(false);
  private readonly page = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  private timer = 0;
  private abort: AbortController | undefined;

  // Begins with another text.
  begin(replaces: string, text: string): void {
    this.clear();
    this.replaces = replaces;
    this.edit(text, 0);
  }

  edit(text: string, pause = PAUSE): void {
    this.text = text;
    this.again(pause);
  }

  // Asks for the consequences of the text. An older question is given up.
  again(pause = 0): void {
    const began = performance.now();
    clearTimeout(this.timer);
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    this.waiting = true;
    this.timer = setTimeout(() => void this.ask(abort.signal, began), pause);
  }

  clear(): void {
    clearTimeout(this.timer);
    this.abort?.abort();
    Object.assign(this, { replaces: "", text: "", good: null, last: null, failed: "", waiting: false });
  }

  private async ask(signal: AbortSignal, began: number): Promise<void> {
    try {
      const answer = await postTry(this.page, this.text, this.replaces, signal);
      if (signal.aborted) return;
      this.last = answer;
      if (answer.consequences) this.good = answer;
      this.failed = "";
      this.waiting = false;
      requestAnimationFrame(() => performance.measure("try", { start: began, end: performance.now() }));
    } catch (error) {
      // A newer question has replaced it, of this page or of a copy of it.
      if (signal.aborted || (error instanceof Refused && error.status === 409)) return;
      this.failed = error instanceof Error ? error.message : String(error);
      this.waiting = false;
    }
  }
}

export const attempts = new Attempts();
