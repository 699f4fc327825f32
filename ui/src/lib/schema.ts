// The parts of the server's answers that the pages use. Their schemas are in docs/schemas.

export interface Message {
  code: string;
  text: string;
  file: string | null;
  line: number | null;
  column: number | null;
  help: string | null;
}

export interface State {
  version: string;
  number: number;
  world: number;
  read: number;
  sources: string[];
  cluster: boolean;
  ends: "workload" | "namespace";
  warnings: Message[];
  problem: { text: string; errors: Message[] } | null;
}

export interface Workload {
  ingress: "open" | "restricted" | "isolated";
  egress: "open" | "restricted" | "isolated";
  dns: string;
  internet_in: string;
  internet_out: string;
  exposed_to: [string, string][];
}

export interface End {
  id: string;
  kind: string;
  namespace: string | null;
  file: string | null;
  line: number | null;
  pods: number;
  families: string[];
  internet: boolean;
  several: boolean;
  workload?: Workload;
}

export interface Link {
  from: number;
  to: number;
  traffic: number;
  families?: string[];
  reasons: number;
  through?: string;
  pairs: number;
}

export interface Decider {
  text: string;
  policies: string[];
  rule: boolean;
  sources: number[];
}

export interface Passage {
  file: string;
  line: number;
  lines: string[];
  cut: boolean;
}

export interface Namespace {
  name: string;
  workloads: number;
  ingress_isolated: number;
  ingress_open: number;
  egress_isolated: number;
  egress_open: number;
  dns: number;
  dns_known: number;
  internet_in: number;
  internet_out: number;
}

export interface Policy {
  name: string;
  namespace: string | null;
  tier: string;
  file: string | null;
  line: number | null;
  directions: string[];
  text: string;
  selects: string[];
  connections: number;
  alone: number;
  does_nothing: string[];
  source: number | null;
}

export interface Finding {
  code: string;
  rule: string;
  level: "error" | "warning" | "note";
  message: string;
  file: string | null;
  line: number | null;
  column: number | null;
  object: string | null;
  fix: string | null;
}

export interface Incomplete {
  why: string;
  means: string;
}

export interface Report {
  counts: { namespaces: number; workloads: number; pods: number; policies: number; connections: number };
  namespaces: Namespace[];
  ends: End[];
  sets: [number, number][][];
  allowed: Link[];
  denied_egress: Link[];
  denied_ingress: Link[];
  traffics: { text: string; all: boolean }[];
  reasons: { egress: number[]; ingress: number[] }[];
  deciders: Decider[];
  sources: Passage[];
  policies: Policy[];
  findings: Finding[];
  bystanders: string[];
  notes: { code: string; text: string }[];
  undecided?: string[];
  incomplete?: Incomplete[];
}

// What policies of each namespace dropped in the hour before `until`; `until` is null if nothing is known.
export interface Drops {
  from: "agents" | "file" | "nowhere";
  number: number;
  until: string | null;
  at_least: boolean;
  namespaces: { name: string; dropped: number; audited: number }[];
}

export interface Entry {
  matches: boolean;
  wants: string;
  line: number | null;
}

export interface Rule {
  index: number;
  name?: string;
  file: string | null;
  line: number | null;
  action: string;
  peer_matches: boolean;
  peers: Entry[] | null;
  ports: Entry[] | null;
}

export interface WalkedPolicy {
  kind: string;
  namespace?: string | null;
  name: string;
  tier: string;
  rules: Rule[];
}

export interface ChangedConnection {
  from: { id: string };
  to: { id: string };
  traffic: Traffic;
}

export interface Traffic {
  all: boolean;
  [protocol: string]: unknown;
}

export interface Suggestion {
  text: string;
  opens: ChangedConnection[];
  closes: ChangedConnection[];
  patch?: string;
  commands: string[];
  by_hand: string[];
}

export interface Explain {
  source: string;
  destination: string;
  verdict: string;
  causes: { code: string; text: string; file: string | null; line: number | null }[];
  answers: { verdict: string; families: string[]; egress: { policies: WalkedPolicy[] }; ingress: { policies: WalkedPolicy[] } }[];
  suggestions: Suggestion[];
}

export interface Describe {
  kind: string;
  text?: string;
}

// What policies can name.
export interface Labels {
  namespaces: string[];
  namespace_labels: Record<string, string[]>;
  pod_labels: Record<string, string[]>;
  ports: string[];
}

export interface PolicyText {
  name: string;
  file: string | null;
  line: number | null;
  text: string;
}

// The consequences of a tried policy.
export interface Consequences {
  summary: { text: string };
  groups: { because: string; rows: { opened: boolean; from: string; to: string; traffic: string; ends?: [string[], string[]] }[]; more: number }[];
  more_groups: number;
  others: string[];
  remarks: string[];
  all_ends: boolean;
}

export interface Trial {
  world: number;
  errors: Message[];
  warnings: Message[];
  findings: Finding[];
  consequences: Consequences | null;
  patch: { file: string; text: string } | null;
}

export interface FlowEnd {
  address: string;
  pod?: { namespace: string; name: string };
  workload?: { kind: string; name: string };
  node?: string;
}

// A connection that an agent recorded.
export interface FlowRecord {
  id: number;
  time: string;
  node: string;
  verdict: "dropped" | "audited";
  direction: "ingress" | "egress";
  source: FlowEnd;
  destination: FlowEnd;
  protocol: string;
  port?: number;
  reason: string[];
  count: number;
}

export interface Flows {
  from: "agents" | "file" | "nowhere";
  number: number;
  records: FlowRecord[];
  more: number;
  left_out: number;
  problem: string | null;
  nodes: { name: string; problem: string | null; unrecorded: number; evicted: number }[];
}
