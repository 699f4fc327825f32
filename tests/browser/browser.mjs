// Looks at the pages of `palisade report` and `palisade diff -o html` in Chromium, and gives Mermaid's own parser the graphs.
//
//     node browser.mjs FOLDER PALISADE ROOT
//
// FOLDER gets the screenshots. Each check that fails is printed; the exit code is 1 then.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [folder, palisade, root] = process.argv.slice(2).map((name) => path.resolve(name));
const require = createRequire(import.meta.url);
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const mermaid = fs.readFileSync(path.join(path.dirname(require.resolve("mermaid/package.json")), "dist/mermaid.min.js"), "utf8");
let failures = 0;
let checks = 0;
const check = (name, passed, more = "") => {
  checks += 1;
  if (passed) return;
  failures += 1;
  console.error(`FAILED: ${name} ${more}`);
};
const run = (words, codes = [0]) => {
  try {
    return execFileSync(palisade, words, { cwd: root, encoding: "utf8", maxBuffer: 1 << 28, env: { PATH: process.env.PATH, KUBECONFIG: "/nonexistent" }, stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    if (codes.includes(error.status)) return error.stdout;
    throw new Error(`${words.join(" ")}: ${error.stderr}`);
  }
};

// A cluster of 1,000 workloads in 50 namespaces. Each namespace has its own policies, so rows and columns differ.
const large = () => {
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
const odd = `apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: shop\n  labels: {app: a}\n  ownerReferences:\n  - {apiVersion: x/v1, kind: "${hostile.replaceAll('"img', "img").replace(/(?<!\\)"/g, '\\"')}", name: "${hostile.replace(/(?<!\\)"/g, '\\"')}", uid: u}\nspec: {containers: [{name: c, image: i}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: shop, labels: {app: b}}\nspec: {containers: [{name: c, image: i}]}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  podSelector: {matchLabels: {app: a}}\n  ingress:\n  - from: # </script><script>window.stolen=1</script>\n    - podSelector: {matchLabels: {app: b}}\n`;

fs.mkdirSync(folder, { recursive: true });
const file = (name, text) => {
  const at = path.join(folder, name);
  fs.writeFileSync(at, text);
  return at;
};
const largeFile = file("large.yaml", large());
fs.mkdirSync(path.join(folder, "odd"), { recursive: true });
const oddFile = file("odd/<script>window.stolen=1<script>'.yaml", odd);

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });

// Opens a page with its own Content-Security-Policy in force; records what it logs, requests and violates.
const open = async (url, { width = 1280, dark = false, script = true } = {}) => {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: dark ? "dark" : "light", javaScriptEnabled: script });
  const page = await context.newPage();
  const said = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("request", (request) => request.url() !== url && said.push(`request: ${request.url()}`));
  const began = Date.now();
  await page.goto(url, { waitUntil: "load" });
  return { page, said, took: Date.now() - began, close: () => context.close() };
};

// axe runs in an isolated world, in which the page's policy doesn't apply.
const accessible = async (name, page) => {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id, worldName: "axe" });
  await session.send("Runtime.evaluate", { expression: axe, contextId: executionContextId });
  const { result, exceptionDetails } = await session.send("Runtime.evaluate", {
    expression: `axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }).then((r) => JSON.stringify(r.violations.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 160), v.nodes[0].failureSummary.slice(0, 300)])))`,
    contextId: executionContextId, awaitPromise: true,
  });
  check(`${name}: axe runs`, !exceptionDetails, JSON.stringify(exceptionDetails || ""));
  check(`${name}: axe finds nothing`, result.value === "[]", result.value);
};

const inspect = async (name, html, content) => {
  const url = pathToFileURL(file(`${name}.html`, html)).href;
  for (const width of [1280, 390]) {
    for (const dark of [false, true]) {
      const { page, said, took, close } = await open(url, { width, dark });
      const place = `${name}, ${width} px, ${dark ? "dark" : "light"}`;
      try {
        await content(page, place, took);
      } catch (error) {
        check(`${place}: can be used`, false, String(error).slice(0, 600));
      }
      await accessible(place, page);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      check(`${place}: the page is not wider than the window`, wide <= 0, `${wide} px`);
      check(`${place}: no error, no request`, said.length === 0, said.join("; "));
      check(`${place}: nothing from a manifest ran`, (await page.evaluate("window.stolen")) === undefined);
      await page.screenshot({ path: path.join(folder, `${name}-${width}-${dark ? "dark" : "light"}.png`) });
      await close();
    }
  }
  return url;
};

