// Questions to the server. docs/ui.md describes them; the schemas of the answers are those of the verbs.
import { takeToken } from "./token";
import type { Describe, Drops, Explain, Flows, Labels, PolicyText, Report, State, Trial } from "./schema";

const token = takeToken();

// An answer that is no answer: the server's reason, or that there is no server.
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

const ask = async (path: string, parameters: Record<string, string>, signal?: AbortSignal, body?: unknown): Promise<Response> => {
  const query = new URLSearchParams(parameters).toString();
  const headers: Record<string, string> = { authorization: `Bearer ${token}` };
  const sent = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(`/api/v1/${path}${query ? `?${query}` : ""}`, { headers, signal: signal ?? null, ...sent });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("palisade ui does not answer: has it ended?", 0);
  }
  if (response.ok) return response;
  const text = await response.text();
  let reason = text;
  try {
    reason = (JSON.parse(text) as { error: string }).error;
  } catch {
    // Not from the server's own code: the text is all there is.
  }
  throw new Refused(reason || `error ${response.status}`, response.status);
};

export const getState = async (after?: number): Promise<State> => (await ask("state", after === undefined ? {} : { after: String(after) })).json();
export const getReport = async (): Promise<Report> => (await ask("report", {})).json();
export const getExplain = async (from: string, to: string, toDeny: boolean, signal: AbortSignal): Promise<Explain> =>
  (await ask("explain", { from, to, "to-deny": String(toDeny) }, signal)).json();
export const getDescribe = async (what: string, signal: AbortSignal): Promise<Describe> => (await ask("describe", { what }, signal)).json();
export const getPicture = async (what: string, signal: AbortSignal): Promise<Blob> => (await ask("describe", { what, format: "svg" }, signal)).blob();
export const getSource = async (file: string, signal: AbortSignal): Promise<string> => ((await (await ask("source", { file }, signal)).json()) as { text: string }).text;
export const getLabels = async (signal: AbortSignal): Promise<Labels> => (await ask("labels", {}, signal)).json();
export const getPolicy = async (name: string, signal: AbortSignal): Promise<PolicyText> => (await ask("policy", { name }, signal)).json();
export const postTry = async (page: string, text: string, replaces: string, signal: AbortSignal): Promise<Trial> =>
  (await ask("try", {}, signal, { page, text, ...(replaces ? { replaces } : {}) })).json();
export const getFlows = async (parameters: Record<string, string>, signal: AbortSignal): Promise<Flows> => (await ask("flows", parameters, signal)).json();
export const getDrops = async (parameters: Record<string, string>, signal: AbortSignal): Promise<Drops> => (await ask("drops", parameters, signal)).json();
