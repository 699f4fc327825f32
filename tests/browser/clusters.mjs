// Clusters for the browser.

// A cluster of 1,000 workloads in 50 namespaces. Each namespace has its own policies, so rows and columns differ.
export const large = () => {
  const out = [];
  for (let n = 0; n < 50; n++) {
    const namespace = `team-${String(n).padStart(2, "0")}`;
    out.push(`apiVersion: v1\nkind: Namespace\nmetadata: {name: ${namespace}, labels: {team: t${n % 7}}}`);
    for (let w = 0; w < 20; w++) {
      out.push(`apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app-${w}, namespace: ${namespace}}\nspec: {replicas: 2, selector: {matchLabels: {app: app-${w}}}, template: {metadata: {labels: {app: app-${w}, tier: l${w % 4}}}, spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: ${8000 + w}}]}]}}}`);
    }
    if (n % 5 === 0) continue;
    out.push(`apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: ${namespace}}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]}`);
    for (let w = 0; w < 10; w++) {
      out.push(`apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: allow-${w}, namespace: ${namespace}}\nspec:\n  podSelector: {matchLabels: {app: app-${w}}}\n  ingress:\n  - from:\n    - namespaceSelector: {matchLabels: {team: t${(n + w) % 7}}}\n      podSelector: {matchLabels: {tier: l${w % 4}}}\n    ports: [{port: ${8000 + w}}]\n  egress:\n  - to: [{ipBlock: {cidr: 203.0.113.${w}/32}}]\n  - to: [{podSelector: {}}]\n  policyTypes: [Ingress, Egress]`);
    }
  }
  return out.join("\n---\n");
};
const hostile = `</title><script>window.stolen=1</script><img src=x onerror="window.stolen=1">%%{init: {}}%% \\"]-->|click a "javascript:alert(1)"|\`end{{\\n\\u001b[31m\\u202e\\uffff&lt;`;
// A cluster whose names are markup and scripts.
export const odd = `apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: shop\n  labels: {app: a}\n  ownerReferences:\n  - {apiVersion: x/v1, kind: "${hostile.replaceAll('"img', "img").replace(/(?<!\\)"/g, '\\"')}", name: "${hostile.replace(/(?<!\\)"/g, '\\"')}", uid: u}\nspec: {containers: [{name: c, image: i}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: shop, labels: {app: b}}\nspec: {containers: [{name: c, image: i}]}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  podSelector: {matchLabels: {app: a}}\n  ingress:\n  - from: # </script><script>window.stolen=1</script>\n    - podSelector: {matchLabels: {app: b}}\n`;