// Scrolls the matrix until a cell is in view: only these exist.
const cell = async (page, from, to) => {
  const found = page.locator(`#grid td[aria-label^=${JSON.stringify(`${from} → ${to}:`)}]`);
  for (let left = 0; left < 2_000 && (await found.count()) === 0; left += 150) {
    await page.evaluate((x) => document.getElementById("grid").scrollTo(x, 0), left);
    await page.waitForTimeout(100);
  }
  return found;
};

await inspect("shop", run(["report", "-f", "examples/shop"]), async (page, place) => {
  const rows = await page.locator("[aria-labelledby=workloads] tbody tr").allTextContents();
  check(`${place}: unprotected workloads come first`, rows.length > 3 && rows.findIndex((row) => row.includes("isolated")) > rows.findLastIndex((row) => !row.includes("isolated")) , rows.join(" / "));
  const allowed = await cell(page, "shop/deployment/frontend", "shop/deployment/backend");
  check(`${place}: a cell has its ports`, (await allowed.textContent()) === "all");
  await allowed.click();
  const why = page.locator("#why");
  check(`${place}: the reason names the rule`, (await why.textContent()).includes("NetworkPolicy shop/backend-from-frontend, ingress[0]"));
  check(`${place}: the deciding lines are shown`, (await why.locator("pre mark").count()) > 0);
  check(`${place}: the link can be copied`, page.url().includes("#why=shop%2Fdeployment%2Ffrontend"));
  await (await cell(page, "staging/deployment/frontend", "shop/deployment/backend")).click();
  check(`${place}: a denied pair has its reason`, (await why.textContent()).includes("isolated by NetworkPolicy shop/backend-from-frontend"));
  await page.keyboard.press("ArrowDown");
  check(`${place}: arrows move between cells`, await page.evaluate(() => document.activeElement.tagName === "TD"));
  await page.fill("#search", "backend-egress");
  await page.waitForTimeout(250);
  check(`${place}: the search filters tables`, (await page.locator("table.list tbody tr:visible").count()) < (await page.locator("table.list tbody tr").count()));
  await page.fill("#search", "");
  await page.waitForTimeout(250);
});

const largePage = run(["report", "-f", largeFile, "--pod-cidr", "10.244.0.0/16"]);
check("1,000 workloads: less than 5 MB", Buffer.byteLength(largePage) < 5_000_000, `${Buffer.byteLength(largePage)} bytes`);
console.log(`page of 1,000 workloads: ${Buffer.byteLength(largePage)} bytes`);
await inspect("large", largePage, async (page, place, took) => {
  console.log(`${place}: loaded in ${took} ms`);
  check(`${place}: namespaces are folded`, (await page.locator("#grid tbody tr").count()) <= 60);
  await page.getByRole("button", { name: "Unfold all" }).click();
  await page.evaluate(() => document.getElementById("grid").scrollTo(40_000, 15_000));
  await page.waitForTimeout(200);
  const drawn = await page.locator("#grid td").count();
  check(`${place}: only cells in view are drawn`, drawn > 50 && drawn < 2_500, `${drawn} cells`);
  await page.evaluate(() => document.getElementById("grid").scrollTo(0, 0));
  await page.getByRole("button", { name: "Fold all", exact: true }).click();
  await page.locator("#grid td.some").first().click();
  check(`${place}: a cell of namespaces lists its pairs`, (await page.locator("#why li button").count()) > 0);
});

await inspect("odd", run(["report", "-f", path.dirname(oddFile)]), async (page, place) => {
  check(`${place}: the name is shown as text`, (await page.textContent("body")).includes("<script>window.stolen=1</script>"));
  await page.locator("#grid td.some, #grid td.all").first().click();
});
const diff = run(["diff", "examples/shop", "examples/shop-two-rules", "-o", "html"], [1]);
await inspect("diff", diff, async (page, place) => {
  check(`${place}: the changes are shown`, (await page.textContent("body")).includes("opened"));
});
{
  const { page, said, close } = await open(pathToFileURL(path.join(folder, "shop.html")).href, { script: false });
  check("without JavaScript: the tables are there", (await page.locator("#links tbody tr").count()) > 2);
  check("without JavaScript: no error", said.length === 0, said.join("; "));
  await close();
}

