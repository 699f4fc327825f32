// What agents saw, followed while the page is open.
import { Refused, getFlows } from "./api";
import type { Model } from "./model";
import type { FlowEnd, FlowRecord, Flows } from "./schema";

// The most records that are kept here, and the pause after a failure.
const MOST = 2_000;
const RETRY = 3_000;

export class FlowFeed {
  // The latest last.
  records = $state.raw<FlowRecord[]>([]);
  answer = $state.raw<Flows | null>(null);
  failed = $state("");

  // Follows the records that match until the signal.
  async follow(filter: Record<string, string>, signal: AbortSignal): Promise<void> {
    let after = 0;
    while (!signal.aborted) {
      try {
        const answer = await getFlows({ ...filter, ...(after > 0 ? { after: String(after) } : {}) }, signal);
        // Fewer than before: the file is another one, or the server has started again.
        if (answer.number < after) this.records = [];
        after = answer.number;
        if (answer.records.length > 0) this.records = [...this.records, ...answer.records].slice(-MOST);
        this.answer = answer;
        this.failed = "";
      } catch (error) {
        if (signal.aborted) return;
        this.failed = error instanceof Error ? error.message : String(error);
        // Only another filter helps.
        if (error instanceof Refused && error.status === 400) return;
        await new Promise((resolve) => setTimeout(resolve, RETRY));
      }
    }
  }
}

export const endName = (end: FlowEnd): string => (end.pod ? `${end.pod.namespace}/${end.pod.name}` : end.node ? `node ${end.node}` : end.address);

// How an end is written in a question about the cluster as it is now.
const endQuestion = (end: FlowEnd): string => (end.pod ? `${end.pod.namespace}/pod/${end.pod.name}` : end.node ? `node/${end.node}` : end.address);

// The question whose answer tells what would allow the connection of a record.
export const questionOf = (record: FlowRecord): { from: string; to: string } => {
  const to = endQuestion(record.destination);
  const address = to.includes(":") ? `[${to}]` : to;
  const port = record.port === undefined ? `/${record.protocol}` : `:${record.port}/${record.protocol}`;
  return { from: endQuestion(record.source), to: `${address}${port}` };
};

// The end of the matrix to which an end of a record belongs; an address outside and a node are asked about as such.
export const endOf = (model: Model, end: FlowEnd): string | undefined => {
  if (!end.pod) return endQuestion(end);
  const { namespace, name } = end.pod;
  const ids = [...(end.workload ? [`${namespace}/${end.workload.kind.toLowerCase()}/${end.workload.name}`] : []), `${namespace}/pod/${name}`, `namespace ${namespace}`];
  return ids.find((id) => model.find(id) !== undefined);
};

