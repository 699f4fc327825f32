// How policies are named, and asked about.

const WORDS: Record<string, string> = { NetworkPolicy: "netpol", ClusterNetworkPolicy: "cnp", AdminNetworkPolicy: "anp", BaselineAdminNetworkPolicy: "banp" };

// The question about a policy with this name, such as `NetworkPolicy shop/web`. `null`: it has none.
export const policyQuestion = (name: string): string | null => {
  const at = name.indexOf(" ");
  const word = WORDS[name.slice(0, at)];
  if (!word) return null;
  const path = name.slice(at + 1).split("/");
  return path.length === 2 ? `${path[0]}/${word}/${path[1]}` : `${word}/${path.join("/")}`;
};