// Mermaid itself: parse, and draw.
{
  const { page, close } = await open("about:blank");
  await page.addScriptTag({ content: mermaid });
  await page.evaluate(() => window.mermaid.initialize({ startOnLoad: false, securityLevel: "strict" }));
  const graphs = [
    [["describe", "shop/backend", "-f", "examples/shop", "-o", "mermaid"]],
    [["describe", "cnp/guardrails", "-f", "examples/tiers", "-o", "mermaid"]],
    [["describe", "shop/netpol/web", "-f", "crates/palisade/tests/cases/describe/idle.yaml", "-o", "mermaid"]],
    [["describe", "ns/shop", "-f", "examples/tiers", "-o", "mermaid"]],
    [["describe", "team-01/app-1", "-f", largeFile, "--pod-cidr", "10.244.0.0/16", "-o", "mermaid"]],
    [["diff", "examples/shop", "examples/shop-two-rules", "-o", "mermaid"], [1]],
    [["connections", "-f", "examples/shop", "-o", "mermaid"]],
    ...["connections", "describe shop/pod/b", "describe shop/netpol/p", "describe ns/shop"].map((words) => [[...words.split(" "), "-f", path.dirname(oddFile), "-o", "mermaid"]]),
  ];
  for (const [at, [words, codes]] of graphs.entries()) {
    const text = run(words, codes);
    const drawn = await page.evaluate(async ([id, graph]) => {
      try {
        await window.mermaid.parse(graph);
        const { svg } = await window.mermaid.render(id, graph);
        const shown = new DOMParser().parseFromString(svg, "text/html");
        return { scripts: shown.querySelectorAll("script, img, a[href^=javascript]").length, text: shown.body.textContent };
      } catch (error) {
        return { error: String(error) };
      }
    }, [`graph${at}`, text]);
    check(`Mermaid draws ${words.join(" ")}`, !drawn.error && drawn.scripts === 0, JSON.stringify(drawn).slice(0, 600));
  }
  check("Mermaid ran nothing", (await page.evaluate("window.stolen")) === undefined);
  await close();
}
// SVG: well-formed for a browser, and described.
for (const [name, words] of [
  ["workload", ["describe", "shop/backend", "-f", "examples/shop"]],
  ["forwarded", ["describe", "shop/web", "-f", "examples/ingress"]],
  ["policy", ["describe", "shop/netpol/web", "-f", "crates/palisade/tests/cases/describe/idle.yaml"]],
  ["tiers", ["describe", "cnp/guardrails", "-f", "examples/tiers"]],
  ["namespace", ["describe", "ns/shop", "-f", "examples/tiers"]],
  ["odd-workload", ["describe", "shop/pod/b", "-f", path.dirname(oddFile)]],
]) {
  const url = pathToFileURL(file(`${name}.svg`, run([...words, "-o", "svg"]))).href;
  for (const dark of [false, true]) {
    const { page, said, close } = await open(url, { dark });
    const root = await page.evaluate(() => [document.documentElement.tagName, document.querySelectorAll("title").length, document.querySelectorAll("parsererror, script").length]);
    check(`${name}.svg`, root[0] === "svg" && root[1] > 2 && root[2] === 0 && said.length === 0, `${root} ${said}`);
    // Chromium takes no screenshot of a document that is not HTML.
    const around = pathToFileURL(file(`${name}.svg.html`, `<!DOCTYPE html><meta name="color-scheme" content="light dark"><img src="${name}.svg" alt="">`)).href;
    await page.goto(around);
    await page.screenshot({ path: path.join(folder, `${name}-${dark ? "dark" : "light"}.png`) });
    await close();
  }
}
await browser.close();
console.log(`${checks} checks, ${failures} failed`);
process.exit(failures === 0 ? 0 : 1);
