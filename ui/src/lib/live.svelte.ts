// What the server shows, followed.
import { Refused, getReport, getState } from "./api";
import { Model, TooLarge } from "./model";
import type { State } from "./schema";

const RETRY = 2_000;

class Live {
  state = $state.raw<State | null>(null);
  model = $state.raw<Model | null>(null);
  // Why there is no answer.
  lost = $state("");
  private world = 0;

  async follow(): Promise<never> {
    for (;;) {
      try {
        const state = await getState(this.state && !this.lost ? this.state.number : undefined);
        if (state.world !== this.world || !this.model) {
          this.model = new Model(await getReport(), state.world);
          this.world = state.world;
        }
        this.state = state;
        this.lost = "";
      } catch (error) {
        this.lost = error instanceof Error ? error.message : String(error);
        // Only another address helps against a wrong token, and another cluster against one that is too large.
        const isLasting = error instanceof TooLarge || (error instanceof Refused && error.status === 401);
        const pause = isLasting ? 10 * RETRY : RETRY;
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
  }
}

export const live = new Live();
