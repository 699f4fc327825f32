// Completion in the editor: namespaces, labels and names of ports that exist, and the fields of policies.
import type { Completion, CompletionContext, CompletionResult } from "@codemirror/autocomplete";
import type { Labels } from "./schema";

const FIELDS: Record<string, string[]> = {
  "": ["apiVersion", "kind", "metadata", "spec"],
  metadata: ["name", "namespace", "labels", "annotations"],
  spec: ["podSelector", "policyTypes", "ingress", "egress", "tier", "priority", "subject"],
  ingress: ["from", "ports", "name", "action"],
  egress: ["to", "ports", "name", "action"],
  from: ["podSelector", "namespaceSelector", "ipBlock", "namespaces", "pods"],
  to: ["podSelector", "namespaceSelector", "ipBlock", "namespaces", "pods"],
  ipBlock: ["cidr", "except"],
  ports: ["port", "protocol", "endPort"],
  podSelector: ["matchLabels", "matchExpressions"],
  namespaceSelector: ["matchLabels", "matchExpressions"],
  matchExpressions: ["key", "operator", "values"],
};
const VALUES: Record<string, string[]> = {
  kind: ["NetworkPolicy", "ClusterNetworkPolicy"],
  protocol: ["TCP", "UDP", "SCTP"],
  operator: ["In", "NotIn", "Exists", "DoesNotExist"],
  action: ["Accept", "Deny", "Pass"],
  tier: ["Admin", "Baseline"],
};

// The keys under which a line stands, the innermost last. Read from the indentation: the text may be incomplete.
const keysAbove = (lines: readonly string[]): string[] => {
  const own = lines.at(-1) ?? "";
  const column = (line: string): number => /^[\s-]*/.exec(line)?.[0].length ?? 0;
  let least = column(own);
  const keys: string[] = [];
  for (let at = lines.length - 2; at >= 0 && least > 0; at--) {
    const line = lines[at] ?? "";
    if (/^\s*(#|$)/.test(line)) continue;
    const key = /^[\s-]*([A-Za-z.]+):\s*$/.exec(line);
    // The items of a list may stand as far left as its key.
    const isAbove = column(line) < least || (column(line) === least && /^\s*-/.test(own) && !/^\s*-/.test(line));
    if (!isAbove) continue;
    least = column(line);
    if (key?.[1]) keys.unshift(key[1]);
  }
  // What is written in braces on the line itself.
  for (const [, key] of own.matchAll(/([A-Za-z]+):\s*\{(?=[^}]*$)/g)) if (key) keys.push(key);
  return keys;
};

const quoted = (value: string): string => (/^[A-Za-z][A-Za-z0-9._/-]*$/.test(value) && !/^(true|false|null|yes|no|on|off|y|n)$/i.test(value) ? value : JSON.stringify(value));
const optionsOf = (values: readonly string[], type: string, after = ""): Completion[] => values.map((label) => ({ label, type, apply: `${after === "" ? quoted(label) : label}${after}` }));

export const completer = (labels: () => Labels | null) => (context: CompletionContext): CompletionResult | null => {
  const word = context.matchBefore(/[A-Za-z0-9._/-]*/);
  if (!word || (word.from === word.to && !context.explicit)) return null;
  const text = context.state.sliceDoc(Math.max(0, word.from - 20_000), word.from);
  const lines = text.split("\n");
  const own = lines.at(-1) ?? "";
  const keys = keysAbove(lines);
  const known = labels();
  const parent = keys.at(-1) ?? "";
  const ofNamespaces = keys.some((key) => key === "namespaceSelector" || key === "namespaces");
  const all = (ofNamespaces ? known?.namespace_labels : known?.pod_labels) ?? {};
  const result = (options: Completion[]): CompletionResult | null => (options.length === 0 ? null : { from: word.from, options, validFor: /^[A-Za-z0-9._/-]*$/ });
  const field = /([A-Za-z0-9._/-]+):\s+$/.exec(own)?.[1];
  if (field !== undefined) {
    if (parent === "matchLabels") return result(optionsOf(all[field] ?? [], "constant"));
    if (field === "namespace") return result(optionsOf(known?.namespaces ?? [], "namespace"));
    if (field === "key") return result(optionsOf(Object.keys(all), "property"));
    if (field === "port") return result(optionsOf(known?.ports ?? [], "constant"));
    return result(optionsOf(VALUES[field] ?? [], "enum"));
  }
  if (parent === "values") {
    const key = [...text.matchAll(/key:\s*"?([^\s",}]+)/g)].at(-1)?.[1];
    return result(optionsOf(key === undefined ? [] : (all[key] ?? []), "constant"));
  }
  if (parent === "policyTypes") return result(optionsOf(["Ingress", "Egress"], "enum"));
  if (parent === "matchLabels") return result(optionsOf(Object.keys(all), "property", ": "));
  return result(optionsOf(FIELDS[parent] ?? [], "keyword", ": "));
};
