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
import { accessible, check, finish } from "./checks.mjs";
import { large, odd } from "./clusters.mjs";

const [folder, palisade, root] = process.argv.slice(2).map((name) => path.resolve(name));
const require = createRequire(import.meta.url);
const mermaid = fs.readFileSync(path.join(path.dirname(require.resolve("mermaid/package.json")), "dist/mermaid.min.js"), "utf8");
const run = (words, codes = [0]) => {
  try {
    return execFileSync(palisade, words, { cwd: root, encoding: "utf8", maxBuffer: 1 << 28, env: { PATH: process.env.PATH, KUBECONFIG: "/nonexistent" }, stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    if (codes.includes(error.status)) return error.stdout;
    throw new Error(`${words.join(" ")}: ${error.stderr}`);
  }
};

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
finish();
